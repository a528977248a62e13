"""The tabs and columns of an RVTools export that Stillframe reads, under all their names.

The names are those of RVTools 4.x; older versions and exports with database column names write
``Capacity MB`` for ``Capacity MiB`` (the number is the same), ``tabvInfo`` for ``vInfo`` and
``vInfoVMName`` for ``VM``. A header is therefore compared as a token: letters, digits and ``#``
only, lower case, without the tab's name in front, ``mb`` at the end read as ``mib``.
"""

from __future__ import annotations

import re

TITLES: dict[str, dict[str, str]] = {
    "vInfo": {
        "vm": "VM",
        "power": "Powerstate",
        "template": "Template",
        "srm": "SRM Placeholder",
        "connection": "Connection state",
        "consolidation": "Consolidation Needed",
        "path": "Path",
        "folder": "Folder",
        "datacenter": "Datacenter",
        "cluster": "Cluster",
        "host": "Host",
        "os_config": "OS according to the configuration file",
        "os_tools": "OS according to the VMware Tools",
        "vm_id": "VM ID",
        "vm_uuid": "VM UUID",
        "server": "VI SDK Server",
    },
    "vDisk": {
        "vm": "VM",
        "disk": "Disk",
        "key": "Disk Key",
        "capacity": "Capacity MiB",
        "raw": "Raw",
        "mode": "Disk Mode",
        "sharing": "Sharing mode",
        "shared_bus": "Shared Bus",
        "path": "Path",
        "raw_lun": "Raw LUN ID",
        "raw_mode": "Raw Comp. Mode",
        "vm_id": "VM ID",
        "vm_uuid": "VM UUID",
        "server": "VI SDK Server",
    },
    "vDatastore": {
        "name": "Name",
        "address": "Address",
        "accessible": "Accessible",
        "type": "Type",
        "capacity": "Capacity MiB",
        "free": "Free MiB",
        "hosts": "Hosts",
        "extents": "# Extents",
        "url": "URL",
        "object_id": "Object ID",
        "server": "VI SDK Server",
    },
    "vMultiPath": {
        "host": "Host",
        "datacenter": "Datacenter",
        "datastore": "Datastore",
        "disk": "Disk",
        "display": "Display name",
        "vendor": "Vendor",
        "model": "Model",
        "server": "VI SDK Server",
    },
    "vSnapshot": {
        "vm": "VM",
        "vm_id": "VM ID",
        "vm_uuid": "VM UUID",
        "server": "VI SDK Server",
    },
    "vTools": {
        "vm": "VM",
        "tools": "Tools",
        "ready": "Operation Ready",
        "vm_id": "VM ID",
        "vm_uuid": "VM UUID",
        "server": "VI SDK Server",
    },
    "vHost": {
        "host": "Host",
        "datacenter": "Datacenter",
        "cluster": "Cluster",
        "version": "ESX Version",
        "server": "VI SDK Server",
    },
    "vMetaData": {
        "version": "RVTools version",
        "created": "xlsx creation datetime",
    },
}
"""Per tab: our name of a column, and its title in a current export."""

_OTHER_NAMES: dict[tuple[str, str], tuple[str, ...]] = {
    ("vInfo", "vm_id"): ("objectid",),
    ("vInfo", "vm_uuid"): ("uuid",),
    ("vInfo", "os_config"): ("os", "osconfig", "osaccordingtotheconfigfile"),
    ("vInfo", "os_tools"): ("ostools",),
    ("vDisk", "disk"): ("name", "label"),
    ("vDisk", "key"): ("key",),
    ("vDisk", "raw_mode"): ("rawcompatibilitymode", "rawcompmode"),
    ("vDatastore", "name"): ("datastore", "datastorename"),
    ("vDatastore", "extents"): ("numextents", "extents", "nrofextents"),
    ("vDatastore", "free"): ("freespacemib",),
    ("vHost", "host"): ("name", "hostname"),
    ("vHost", "version"): ("esxversion", "version"),
    ("vMultiPath", "disk"): ("diskname",),
    ("vTools", "tools"): ("toolsstatus", "status"),
    ("vMetaData", "version"): ("rvtoolsmajorversion",),
}

# "VM" in every tab that has it, and the server, were abbreviated in several ways.
_EVERYWHERE: dict[str, tuple[str, ...]] = {
    "vm": ("vmname",),
    "vm_id": ("vmid",),
    "vm_uuid": ("vmuuid", "vminstanceuuid"),
    "server": ("visdkserver", "visdk", "vcenter", "vcenterserver"),
    "capacity": ("capacity",),
    "free": ("free",),
}

_TAB_NAMES = {name.casefold(): name for name in TITLES}


def header_token(header: str, tab: str) -> str:
    """What a header is compared by (see the module's text)."""
    token = re.sub(r"[^0-9a-z#]", "", header.casefold())
    prefix = tab.casefold()
    if token.startswith(prefix) and len(token) > len(prefix):
        token = token[len(prefix) :]
    return f"{token[:-2]}mib" if token.endswith("mb") else token


def column_tokens(tab: str, column: str) -> tuple[str, ...]:
    """The tokens that a column goes by, the current title's first."""
    title = header_token(TITLES[tab][column], tab)
    return (title, *_OTHER_NAMES.get((tab, column), ()), *_EVERYWHERE.get(column, ()))


def tab_of(name: str) -> str | None:
    """The tab that a sheet or file is, by its name: vInfo, tabvInfo, RVTools_tabvInfo.csv."""
    stem = name.casefold().removesuffix(".csv").strip()
    for part in (stem, stem.removeprefix("rvtools"), re.split(r"[ _\-]+", stem)[-1]):
        bare = part.strip(" _-").removeprefix("tab")
        if bare in _TAB_NAMES:
            return _TAB_NAMES[bare]
    return None
