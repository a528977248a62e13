package main

import (
	"strings"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// publish shows a record through the simulator's objects. A reader may still be writing out what
// it was given before, so nothing is changed in place: every structure is made anew.
func (m *machine) publish() {
	vm, r := m.vm, m.record
	stores := storesByName()
	used, tree := r.stores(stores), r.tree(vm.Self)
	var config types.VirtualMachineConfigInfo
	simulator.Map.WithLock(vm, func() {
		config = *vm.Config
		config.Files = filesAt(config.Files, r.Home)
		config.Hardware.Device = render(config.Hardware.Device, r.Disks, stores)
		vm.Config, vm.LayoutEx, vm.Snapshot, vm.RootSnapshot = &config, newLayout(vm.LayoutEx, r), tree, nil
		if tree != nil {
			for _, root := range tree.RootSnapshotList {
				vm.RootSnapshot = append(vm.RootSnapshot, root.Snapshot)
			}
		}
		vm.Summary.Config.VmPathName = r.Home
		vm.Runtime.ConsolidationNeeded = types.NewBool(r.Loose)
		vm.Summary.Runtime.ConsolidationNeeded = types.NewBool(r.Loose)
		storage(vm, vm.LayoutEx, stores)
		simulator.Map.Update(vm, []types.PropertyChange{ // tells property collectors that wait
			{Name: "config.hardware.device", Val: config.Hardware.Device},
			{Name: "datastore", Val: used},
			{Name: "layoutEx.timestamp", Val: vm.LayoutEx.Timestamp},
			{Name: "runtime.consolidationNeeded", Val: r.Loose},
		})
	})
	m.publishSnapshots(&config, stores)
	for _, store := range stores {
		member(store, vm.Self, holds(used, store.Self))
	}
}

func (m *machine) publishSnapshots(config *types.VirtualMachineConfigInfo, stores map[string]*simulator.Datastore) {
	now := map[string]bool{}
	for _, s := range m.record.Snapshots {
		object := &simulator.VirtualMachineSnapshot{}
		object.Self, object.Vm, object.Config = snapshotRef(s.ID), m.vm.Self, *config
		object.Config.Hardware.Device = render(config.Hardware.Device, s.Disks, stores)
		for _, child := range m.record.Snapshots {
			if child.Parent == s.ID {
				object.ChildSnapshot = append(object.ChildSnapshot, snapshotRef(child.ID))
			}
		}
		simulator.Map.Put(object)
		now[s.ID] = true
	}
	for id := range m.shown {
		if !now[id] {
			simulator.Map.Remove(snapshotRef(id))
		}
	}
	m.shown = now
}

func snapshotRef(id string) types.ManagedObjectReference {
	return types.ManagedObjectReference{Type: "VirtualMachineSnapshot", Value: id}
}

// tree is the snapshot property: unset where there is no snapshot, as on a vCenter.
func (r *record) tree(vm types.ManagedObjectReference) *types.VirtualMachineSnapshotInfo {
	if len(r.Snapshots) == 0 {
		return nil
	}
	var under func(parent string) []types.VirtualMachineSnapshotTree
	under = func(parent string) (list []types.VirtualMachineSnapshotTree) {
		for _, s := range r.Snapshots {
			if s.Parent != parent {
				continue
			}
			state := types.VirtualMachinePowerStatePoweredOff
			if s.PoweredOn {
				state = types.VirtualMachinePowerStatePoweredOn
			}
			list = append(list, types.VirtualMachineSnapshotTree{
				Snapshot: snapshotRef(s.ID), Vm: vm, Name: s.Name, Description: s.Description, Id: s.Number,
				CreateTime: s.Created, State: state, Quiesced: s.Quiesced, ReplaySupported: types.NewBool(false),
				ChildSnapshotList: under(s.ID),
			})
		}
		return list
	}
	info := &types.VirtualMachineSnapshotInfo{RootSnapshotList: under("")}
	if r.Current != "" {
		current := snapshotRef(r.Current)
		info.CurrentSnapshot = &current
	}
	return info
}

func filesAt(files types.VirtualMachineFileInfo, home string) types.VirtualMachineFileInfo {
	folder := home[:strings.LastIndexByte(home, '/')+1]
	files.VmPathName, files.SnapshotDirectory, files.LogDirectory, files.SuspendDirectory = home, folder, folder, folder
	return files
}

// render gives every disk the backing that its chain of files asks for.
func render(devices []types.BaseVirtualDevice, chains map[int32][]string, stores map[string]*simulator.Datastore) []types.BaseVirtualDevice {
	out := make([]types.BaseVirtualDevice, 0, len(devices))
	for _, device := range devices {
		if disk, ok := device.(*types.VirtualDisk); ok && len(chains[disk.Key]) > 0 {
			made := *disk
			made.Backing = backing(disk.Backing, chains[disk.Key], stores)
			device = &made
		}
		out = append(out, device)
	}
	return out
}

func backing(like types.BaseVirtualDeviceBackingInfo, chain []string, stores map[string]*simulator.Datastore) types.BaseVirtualDeviceBackingInfo {
	place := func(info *types.VirtualDeviceFileBackingInfo, file string) {
		info.FileName = file
		if store := stores[storeOf(file)]; store != nil {
			self := store.Self
			info.Datastore = &self
		}
	}
	switch b := like.(type) {
	case *types.VirtualDiskFlatVer2BackingInfo:
		var top *types.VirtualDiskFlatVer2BackingInfo
		for _, file := range chain {
			layer := *b
			layer.Parent = top
			place(&layer.VirtualDeviceFileBackingInfo, file)
			top = &layer
		}
		return top
	case *types.VirtualDiskRawDiskMappingVer1BackingInfo:
		var top *types.VirtualDiskRawDiskMappingVer1BackingInfo
		for _, file := range chain {
			layer := *b
			layer.Parent = top
			place(&layer.VirtualDeviceFileBackingInfo, file)
			top = &layer
		}
		return top
	}
	return like
}

// newLayout lists all files. A file that was listed before keeps its key.
func newLayout(old *types.VirtualMachineFileLayoutEx, r *record) *types.VirtualMachineFileLayoutEx {
	keys, next := map[string]int32{}, int32(0)
	if old != nil {
		for _, f := range old.File {
			keys[f.Name] = f.Key
			if f.Key >= next {
				next = f.Key + 1
			}
		}
	}
	layout := &types.VirtualMachineFileLayoutEx{Timestamp: time.Now()}
	listed := map[string]bool{}
	file := func(name, kind string) int32 {
		key, ok := keys[name]
		if !ok {
			key, keys[name], next = next, next, next+1
		}
		if !listed[name] {
			listed[name] = true
			layout.File = append(layout.File, types.VirtualMachineFileLayoutExFileInfo{Key: key, Name: name, Type: kind, Accessible: types.NewBool(true)})
		}
		return key
	}
	stem := strings.TrimSuffix(r.Home, ".vmx")
	file(r.Home, "config")
	file(stem+".nvram", "nvram")
	file(stem+".vmsd", "snapshotList")
	file(r.Home[:strings.LastIndexByte(r.Home, '/')+1]+"vmware.log", "log")
	disks := func(chains map[int32][]string) (list []types.VirtualMachineFileLayoutExDiskLayout) {
		for _, key := range sortedKeys(chains) {
			disk := types.VirtualMachineFileLayoutExDiskLayout{Key: key}
			for i, name := range chains[key] {
				extent := "-flat.vmdk"
				if i > 0 {
					extent = "-delta.vmdk"
				}
				disk.Chain = append(disk.Chain, types.VirtualMachineFileLayoutExDiskUnit{FileKey: []int32{
					file(name, "diskDescriptor"), file(strings.TrimSuffix(name, ".vmdk")+extent, "diskExtent"),
				}})
			}
			list = append(list, disk)
		}
		return list
	}
	layout.Disk = disks(r.Disks)
	for _, s := range r.Snapshots {
		layout.Snapshot = append(layout.Snapshot, types.VirtualMachineFileLayoutExSnapshotLayout{
			Key: snapshotRef(s.ID), DataKey: file(r.dataFile(s), "snapshotData"), MemoryKey: -1, Disk: disks(s.Disks),
		})
	}
	return layout
}
