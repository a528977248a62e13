package main

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// machine is one VM and our record of it. Its lock makes tasks on one VM run one after another.
type machine struct {
	sync.Mutex
	vm     *simulator.VirtualMachine
	record *record
	shown  map[string]bool // identifiers of the snapshots that publish has put into the registry
}

// guestBook finds machines and keeps their records in the state folder, a file for each VM.
type guestBook struct {
	mu       sync.Mutex
	machines map[types.ManagedObjectReference]*machine
	state    string
}

func newGuestBook(state string) *guestBook {
	return &guestBook{machines: map[types.ManagedObjectReference]*machine{}, state: state}
}

// adopt starts a record for a VM of the inventory: the kept one if there is one.
func (g *guestBook) adopt(vm *simulator.VirtualMachine, spec *guestSpec) error {
	m := &machine{vm: vm, shown: map[string]bool{}}
	kept, err := g.load(vm.Name)
	if err != nil {
		return err
	}
	if m.record = kept; kept == nil {
		m.record = newRecord(vm)
		m.record.preset(spec.Snapshots, !spec.Off)
	}
	for _, s := range m.record.Snapshots {
		if n, err := strconv.ParseInt(strings.TrimPrefix(s.ID, "snapshot-"), 10, 64); err == nil && n > atomic.LoadInt64(&lastSnapshot) {
			atomic.StoreInt64(&lastSnapshot, n)
		}
	}
	g.machines[vm.Self] = m
	m.publish()
	return nil
}

// find is the machine of a VM or of one of its snapshots; nil for anything else.
func (g *guestBook) find(ref types.ManagedObjectReference) *machine {
	var vm *simulator.VirtualMachine
	switch found := simulator.Map.Get(ref).(type) {
	case *simulator.VirtualMachine:
		vm = found
	case *simulator.VirtualMachineSnapshot:
		vm, _ = simulator.Map.Get(found.Vm).(*simulator.VirtualMachine)
	}
	if vm == nil {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	m := g.machines[vm.Self]
	if m == nil { // made by a call, not by the inventory
		m = &machine{vm: vm, shown: map[string]bool{}, record: newRecord(vm)}
		g.machines[vm.Self] = m
	}
	return m
}

// newRecord reads a VM's configuration as it is before any snapshot.
func newRecord(vm *simulator.VirtualMachine) *record {
	r := &record{Name: vm.Name, Home: vm.Config.Files.VmPathName, Disks: map[int32][]string{}, Held: map[int32]bool{}}
	for _, device := range vm.Config.Hardware.Device {
		disk, ok := device.(*types.VirtualDisk)
		if !ok {
			continue
		}
		switch b := disk.Backing.(type) {
		case *types.VirtualDiskFlatVer2BackingInfo:
			r.Disks[disk.Key] = []string{b.FileName}
			r.Held[disk.Key] = !strings.HasPrefix(b.DiskMode, "independent")
		case *types.VirtualDiskRawDiskMappingVer1BackingInfo:
			r.Disks[disk.Key] = []string{b.FileName}
			r.Held[disk.Key] = b.CompatibilityMode != "physicalMode" && !strings.HasPrefix(b.DiskMode, "independent")
		}
	}
	return r
}

func (g *guestBook) file(name string) string {
	return filepath.Join(g.state, url.PathEscape(name)+".json")
}

// save writes a record whole and then puts it in place: a kill leaves the old one or the new one.
func (g *guestBook) save(r *record) error {
	if g.state == "" {
		return nil
	}
	raw, err := json.Marshal(r)
	if err != nil {
		return err
	}
	file := g.file(r.Name)
	if err := os.WriteFile(file+".new", raw, 0o600); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}

func (g *guestBook) load(name string) (*record, error) {
	if g.state == "" {
		return nil, nil
	}
	raw, err := os.ReadFile(g.file(name))
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	r := new(record)
	if err := json.Unmarshal(raw, r); err != nil {
		return nil, fmt.Errorf("%s: %w", g.file(name), err)
	}
	return r, nil
}
