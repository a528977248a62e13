"""What the report of an import says about missing tabs, missing columns and single VMs."""

from __future__ import annotations

from typing import NamedTuple

from .rvtools_report import Severity

_CANNOT, _ASSUMED, _NOTE = Severity.CANNOT, Severity.ASSUMED, Severity.NOTE
_NO_ARRAY = "these VMs cannot be array-protected"

MISSING_TABS: dict[str, tuple[Severity, str]] = {
    "vDisk": (
        _CANNOT,
        (
            "no disk of any VM is known, so VMs that span datastores cannot be recognised and no "
            "VM can be array-protected"
        ),
    ),
    "vDatastore": (
        _CANNOT,
        (
            "datastores are known only by name from paths; kind, capacity and NFS exports are not "
            "known"
        ),
    ),
    "vMultiPath": (
        _CANNOT,
        (
            "the devices of datastores with several extents, and the vendor and model of arrays, "
            "are not known"
        ),
    ),
    "vSnapshot": (_ASSUMED, "no VM counts as having snapshots already"),
    "vTools": (_CANNOT, "whether guests are ready to quiesce is not known"),
}

MISSING_COLUMNS: dict[tuple[str, str], tuple[Severity, str]] = {
    ("vInfo", "power"): (_ASSUMED, "every VM counts as powered on"),
    ("vInfo", "template"): (_ASSUMED, "no VM counts as a template"),
    ("vInfo", "srm"): (_ASSUMED, "no VM counts as a placeholder"),
    ("vInfo", "host"): (_CANNOT, "the host of no VM is known, so limits per host do not apply"),
    ("vInfo", "path"): (
        _CANNOT,
        "the home datastore of no VM is known, so no VM can be array-protected",
    ),
    ("vDisk", "path"): (
        _CANNOT,
        (
            "the datastore of no disk is known (Disk Path is a path inside the guest), so no VM "
            "can be array-protected"
        ),
    ),
    ("vDisk", "key"): (_ASSUMED, "disks are numbered from 2000 in the order of their rows"),
    ("vDisk", "capacity"): (_CANNOT, "the size of no disk is known, and counts as 0"),
    ("vDisk", "raw"): (_ASSUMED, "no disk counts as a raw device mapping"),
    ("vDisk", "mode"): (_ASSUMED, "every disk counts as persistent, none as independent"),
    ("vDatastore", "name"): (_CANNOT, "its rows cannot be used"),
    ("vDatastore", "type"): (
        _CANNOT,
        (
            "the kind of a datastore is known only where vMultiPath lists its devices, and no NFS "
            "export is known"
        ),
    ),
    ("vDatastore", "address"): (
        _CANNOT,
        "the devices of datastores are known from vMultiPath only, NFS exports from URL only",
    ),
    ("vMultiPath", "datastore"): (_CANNOT, "its rows do not say which devices are extents"),
    ("vMultiPath", "disk"): (_CANNOT, "its rows name no device"),
}


class Topic(NamedTuple):
    """What is said about the objects that were entered under ``key``."""

    key: str
    severity: Severity
    tab: str
    column: str
    noun: str
    sentence: str


VM_TOPICS: tuple[Topic, ...] = (
    Topic(
        "home unknown",
        _CANNOT,
        "vInfo",
        "path",
        "VM",
        f"the datastore of the home is not known; {_NO_ARRAY}",
    ),
    Topic(
        "home ambiguous",
        _CANNOT,
        "vInfo",
        "path",
        "VM",
        "several datastores have the name in the home's path, and neither host nor datacenter "
        f"tells which; {_NO_ARRAY}",
    ),
    Topic(
        "disk unknown",
        _CANNOT,
        "vDisk",
        "path",
        "disk",
        f"the path names no datastore; {_NO_ARRAY}",
    ),
    Topic(
        "disk ambiguous",
        _CANNOT,
        "vDisk",
        "path",
        "disk",
        "several datastores have the name in the path, and neither host nor datacenter tells "
        f"which; {_NO_ARRAY}",
    ),
    Topic(
        "raw device",
        _CANNOT,
        "vDisk",
        "raw_lun",
        "raw device mapping",
        f"the device is not known; {_NO_ARRAY} with these disks",
    ),
    Topic(
        "diskless",
        _CANNOT,
        "vDisk",
        "vm",
        "VM",
        "no disk is listed; there is nothing to protect",
    ),
    Topic(
        "disk capacity",
        _CANNOT,
        "vDisk",
        "capacity",
        "disk",
        "the size is no number, counts as 0",
    ),
    Topic(
        "unidentified",
        _ASSUMED,
        "vInfo",
        "vm_uuid",
        "VM",
        "identified by their name, as VM ID and VM UUID are not given; rows that fit several VMs "
        "of one name are left out",
    ),
    Topic("power", _ASSUMED, "vInfo", "power", "VM", "no known power state; count as powered on"),
    Topic(
        "disk mode",
        _ASSUMED,
        "vDisk",
        "mode",
        "disk",
        "no known disk mode; counts as persistent",
    ),
    Topic(
        "raw mode",
        _ASSUMED,
        "vDisk",
        "raw_mode",
        "raw device mapping",
        "no known compatibility mode; counts as physical, which VM snapshots leave out",
    ),
    Topic(
        "disk key",
        _ASSUMED,
        "vDisk",
        "key",
        "disk",
        "the key is missing or not unique in its VM; numbered by position",
    ),
    Topic("nameless", _NOTE, "vInfo", "vm", "row", "no VM name; left out"),
    Topic("doubled", _NOTE, "vInfo", "vm_id", "row", "repeat a VM listed before; left out"),
    Topic(
        "placeholder",
        _NOTE,
        "vInfo",
        "srm",
        "VM",
        "placeholder of a recovery plan, without data; left out",
    ),
    Topic("template", _NOTE, "vInfo", "template", "VM", "template; cannot be snapshotted"),
    Topic(
        "unconnected",
        _NOTE,
        "vInfo",
        "connection",
        "VM",
        "not connected when the export was made; VM snapshots may fail",
    ),
    Topic(
        "consolidation",
        _NOTE,
        "vInfo",
        "consolidation",
        "VM",
        "disks need consolidation before anything else",
    ),
    Topic(
        "delta",
        _NOTE,
        "vDisk",
        "path",
        "VM",
        "running on a delta file of an earlier snapshot; its base may lie on another datastore",
    ),
    Topic(
        "delta without snapshot",
        _NOTE,
        "vDisk",
        "path",
        "VM",
        "running on a delta file, yet no snapshot is listed: a candidate for consolidation",
    ),
    Topic(
        "independent",
        _NOTE,
        "vDisk",
        "mode",
        "disk",
        "independent; VM snapshots leave it out",
    ),
    Topic(
        "raw pointer unknown",
        _NOTE,
        "vDisk",
        "path",
        "raw device mapping",
        "the path of the pointer file names no datastore",
    ),
    Topic(
        "raw pointer ambiguous",
        _NOTE,
        "vDisk",
        "path",
        "raw device mapping",
        "several datastores have the name in the pointer file's path",
    ),
    Topic(
        "shared",
        _NOTE,
        "vDisk",
        "sharing",
        "disk",
        "shared between VMs (multi-writer or bus sharing); hypervisors refuse VM snapshots then",
    ),
)

STORAGE_TOPICS: tuple[Topic, ...] = (
    Topic(
        "datastore unlisted",
        _CANNOT,
        "vDatastore",
        "name",
        "datastore",
        "named in paths but not listed; kind and capacity are not known",
    ),
    Topic(
        "extents partial",
        _CANNOT,
        "vDatastore",
        "extents",
        "datastore",
        "not all extents have a known device, so an array snapshot would tear them; VMs on them "
        "cannot be array-protected",
    ),
    Topic(
        "export unknown",
        _CANNOT,
        "vDatastore",
        "address",
        "NFS datastore",
        "neither Address nor URL names server and export; VMs on them cannot be array-protected",
    ),
    Topic(
        "device unknown",
        _CANNOT,
        "vDatastore",
        "address",
        "datastore",
        "no device identity; VMs on them cannot be array-protected",
    ),
    Topic(
        "no array below",
        _CANNOT,
        "vDatastore",
        "type",
        "vSAN or vVol datastore",
        "there is no array unit below; VMs on them cannot be array-protected",
    ),
    Topic(
        "local",
        _CANNOT,
        "vMultiPath",
        "display",
        "datastore",
        "on disks of a host itself (mpx device, display name beginning with Local, or vendor "
        "ATA); VMs on them cannot be array-protected",
    ),
    Topic(
        "path ambiguous",
        _CANNOT,
        "vMultiPath",
        "datastore",
        "path",
        "several datastores have the name, and neither host nor datacenter tells which; their "
        "devices are not known",
    ),
    Topic(
        "raw unconfirmed",
        _CANNOT,
        "vDisk",
        "raw_lun",
        "raw device mapping",
        "vMultiPath does not list the device that the name seems to contain; VMs with these disks "
        "cannot be array-protected",
    ),
    Topic(
        "unit capacity unknown",
        _CANNOT,
        "vDatastore",
        "capacity",
        "unit",
        "capacity not known and counted as 0, so shares of the capacity are not right",
    ),
    Topic(
        "extents guessed",
        _ASSUMED,
        "vDatastore",
        "extents",
        "datastore",
        "the number of extents is not given, so the device in Address counts as the only one",
    ),
    Topic(
        "extents more",
        _ASSUMED,
        "vMultiPath",
        "disk",
        "datastore",
        "more devices than extents; all of them count as extents",
    ),
    Topic(
        "array by model",
        _ASSUMED,
        "vMultiPath",
        "model",
        "array",
        "LUNs of the same vendor and model count as one array, since an export does not name the "
        "array",
    ),
    Topic(
        "array by server",
        _ASSUMED,
        "vDatastore",
        "address",
        "NFS server",
        "each counts as an array of its own, and each export as a volume of its own",
    ),
    Topic(
        "array unknown",
        _ASSUMED,
        "vMultiPath",
        "vendor",
        "device",
        "vendor and model are not given; all of these count as units of one unknown array",
    ),
    Topic(
        "unit capacity",
        _ASSUMED,
        "vDatastore",
        "capacity",
        "unit",
        "capacity taken from the datastore, in equal parts for each of its extents",
    ),
    Topic(
        "datastore doubled",
        _NOTE,
        "vDatastore",
        "object_id",
        "row",
        "repeat a datastore that was listed before; left out",
    ),
    Topic(
        "device idle",
        _NOTE,
        "vMultiPath",
        "datastore",
        "device",
        "neither under a datastore nor under a raw device mapping; left out",
    ),
)
