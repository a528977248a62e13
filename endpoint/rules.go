package main

import (
	"encoding/json"
	"net/http"
	"sync"

	"github.com/vmware/govmomi/vim25/types"
)

// rule changes what becomes of matching calls. The first rule that matches a call applies.
type rule struct {
	Method      string `json:"method"`      // CreateSnapshot_Task, …; "*" is any
	Object      string `json:"object"`      // identifier or name of the VM; "" is any
	DelayMs     int    `json:"delayMs"`     // how long the task runs; for other calls, before the answer
	Fault       string `json:"fault"`       // vim fault type with which the task ends
	Message     string `json:"message"`     // text of the fault
	AtCall      bool   `json:"atCall"`      // the fault comes from the call, and there is no task
	Drop        bool   `json:"drop"`        // close the connection without an answer
	After       bool   `json:"after"`       // the work is done all the same; a task may still run at the drop
	Ended       bool   `json:"ended"`       // with drop and after: the task has ended before the drop
	LeaveDeltas bool   `json:"leaveDeltas"` // a removal forgets the snapshot and merges nothing
	Skip        int    `json:"skip"`        // matching calls to let pass first
	Times       int    `json:"times"`       // then calls to apply to; 0 is all

	spent bool
}

// ruleBook holds the rules and counts calls by method.
type ruleBook struct {
	mu    sync.Mutex
	rules []*rule
	calls map[string]int
}

// match counts a call and returns the rule that applies to it, nil where none does.
func (b *ruleBook) match(method string, ref types.ManagedObjectReference, m *machine) *rule {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.calls[method]++
	for _, r := range b.rules {
		if r.spent || !r.about(method, ref, m) {
			continue
		}
		if r.Skip > 0 {
			r.Skip--
			continue
		}
		if r.Times > 0 {
			r.Times--
			r.spent = r.Times == 0
		}
		applied := *r
		return &applied
	}
	return nil
}

func (r *rule) about(method string, ref types.ManagedObjectReference, m *machine) bool {
	if r.Method != "*" && r.Method != method {
		return false
	}
	if r.Object == "" || r.Object == ref.Value {
		return true
	}
	return m != nil && (r.Object == m.vm.Self.Value || r.Object == m.vm.Name)
}

// serve answers /lab/rules (PUT: replace) and /lab/calls (GET: read, DELETE: back to zero).
func (b *ruleBook) serve(w http.ResponseWriter, r *http.Request) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch r.Method + " " + r.URL.Path {
	case "PUT /lab/rules":
		var rules []*rule
		decoder := json.NewDecoder(r.Body)
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&rules); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		for _, one := range rules {
			if _, ok := faultType(one.Fault); one.Fault != "" && !ok {
				http.Error(w, "no vim fault is called "+one.Fault, http.StatusBadRequest)
				return
			}
		}
		b.rules = rules
		w.WriteHeader(http.StatusNoContent)
	case "GET /lab/calls":
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(b.calls)
	case "DELETE /lab/calls":
		b.calls = map[string]int{}
		w.WriteHeader(http.StatusNoContent)
	default:
		http.NotFound(w, r)
	}
}
