package main

import (
	"sort"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

func storesByName() map[string]*simulator.Datastore {
	out := map[string]*simulator.Datastore{}
	for _, entity := range simulator.Map.All("Datastore") {
		store := entity.(*simulator.Datastore)
		out[store.Name] = store
	}
	return out
}

// stores are the datastores on which a VM has a file, the home first.
func (r *record) stores(all map[string]*simulator.Datastore) []types.ManagedObjectReference {
	names := map[string]bool{storeOf(r.Home): true}
	for file := range r.files() {
		names[storeOf(file)] = true
	}
	var others []string
	for name := range names {
		if name != storeOf(r.Home) {
			others = append(others, name)
		}
	}
	sort.Strings(others)
	var refs []types.ManagedObjectReference
	for _, name := range append([]string{storeOf(r.Home)}, others...) {
		if store := all[name]; store != nil {
			refs = append(refs, store.Self)
		}
	}
	return refs
}

// member puts a VM into a datastore's list of VMs, or takes it out.
func member(store *simulator.Datastore, vm types.ManagedObjectReference, in bool) {
	simulator.Map.WithLock(store, func() {
		if holds(store.Vm, vm) == in {
			return
		}
		var list []types.ManagedObjectReference
		for _, other := range store.Vm {
			if other != vm {
				list = append(list, other)
			}
		}
		if in {
			list = append(list, vm)
		}
		simulator.Map.Update(store, []types.PropertyChange{{Name: "vm", Val: list}})
	})
}

// storage says how much a VM takes on each datastore. The endpoint keeps no data, so these are
// disk capacities on the datastores that hold the disks' base files, not sizes of files.
func storage(vm *simulator.VirtualMachine, layout *types.VirtualMachineFileLayoutEx, all map[string]*simulator.Datastore) {
	bytes, seen := map[string]int64{}, map[string]bool{}
	var order []string
	for _, f := range layout.File {
		name := storeOf(f.Name)
		if !seen[name] {
			seen[name] = true
			order = append(order, name)
		}
	}
	for _, device := range vm.Config.Hardware.Device {
		if disk, ok := device.(*types.VirtualDisk); ok {
			if file, ok := disk.Backing.(types.BaseVirtualDeviceFileBackingInfo); ok {
				bytes[storeOf(file.GetVirtualDeviceFileBackingInfo().FileName)] += disk.CapacityInBytes
			}
		}
	}
	summary := &types.VirtualMachineStorageSummary{Timestamp: time.Now()}
	info := &types.VirtualMachineStorageInfo{Timestamp: time.Now()}
	for _, name := range order {
		if store := all[name]; store != nil {
			info.PerDatastoreUsage = append(info.PerDatastoreUsage, types.VirtualMachineUsageOnDatastore{
				Datastore: store.Self, Committed: bytes[name], Unshared: bytes[name],
			})
			summary.Committed += bytes[name]
			summary.Unshared += bytes[name]
		}
	}
	vm.Storage, vm.Summary.Storage = info, summary
}

func holds(list []types.ManagedObjectReference, ref types.ManagedObjectReference) bool {
	for _, one := range list {
		if one == ref {
			return true
		}
	}
	return false
}

func sortedKeys(chains map[int32][]string) []int32 {
	var keys []int32
	for key := range chains {
		keys = append(keys, key)
	}
	sort.Slice(keys, func(i, j int) bool { return keys[i] < keys[j] })
	return keys
}
