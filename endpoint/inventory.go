package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
)

// inventory is what the endpoint holds when it starts. Every host sees every LUN and datastore.
type inventory struct {
	Hosts      int           `json:"hosts"` // hosts of the one cluster, where Clusters is empty
	Clusters   []clusterSpec `json:"clusters"`
	Luns       []lunSpec     `json:"luns"` // descriptions; LUNs of datastores need not be listed
	Datastores []storeSpec   `json:"datastores"`
	VMs        []guestSpec   `json:"vms"`
}

type clusterSpec struct {
	Name  string `json:"name"`
	Hosts int    `json:"hosts"`
}

type lunSpec struct {
	Name       string `json:"name"` // canonical name: naa.…
	Serial     string `json:"serial"`
	Vendor     string `json:"vendor"`
	Model      string `json:"model"`
	CapacityGb int64  `json:"capacityGb"`
}

type storeSpec struct {
	Name       string   `json:"name"`
	Type       string   `json:"type"` // VMFS, NFS, NFS41
	Lun        []string `json:"lun"`  // canonical names of the extents, VMFS
	Host       string   `json:"host"` // NFS server
	Path       string   `json:"path"` // NFS export
	UUID       string   `json:"uuid"`
	CapacityGb int64    `json:"capacityGb"`
}

type guestSpec struct {
	Name      string     `json:"name"`
	Disks     []diskSpec `json:"disks"` // the first disk's datastore is the VM's home
	Off       bool       `json:"off"`
	Memory    int64      `json:"memory"` // MB
	Folder    string     `json:"folder"` // path below the VM folder, "prod/web"
	Host      string     `json:"host"`   // host name; by turns when empty
	GuestID   string     `json:"guestId"`
	Tools     string     `json:"tools"` // running (default), notRunning, notInstalled
	Template  bool       `json:"template"`
	Snapshots []string   `json:"snapshots"` // names of snapshots that somebody took before
}

// diskSpec may also be written as a string: the datastore's name.
type diskSpec struct {
	Datastore string `json:"datastore"`
	Mode      string `json:"mode"` // persistent (default), independent_persistent, …
	SizeMb    int64  `json:"sizeMb"`
	RawLun    string `json:"rawLun"`  // canonical name: makes this a raw device mapping
	RawMode   string `json:"rawMode"` // virtualMode (default) or physicalMode
}

func (d *diskSpec) UnmarshalJSON(raw []byte) error {
	if len(raw) > 0 && raw[0] == '"' {
		return json.Unmarshal(raw, &d.Datastore)
	}
	type plain diskSpec
	return strictJSON(raw, (*plain)(d))
}

func strictJSON(raw []byte, into interface{}) error {
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.DisallowUnknownFields()
	return decoder.Decode(into)
}

func readInventory(file string) (*inventory, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	inv := new(inventory)
	if err := strictJSON(raw, inv); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if len(inv.Clusters) == 0 {
		inv.Clusters = []clusterSpec{{Name: "cluster-1", Hosts: inv.Hosts}}
	}
	for i := range inv.Clusters {
		if inv.Clusters[i].Hosts < 1 {
			inv.Clusters[i].Hosts = 1
		}
	}
	return inv, inv.check(file)
}

// check refuses what would otherwise fail later and less clearly.
func (inv *inventory) check(file string) error {
	stores := map[string]bool{}
	for _, d := range inv.Datastores {
		switch {
		case stores[d.Name]:
			return fmt.Errorf("%s: datastore %q is there twice", file, d.Name)
		case d.Type == "VMFS" && len(d.Lun) == 0:
			return fmt.Errorf("%s: datastore %q is VMFS and has no lun", file, d.Name)
		case d.Type != "VMFS" && (d.Host == "" || d.Path == ""):
			return fmt.Errorf("%s: datastore %q needs host and path", file, d.Name)
		}
		stores[d.Name] = true
	}
	names := map[string]bool{}
	for _, v := range inv.VMs {
		if names[v.Name] || len(v.Disks) == 0 {
			return fmt.Errorf("%s: VM %q is there twice or has no disk", file, v.Name)
		}
		names[v.Name] = true
		for _, d := range v.Disks {
			if !stores[d.Datastore] {
				return fmt.Errorf("%s: VM %q names unknown datastore %q", file, v.Name, d.Datastore)
			}
		}
	}
	return nil
}

// allLuns are the described LUNs, then those that only datastores and raw disks name, in order.
func (inv *inventory) allLuns() []lunSpec {
	luns := append([]lunSpec(nil), inv.Luns...)
	known := map[string]bool{}
	for _, l := range luns {
		known[l.Name] = true
	}
	add := func(name string) {
		if name != "" && !known[name] {
			known[name] = true
			luns = append(luns, lunSpec{Name: name})
		}
	}
	for _, d := range inv.Datastores {
		for _, name := range d.Lun {
			add(name)
		}
	}
	for _, v := range inv.VMs {
		for _, d := range v.Disks {
			add(d.RawLun)
		}
	}
	return luns
}
