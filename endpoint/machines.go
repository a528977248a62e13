package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/simulator/esx"
	"github.com/vmware/govmomi/vim25/types"
)

const (
	firstDiskKey  = int32(2000)
	reservedUnit  = int32(7) // the controller's own place on the bus
	controllerKey = int32(1000)
)

// guest makes one VM of the inventory. The simulator makes the VM and its controller; disks, and
// all that changes with snapshots and moves, come from our record of it.
func (b *builder) guest(spec *guestSpec, index int, guests *guestBook) error {
	folder, err := b.folder(spec.Folder)
	if err != nil {
		return err
	}
	host, err := b.host(spec.Host, index)
	if err != nil {
		return err
	}
	var devices object.VirtualDeviceList
	scsi, err := devices.CreateSCSIController("pvscsi")
	if err != nil {
		return err
	}
	scsi.GetVirtualDevice().Key = controllerKey
	ide, err := devices.CreateIDEController()
	if err != nil {
		return err
	}
	cdrom, err := devices.CreateCdrom(ide.(*types.VirtualIDEController))
	if err != nil {
		return err
	}
	card := esx.EthernetCard // what the simulator gives to the VMs of its own models, too
	change, err := object.VirtualDeviceList{scsi, ide, cdrom, &card}.ConfigSpec(types.VirtualDeviceConfigSpecOperationAdd)
	if err != nil {
		return err
	}
	config := types.VirtualMachineConfigSpec{
		Name: spec.Name, GuestId: orElse(spec.GuestID, "otherGuest64"), NumCPUs: 1,
		MemoryMB:     spec.Memory,
		Files:        &types.VirtualMachineFileInfo{VmPathName: "[" + spec.Disks[0].Datastore + "]"},
		DeviceChange: change,
	}
	if config.MemoryMB == 0 {
		config.MemoryMB = 64
	}
	task, err := folder.CreateVM(b.ctx, config, b.pools[host.Name], object.NewHostSystem(b.client, host.Self))
	if err != nil {
		return err
	}
	info, err := task.WaitForResult(b.ctx, nil)
	if err != nil {
		return err
	}
	vm := simulator.Map.Get(info.Result.(types.ManagedObjectReference)).(*simulator.VirtualMachine)
	if err := b.power(vm, spec); err != nil {
		return err
	}
	addDisks(vm, spec)
	return guests.adopt(vm, spec)
}

func (b *builder) power(vm *simulator.VirtualMachine, spec *guestSpec) error {
	if !spec.Off && !spec.Template {
		if _, err := object.NewVirtualMachine(b.client, vm.Self).PowerOn(b.ctx); err != nil {
			return err
		}
	}
	if spec.Template {
		if err := object.NewVirtualMachine(b.client, vm.Self).MarkAsTemplate(b.ctx); err != nil {
			return err
		}
	}
	switch spec.Tools {
	case "", "running":
		vm.Guest.ToolsRunningStatus, vm.Guest.ToolsVersionStatus2 = "guestToolsRunning", "guestToolsCurrent"
	case "notRunning":
		vm.Guest.ToolsRunningStatus, vm.Guest.ToolsVersionStatus2 = "guestToolsNotRunning", "guestToolsCurrent"
	case "notInstalled":
		vm.Guest.ToolsRunningStatus, vm.Guest.ToolsVersionStatus2 = "guestToolsNotRunning", "guestToolsNotInstalled"
	default:
		return fmt.Errorf("tools %q is none of running, notRunning, notInstalled", spec.Tools)
	}
	vm.Capability.QuiescedSnapshotsSupported, vm.Capability.SnapshotOperationsSupported = true, true
	return nil
}

func (b *builder) host(name string, index int) (*simulator.HostSystem, error) {
	if name == "" {
		return b.hosts[index%len(b.hosts)], nil
	}
	for _, h := range b.hosts {
		if h.Name == name {
			return h, nil
		}
	}
	return nil, fmt.Errorf("no host is called %q", name)
}

func (b *builder) folder(path string) (*object.Folder, error) {
	at, so := b.folders.VmFolder, ""
	for _, name := range strings.Split(path, "/") {
		if name == "" {
			continue
		}
		so += "/" + name
		if b.placed[so] == nil {
			made, err := at.CreateFolder(b.ctx, name)
			if err != nil {
				return nil, err
			}
			b.placed[so] = made
		}
		at = b.placed[so]
	}
	return at, nil
}

// addDisks puts base disks into a VM's configuration. They are data only: no file stands behind
// them, which also lets raw device mappings in, on which the simulator's own code panics.
func addDisks(vm *simulator.VirtualMachine, spec *guestSpec) {
	directory := strings.TrimSuffix(fileOf(vm.Config.Files.VmPathName), "/"+vm.Name+".vmx")
	for i, d := range spec.Disks {
		file := fmt.Sprintf("[%s] %s/%s.vmdk", d.Datastore, directory, vm.Name)
		if i > 0 {
			file = fmt.Sprintf("[%s] %s/%s_%d.vmdk", d.Datastore, directory, vm.Name, i)
		}
		size := d.SizeMb
		if size == 0 {
			size = 1024
		}
		unit := int32(i)
		if unit >= reservedUnit {
			unit++
		}
		disk := &types.VirtualDisk{CapacityInKB: size << 10, CapacityInBytes: size << 20}
		disk.Key, disk.ControllerKey, disk.UnitNumber = firstDiskKey+int32(i), controllerKey, &unit
		disk.DeviceInfo = &types.Description{Label: fmt.Sprintf("Hard disk %d", i+1), Summary: fmt.Sprintf("%d KB", size<<10)}
		mode := orElse(d.Mode, "persistent")
		uuid := fmt.Sprintf("6000C29%s-%04x", vm.Self.Value, i)
		if d.RawLun == "" {
			backing := &types.VirtualDiskFlatVer2BackingInfo{DiskMode: mode, Uuid: uuid, Split: types.NewBool(false), WriteThrough: types.NewBool(false), ThinProvisioned: types.NewBool(true)}
			backing.FileName = file
			disk.Backing = backing
		} else {
			backing := &types.VirtualDiskRawDiskMappingVer1BackingInfo{DiskMode: mode, Uuid: uuid, LunUuid: lunUUID(d.RawLun), DeviceName: "vml." + lunUUID(d.RawLun), CompatibilityMode: orElse(d.RawMode, "virtualMode")}
			backing.FileName = file
			disk.Backing = backing
		}
		vm.Config.Hardware.Device = append(vm.Config.Hardware.Device, disk)
	}
}

// preset notes snapshots that existed before anybody connected, an hour old and more.
func (r *record) preset(names []string, on bool) {
	for i, name := range names {
		s := r.snapshot(snapshotSpec{Name: name, Description: "taken by hand", PoweredOn: on})
		s.Created = time.Now().Add(-time.Duration(len(names)-i) * time.Hour)
	}
}

func orElse(value, other string) string {
	if value == "" {
		return other
	}
	return value
}
