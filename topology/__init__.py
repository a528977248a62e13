"""Where VMs lie: the graph of VM, disk, datastore, extent and storage unit; importers."""
