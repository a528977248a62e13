package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/simulator/esx"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/types"
)

const gib = int64(1) << 30

// builder puts an inventory into the simulator, in process, before anyone can connect.
type builder struct {
	ctx     context.Context
	client  *vim25.Client
	folders *object.DatacenterFolders
	hosts   []*simulator.HostSystem
	pools   map[string]*object.ResourcePool // by host name
	placed  map[string]*object.Folder       // VM folders by path
	parts   map[string]int32                // partitions given so far, by LUN
}

// build makes the model of an inventory; what the state folder holds about its VMs wins.
func build(inv *inventory, state string) (*simulator.Model, *guestBook, error) {
	luns := inv.allLuns()
	addLuns(luns)
	model := simulator.VPX()
	model.Datacenter = 0
	if err := model.Create(); err != nil {
		return nil, nil, err
	}
	client, err := vim25.NewClient(context.Background(), model.Service)
	if err != nil {
		return nil, nil, err
	}
	b := &builder{ctx: context.Background(), client: client, pools: map[string]*object.ResourcePool{}, placed: map[string]*object.Folder{}, parts: map[string]int32{}}
	if err := b.datacenter(inv.Clusters); err != nil {
		return nil, nil, err
	}
	if err := b.datastores(inv.Datastores); err != nil {
		return nil, nil, err
	}
	guests := newGuestBook(state)
	for i := range inv.VMs {
		if err := b.guest(&inv.VMs[i], i, guests); err != nil {
			return nil, nil, fmt.Errorf("VM %q: %w", inv.VMs[i].Name, err)
		}
	}
	return model, guests, nil
}

// addLuns changes the template that every host made later copies.
func addLuns(luns []lunSpec) {
	device := &esx.HostStorageDeviceInfo
	target := &device.ScsiTopology.Adapter[0].Target[0]
	for i, l := range luns {
		key := "key-vim.host.ScsiDisk-" + l.Name
		path := "/vmfs/devices/disks/" + l.Name
		capacity := l.CapacityGb
		if capacity == 0 {
			capacity = 1024
		}
		disk := &types.HostScsiDisk{
			ScsiLun: types.ScsiLun{
				HostDevice:       types.HostDevice{DeviceName: path, DeviceType: "disk"},
				Key:              key,
				Uuid:             lunUUID(l.Name),
				CanonicalName:    l.Name,
				DisplayName:      "Fibre Channel Disk (" + l.Name + ")",
				LunType:          "disk",
				Vendor:           l.Vendor,
				Model:            l.Model,
				SerialNumber:     l.Serial,
				OperationalState: []string{"ok"},
				VStorageSupport:  "vStorageSupported",
			},
			Capacity:   types.HostDiskDimensionsLba{BlockSize: 512, Block: capacity * gib / 512},
			DevicePath: path,
		}
		device.ScsiLun = append(device.ScsiLun, disk)
		target.Lun = append(target.Lun, types.HostScsiTopologyLun{Key: "key-lun-" + l.Name, Lun: int32(i + 1), ScsiLun: key})
	}
}

// lunUUID is the form in which vSphere names a LUN in raw device mappings: the SCSI identifier
// between a type prefix and the start of the model's name.
func lunUUID(name string) string {
	return "0200000000" + strings.TrimPrefix(name, "naa.") + "4c554e202020"
}

func (b *builder) datacenter(clusters []clusterSpec) error {
	dc, err := object.NewRootFolder(b.client).CreateDatacenter(b.ctx, "datacenter-1")
	if err != nil {
		return err
	}
	if b.folders, err = dc.Folders(b.ctx); err != nil {
		return err
	}
	for _, c := range clusters {
		cluster, err := b.folders.HostFolder.CreateCluster(b.ctx, c.Name, types.ClusterConfigSpecEx{})
		if err != nil {
			return err
		}
		pool, err := cluster.ResourcePool(b.ctx)
		if err != nil {
			return err
		}
		for i := 1; i <= c.Hosts; i++ {
			spec := types.HostConnectSpec{HostName: fmt.Sprintf("%s-host-%d", c.Name, i)}
			task, err := cluster.AddHost(b.ctx, spec, true, nil, nil)
			if err != nil {
				return err
			}
			info, err := task.WaitForResult(b.ctx, nil)
			if err != nil {
				return err
			}
			host := simulator.Map.Get(info.Result.(types.ManagedObjectReference)).(*simulator.HostSystem)
			b.hosts, b.pools[host.Name] = append(b.hosts, host), pool
		}
	}
	return nil
}

func (b *builder) datastores(specs []storeSpec) error {
	var mounts []types.HostFileSystemMountInfo
	for i := range specs {
		volume, err := b.datastore(&specs[i], i)
		if err != nil {
			return fmt.Errorf("datastore %q: %w", specs[i].Name, err)
		}
		mounts = append(mounts, types.HostFileSystemMountInfo{
			MountInfo: types.HostMountInfo{AccessMode: "readWrite", Path: "/vmfs/volumes/" + specs[i].UUID},
			Volume:    volume,
		})
	}
	for _, h := range b.hosts {
		h.Config.FileSystemVolume = &types.HostFileSystemVolumeInfo{VolumeTypeList: []string{"VMFS", "NFS"}, MountInfo: mounts}
	}
	return nil
}

// datastore mounts a local one on every host and then says that it is VMFS or NFS: the simulator
// can make only local ones, and does its file work in their folder.
func (b *builder) datastore(spec *storeSpec, index int) (types.BaseHostFileSystemVolume, error) {
	folder := fmt.Sprintf("datastore-%d", 101+index) // relative, and so the start of the identifier
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, err
	}
	var store *simulator.Datastore
	for _, h := range b.hosts {
		system, err := object.NewHostSystem(b.client, h.Self).ConfigManager().DatastoreSystem(b.ctx)
		if err != nil {
			return nil, err
		}
		made, err := system.CreateLocalDatastore(b.ctx, spec.Name, folder)
		if err != nil {
			return nil, err
		}
		again := simulator.Map.Get(made.Reference()).(*simulator.Datastore)
		if store != nil { // each host's call replaces the object: keep the mounts of the others
			again.Host = append(store.Host, again.Host...)
		}
		store = again
	}
	if spec.UUID == "" {
		spec.UUID = fmt.Sprintf("5f000000-%08x-0000-000000000000", index+1)
	}
	capacity := spec.CapacityGb * gib
	if capacity == 0 {
		capacity = 1024 * gib
	}
	store.Summary.Type, store.Summary.MultipleHostAccess = spec.Type, types.NewBool(len(b.hosts) > 1)
	store.Summary.Url = "ds:///vmfs/volumes/" + spec.UUID + "/"
	store.Summary.Capacity, store.Summary.FreeSpace = capacity, capacity/2
	base := *store.Info.GetDatastoreInfo()
	volume := types.HostFileSystemVolume{Type: spec.Type, Name: spec.Name, Capacity: capacity}
	if spec.Type == "VMFS" {
		vmfs := &types.HostVmfsVolume{HostFileSystemVolume: volume, BlockSizeMb: 1, MajorVersion: 6, Version: "6.82", Uuid: spec.UUID, Local: types.NewBool(false)}
		for _, name := range spec.Lun {
			b.parts[name]++
			vmfs.Extent = append(vmfs.Extent, types.HostScsiDiskPartition{DiskName: name, Partition: b.parts[name]})
		}
		store.Info = &types.VmfsDatastoreInfo{DatastoreInfo: base, Vmfs: vmfs}
		return vmfs, nil
	}
	nas := &types.HostNasVolume{HostFileSystemVolume: volume, RemoteHost: spec.Host, RemotePath: spec.Path, RemoteHostNames: []string{spec.Host}}
	store.Info = &types.NasDatastoreInfo{DatastoreInfo: base, Nas: nas}
	return nas, nil
}
