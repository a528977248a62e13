package main

import (
	"fmt"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

type taskWork func() (types.AnyType, types.BaseMethodFault)

// Identifiers of tasks carry the time of the start, so that a client that asks after a restart
// for a task from before never gets another one.
var (
	started  = time.Now().UnixMilli()
	lastTask int64
)

// recentTasks is how many tasks a VM lists.
const recentTasks = 5

// openTasks are the tasks that are not over, in order of their calls.
type openTasks struct {
	mu   sync.Mutex
	refs []types.ManagedObjectReference
}

// add registers a task. The simulator lists the last 200 tasks as recent ones; a vCenter goes on
// listing those that are not over, and so do we.
func (o *openTasks) add(task *simulator.Task) {
	o.mu.Lock()
	defer o.mu.Unlock()
	simulator.Map.Put(task)
	o.refs = append(o.refs, task.Self)
	manager, ok := simulator.Map.Get(types.ManagedObjectReference{Type: "TaskManager", Value: "TaskManager"}).(*simulator.TaskManager)
	if !ok {
		return
	}
	simulator.Map.WithLock(manager, func() {
		var list []types.ManagedObjectReference
		for _, ref := range o.refs {
			if !holds(manager.RecentTask, ref) {
				list = append(list, ref)
			}
		}
		if list != nil {
			list = append(list, manager.RecentTask...)
			simulator.Map.Update(manager, []types.PropertyChange{{Name: "recentTask", Val: list}})
		}
	})
}

func (o *openTasks) remove(ref types.ManagedObjectReference) {
	o.mu.Lock()
	defer o.mu.Unlock()
	var left []types.ManagedObjectReference
	for _, other := range o.refs {
		if other != ref {
			left = append(left, other)
		}
	}
	o.refs = left
}

// start registers a task on a VM and runs it in the background; the channel closes at its end.
func (l *lab) start(method *simulator.Method, m *machine, applied *rule, work taskWork) (types.ManagedObjectReference, <-chan struct{}) {
	name := strings.TrimSuffix(method.Name, "_Task")
	task := &simulator.Task{}
	task.Self = types.ManagedObjectReference{Type: "Task", Value: fmt.Sprintf("task-%x-%d", started, atomic.AddInt64(&lastTask, 1))}
	entity := m.vm.Self
	task.Info = types.TaskInfo{
		Key: task.Self.Value, Task: task.Self, Name: method.Name, Entity: &entity, EntityName: m.vm.Name,
		DescriptionId: "VirtualMachine." + strings.ToLower(name[:1]) + name[1:],
		State:         types.TaskInfoStateQueued, QueueTime: time.Now(),
		Reason: &types.TaskReasonUser{UserName: "user"},
	}
	l.open.add(task)
	simulator.Map.WithLock(m.vm, func() {
		recent := append(append([]types.ManagedObjectReference(nil), m.vm.RecentTask...), task.Self)
		if len(recent) > recentTasks {
			recent = recent[len(recent)-recentTasks:]
		}
		simulator.Map.Update(m.vm, []types.PropertyChange{{Name: "recentTask", Val: recent}})
	})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer l.open.remove(task.Self)
		l.run(task, method, m, applied, work)
	}()
	return task.Self, ended
}

// run carries a task out. Tasks on one VM run one after another, in order of their calls.
func (l *lab) run(task *simulator.Task, method *simulator.Method, m *machine, applied *rule, work taskWork) {
	m.Lock()
	defer m.Unlock()
	change(task, types.PropertyChange{Name: "info.startTime", Val: time.Now()},
		types.PropertyChange{Name: "info.state", Val: types.TaskInfoStateRunning})
	time.Sleep(time.Duration(applied.DelayMs) * time.Millisecond)
	var result types.AnyType
	var fault types.BaseMethodFault
	if applied.Fault == "" || applied.After {
		result, fault = work()
	}
	if applied.Fault != "" {
		result, fault = nil, newFault(applied.Fault, method.This)
	}
	state, failure := types.TaskInfoStateSuccess, interface{}(nil)
	if fault != nil {
		text := orElse(applied.Message, reflect.TypeOf(fault).Elem().Name())
		state, failure = types.TaskInfoStateError, types.LocalizedMethodFault{Fault: fault, LocalizedMessage: text}
	}
	change(task, types.PropertyChange{Name: "info.completeTime", Val: time.Now()},
		types.PropertyChange{Name: "info.result", Val: result},
		types.PropertyChange{Name: "info.error", Val: failure},
		types.PropertyChange{Name: "info.state", Val: state})
}

// change makes changes that belong together visible together: no reader sees success without its
// result.
func change(task *simulator.Task, changes ...types.PropertyChange) {
	simulator.Map.WithLock(task, func() { simulator.Map.Update(task, changes) })
}

// workFor is what a method does that is ours to carry out; nil for all that is the simulator's.
func (l *lab) workFor(method *simulator.Method, m *machine, applied *rule) taskWork {
	if m == nil {
		return nil
	}
	var work func() (types.AnyType, types.BaseMethodFault)
	switch body := method.Body.(type) {
	case *types.CreateSnapshot_Task:
		work = func() (types.AnyType, types.BaseMethodFault) {
			return m.create(body.Name, body.Description, body.Quiesce)
		}
	case *types.CreateSnapshotEx_Task:
		work = func() (types.AnyType, types.BaseMethodFault) {
			return m.create(body.Name, body.Description, body.QuiesceSpec != nil)
		}
	case *types.RemoveSnapshot_Task:
		merge := !applied.LeaveDeltas && (body.Consolidate == nil || *body.Consolidate)
		work = func() (types.AnyType, types.BaseMethodFault) {
			if !m.record.remove(body.This.Value, body.RemoveChildren, merge) {
				return nil, &types.ManagedObjectNotFound{Obj: body.This}
			}
			return nil, nil
		}
	case *types.RemoveAllSnapshots_Task:
		work = func() (types.AnyType, types.BaseMethodFault) {
			m.record.removeAll(!applied.LeaveDeltas)
			return nil, nil
		}
	case *types.ConsolidateVMDisks_Task:
		work = func() (types.AnyType, types.BaseMethodFault) {
			m.record.merge()
			return nil, nil
		}
	case *types.RelocateVM_Task:
		work = func() (types.AnyType, types.BaseMethodFault) { return nil, m.relocate(&body.Spec) }
	default:
		return nil
	}
	return func() (types.AnyType, types.BaseMethodFault) {
		result, fault := work()
		if fault != nil {
			return nil, fault
		}
		if err := l.guests.save(m.record); err != nil {
			return nil, &types.SystemError{Reason: err.Error()}
		}
		m.publish()
		return result, nil
	}
}

// create takes a snapshot. As the API's documentation has it, the wish to quiesce is ignored where
// the guest does not run or has no running tools.
func (m *machine) create(name, description string, quiesce bool) (types.AnyType, types.BaseMethodFault) {
	var on, tools bool
	simulator.Map.WithLock(m.vm, func() {
		on = m.vm.Runtime.PowerState == types.VirtualMachinePowerStatePoweredOn
		tools = m.vm.Guest != nil && m.vm.Guest.ToolsRunningStatus == "guestToolsRunning"
	})
	s := m.record.snapshot(snapshotSpec{Name: name, Description: description, PoweredOn: on, Quiesced: quiesce && on && tools})
	return snapshotRef(s.ID), nil
}

// relocate moves the home, the disks, or single disks to other datastores, and the VM to another
// host.
func (m *machine) relocate(spec *types.VirtualMachineRelocateSpec) types.BaseMethodFault {
	store := func(ref *types.ManagedObjectReference) (string, types.BaseMethodFault) {
		if ref == nil {
			return "", nil
		}
		found, ok := simulator.Map.Get(*ref).(*simulator.Datastore)
		if !ok {
			return "", &types.ManagedObjectNotFound{Obj: *ref}
		}
		return found.Name, nil
	}
	home, fault := store(spec.Datastore)
	if fault != nil {
		return fault
	}
	single := map[int32]string{}
	for i := range spec.Disk {
		if single[spec.Disk[i].DiskId], fault = store(&spec.Disk[i].Datastore); fault != nil {
			return fault
		}
	}
	m.record.move(home, func(key int32) string { return orElse(single[key], home) })
	if spec.Host != nil {
		simulator.Map.WithLock(m.vm, func() {
			simulator.Map.Update(m.vm, []types.PropertyChange{
				{Name: "runtime.host", Val: spec.Host}, {Name: "summary.runtime.host", Val: spec.Host},
			})
		})
	}
	return nil
}
