package main

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

const (
	head = `<?xml version="1.0" encoding="UTF-8"?><soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/" xmlns:xsd="http://www.w3.org/2001/XMLSchema" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><soapenv:Body>`
	tail = `</soapenv:Body></soapenv:Envelope>`
	// asked in a client's name before a task of ours: is there a session?
	currentTime = `<?xml version="1.0"?><Envelope xmlns="http://schemas.xmlsoap.org/soap/envelope/"><Body><CurrentTime xmlns="urn:vim25"><_this type="ServiceInstance">ServiceInstance</_this></CurrentTime></Body></Envelope>`
)

// lab stands between the network and the simulator: it counts and bends calls, and does the
// snapshot work itself. Everything else is the simulator's.
type lab struct {
	ruleBook
	inner  http.Handler
	guests *guestBook
	open   openTasks
}

func newLab(inner http.Handler, guests *guestBook) *lab {
	return &lab{ruleBook: ruleBook{calls: map[string]int{}}, inner: inner, guests: guests}
}

func (l *lab) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, "/lab/") {
		l.serve(w, r)
		return
	}
	if r.URL.Path != "/sdk" || r.Method != http.MethodPost {
		l.inner.ServeHTTP(w, r)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	method, err := simulator.UnmarshalBody(findType, body)
	if err != nil { // the simulator finds the words for it
		l.forward(w, r, "", body)
		return
	}
	found := l.guests.find(method.This)
	applied := l.match(method.Name, method.This, found)
	if applied == nil {
		applied = &rule{}
	}
	if applied.Drop && !applied.After {
		panic(http.ErrAbortHandler)
	}
	if work := l.workFor(method, found, applied); work != nil && !(applied.Fault != "" && applied.AtCall) {
		l.ownTask(w, r, method, found, applied, work)
		return
	}
	time.Sleep(time.Duration(applied.DelayMs) * time.Millisecond)
	if applied.Fault != "" {
		writeFault(w, newFault(applied.Fault, method.This), applied.Message)
		return
	}
	if applied.Drop { // the answer is lost, the work is not
		l.forward(httptest.NewRecorder(), r, method.Name, body)
		panic(http.ErrAbortHandler)
	}
	l.forward(w, r, method.Name, body)
}

// forward has the simulator answer. It writes an answer at once or panics before it has written
// anything; where it panics, a vCenter would have answered, and so do we.
func (l *lab) forward(w http.ResponseWriter, r *http.Request, name string, body []byte) {
	defer func() {
		crash := recover()
		if crash == nil {
			return
		}
		if name == "Fetch" { // an unset property: a vCenter's answer has no value in it
			fmt.Fprint(w, head+`<FetchResponse xmlns="urn:vim25"></FetchResponse>`+tail)
			return
		}
		log.Printf("panic in %s: %v", name, crash)
		writeFault(w, &types.SystemError{Reason: fmt.Sprint(crash)}, "the simulator failed in "+name)
	}()
	copied := r.Clone(r.Context())
	copied.Body, copied.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	l.inner.ServeHTTP(w, copied)
}

// ownTask answers with a task of ours and lets it run.
func (l *lab) ownTask(w http.ResponseWriter, r *http.Request, method *simulator.Method, m *machine, applied *rule, work taskWork) {
	session := httptest.NewRecorder()
	l.forward(session, r, "CurrentTime", []byte(currentTime))
	if session.Code != http.StatusOK {
		w.Header().Set("Content-Type", "text/xml; charset=utf-8")
		w.WriteHeader(session.Code)
		_, _ = w.Write(session.Body.Bytes())
		return
	}
	task, ended := l.start(method, m, applied, work)
	if applied.Drop {
		if applied.Ended {
			<-ended
		}
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("Content-Type", "text/xml; charset=utf-8")
	fmt.Fprintf(w, head+`<%[1]sResponse xmlns="urn:vim25"><returnval type="Task">%[2]s</returnval></%[1]sResponse>`+tail, method.Name, task.Value)
}

var typeFunc = types.TypeFunc()

func findType(name string) (reflect.Type, bool) {
	if t, ok := typeFunc(name); ok {
		return t, ok
	}
	return typeFunc(name[strings.IndexByte(name, ':')+1:])
}

func faultType(name string) (reflect.Type, bool) {
	t, ok := typeFunc(name)
	if !ok {
		return nil, false
	}
	_, ok = reflect.New(t).Interface().(types.BaseMethodFault)
	return t, ok
}

// newFault makes a fault by its name. References and power states in it must say something, or
// clients fail to read the answer: references name the object of the call.
func newFault(name string, about types.ManagedObjectReference) types.BaseMethodFault {
	t, ok := faultType(name)
	if !ok {
		return &types.SystemError{Reason: "no such fault: " + name}
	}
	fault := reflect.New(t)
	fillReferences(fault.Elem(), about)
	return fault.Interface().(types.BaseMethodFault)
}

func fillReferences(v reflect.Value, about types.ManagedObjectReference) {
	for i := 0; i < v.NumField(); i++ {
		field := v.Field(i)
		switch {
		case field.Type() == reflect.TypeOf(about):
			if v.Type().Field(i).Name == "Task" {
				about = types.ManagedObjectReference{Type: "Task", Value: "task-0"}
			}
			field.Set(reflect.ValueOf(about))
		case field.Type() == reflect.TypeOf(types.VirtualMachinePowerStatePoweredOff):
			field.Set(reflect.ValueOf(types.VirtualMachinePowerStatePoweredOff))
		case field.Kind() == reflect.Struct && field.Type() != reflect.TypeOf(time.Time{}):
			fillReferences(field, about)
		}
	}
}

func writeFault(w http.ResponseWriter, fault types.BaseMethodFault, message string) {
	var detail, text bytes.Buffer
	name := reflect.TypeOf(fault).Elem().Name()
	start := xml.StartElement{Name: xml.Name{Local: name + "Fault"}, Attr: []xml.Attr{
		{Name: xml.Name{Local: "xmlns"}, Value: "urn:vim25"}, {Name: xml.Name{Local: "xsi:type"}, Value: name},
	}}
	if err := xml.NewEncoder(&detail).EncodeElement(fault, start); err != nil {
		log.Printf("fault %s: %v", name, err)
	}
	_ = xml.EscapeText(&text, []byte(message))
	w.Header().Set("Content-Type", "text/xml; charset=utf-8")
	w.WriteHeader(http.StatusInternalServerError)
	fmt.Fprintf(w, head+`<soapenv:Fault><faultcode>ServerFaultCode</faultcode><faultstring>%s</faultstring><detail>%s</detail></soapenv:Fault>`+tail, text.String(), detail.String())
}
