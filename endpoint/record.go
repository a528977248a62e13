package main

import (
	"fmt"
	"path"
	"strings"
	"sync/atomic"
	"time"
)

// record is what a snapshot, a merge or a move changes about one VM. It is the truth: publish.go
// shows it through the simulator's objects, guests.go keeps it across restarts.
type record struct {
	Name      string
	Home      string             // [datastore] folder/name.vmx
	Disks     map[int32][]string // disk files by device key, base first, the one written to last
	Held      map[int32]bool     // disks that a VM snapshot holds still
	Snapshots []*snapshot        // in order of creation
	Current   string             // the snapshot that the disks written to descend from
	Loose     bool               // deltas are left that no snapshot owns
	Numbers   int32              // snapshots ever taken
}

type snapshot struct {
	ID, Parent, Name, Description string
	Number                        int32
	Quiesced, PoweredOn           bool
	Created                       time.Time
	Disks                         map[int32][]string // files as they stood still
}

type snapshotSpec struct {
	Name, Description   string
	Quiesced, PoweredOn bool
}

// Identifiers are counted here and not by the simulator, so that they stay what they were over a
// restart and are never given twice.
var lastSnapshot int64

// snapshot freezes the disks that can be held still and puts a delta on each.
func (r *record) snapshot(spec snapshotSpec) *snapshot {
	r.Numbers++
	s := &snapshot{
		ID: fmt.Sprintf("snapshot-%d", atomic.AddInt64(&lastSnapshot, 1)), Parent: r.Current, Number: r.Numbers,
		Name: spec.Name, Description: spec.Description, Quiesced: spec.Quiesced, PoweredOn: spec.PoweredOn,
		Created: time.Now(), Disks: copyChains(r.Disks),
	}
	used := r.files()
	for key, chain := range r.Disks {
		if r.Held[key] {
			delta := freeName(chain[0], used)
			used[delta] = true
			r.Disks[key] = append(append([]string(nil), chain...), delta)
		}
	}
	r.Snapshots, r.Current = append(r.Snapshots, s), s.ID
	return s
}

// remove forgets a snapshot, or the tree under it, and merges what it kept apart unless asked not
// to. Says whether the snapshot was there.
func (r *record) remove(id string, children, merge bool) bool {
	at := -1
	for i, s := range r.Snapshots {
		if s.ID == id {
			at = i
		}
	}
	if at < 0 {
		return false
	}
	gone := map[string]string{id: r.Snapshots[at].Parent} // to the ancestor that stays
	if children {
		for _, s := range r.Snapshots { // parents come before their children
			if _, ok := gone[s.Parent]; ok {
				gone[s.ID] = gone[id]
			}
		}
	}
	var left []*snapshot
	for _, s := range r.Snapshots {
		if _, ok := gone[s.ID]; ok {
			continue
		}
		if parent, ok := gone[s.Parent]; ok {
			s.Parent = parent
		}
		left = append(left, s)
	}
	r.Snapshots = left
	if parent, ok := gone[r.Current]; ok {
		r.Current = parent
	}
	if merge {
		r.merge()
	} else {
		r.Loose = true
	}
	return true
}

func (r *record) removeAll(merge bool) {
	if len(r.Snapshots) == 0 {
		return
	}
	r.Snapshots, r.Current = nil, ""
	if merge {
		r.merge()
	} else {
		r.Loose = true
	}
}

// merge folds every delta into the file under it, except where a snapshot stands on that file.
func (r *record) merge() {
	frozen := map[string]bool{}
	for _, s := range r.Snapshots {
		for _, chain := range s.Disks {
			frozen[chain[len(chain)-1]] = true
		}
	}
	fold := func(chains map[int32][]string) map[int32][]string {
		out := map[int32][]string{}
		for key, chain := range chains {
			kept := chain[:1:1]
			for i := 1; i < len(chain); i++ {
				if frozen[chain[i-1]] {
					kept = append(kept, chain[i])
				}
			}
			out[key] = kept
		}
		return out
	}
	r.Disks = fold(r.Disks)
	for _, s := range r.Snapshots {
		s.Disks = fold(s.Disks)
	}
	r.Loose = false
}

// move takes disks, with all files under them, and the home to other datastores; "" stays.
func (r *record) move(home string, disk func(key int32) string) {
	r.Home = onStore(r.Home, home)
	relocate := func(chains map[int32][]string) map[int32][]string {
		out := map[int32][]string{}
		for key, chain := range chains {
			for _, file := range chain {
				out[key] = append(out[key], onStore(file, disk(key)))
			}
		}
		return out
	}
	r.Disks = relocate(r.Disks)
	for _, s := range r.Snapshots {
		s.Disks = relocate(s.Disks)
	}
}

// files are all disk files of the VM, those of snapshots included.
func (r *record) files() map[string]bool {
	out := map[string]bool{}
	add := func(chains map[int32][]string) {
		for _, chain := range chains {
			for _, file := range chain {
				out[file] = true
			}
		}
	}
	add(r.Disks)
	for _, s := range r.Snapshots {
		add(s.Disks)
	}
	return out
}

// dataFile is where a snapshot keeps the VM's state.
func (r *record) dataFile(s *snapshot) string {
	return strings.TrimSuffix(r.Home, path.Ext(r.Home)) + fmt.Sprintf("-Snapshot%d.vmsn", s.Number)
}

func freeName(base string, used map[string]bool) string {
	stem := strings.TrimSuffix(base, ".vmdk")
	for i := 1; ; i++ {
		name := fmt.Sprintf("%s-%06d.vmdk", stem, i)
		if !used[name] {
			return name
		}
	}
}

func copyChains(chains map[int32][]string) map[int32][]string {
	out := map[int32][]string{}
	for key, chain := range chains {
		out[key] = append([]string(nil), chain...)
	}
	return out
}

// "[store] folder/file" is how vSphere writes a file's place.
func storeOf(place string) string { return place[1:strings.IndexByte(place, ']')] }

func fileOf(place string) string { return place[strings.IndexByte(place, ']')+2:] }

func onStore(place, store string) string {
	if store == "" {
		return place
	}
	return "[" + store + "] " + fileOf(place)
}
