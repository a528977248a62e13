"""The numbers of the hypervisor profiles and where they come from; see :mod:`.profiles`."""

from __future__ import annotations

Values = dict[str, str | int | float | None]

_VIRTEN = "virten.net 2015/10, one quiesced create: 2.27 s from request to running (M)"
_KB_2039754 = "VMware KB 2039754 as quoted by codenotary.com"
_NO_SOURCE = "inference: no number was found"

_ESXI_8: Values = {
    "query_latency": "200 ms",
    "task_latency": "1.2 s",
    "task_latency_sigma": 0.4,
    "create_start": "0 s",
    "vcenter_tasks": 640,
    "host_tasks": 8,
    "busy_retry": "5 s",
    "linux_freeze": "40 ms",
    "windows_freeze": "700 ms",
    "freeze_sigma": 0.5,
    "flush_rate": "200 MiB/s",
    "thaw_call": "20 ms",
    "thaw_sigma": 0,
    "tools_timeout": "900 s",
    "vss_hold": "10 s",
    "vss_freeze": "60 s",
    "without_tools": "refuse",
    "metadata_lock": "50 ms",
    "delta_create": "20 ms",
    "stun_create": "188 ms",
    "stun_create_sigma": 0.5,
    "stun_create_per_disk": "30 ms",
    "snapshot_depth": 31,
    "delta_grain": "4 KiB",
    "delta_base": "0 B",
    "merge": "mirror",
    "merge_start": "0 s",
    "merge_rate": "80 MB/s",
    "merge_sigma": 0,
    "merge_passes": 9,
    "merge_stun_below": "5 s",
    "stun_remove": "300 ms",
    "stun_remove_sigma": 0.5,
    "stun_remove_per_disk": "30 ms",
    "vmotion": "20 s",
    "vmotion_switchover": "500 ms",
    "storage_vmotion_rate": "80 MB/s",
    "storage_vmotion_share": 0.5,
    "under_load": None,
}

_ESXI_8_SOURCES = {
    "query_latency": _NO_SOURCE,
    "task_latency": f"inference: what is left of {_VIRTEN} after freeze and stun",
    "task_latency_sigma": _NO_SOURCE,
    "create_start": "inference: part of the task's latency",
    "vcenter_tasks": "inference: remembered as vCenter's limit of concurrent operations",
    "host_tasks": "inference: remembered as a host's limit of provisioning operations",
    "busy_retry": "SnapCenter for VMware retries a quiesce after 5 s (M)",
    "linux_freeze": "freeze call of 39.6 ms in a kubevirt log (M); lab with QEMU: 43 to 115 ms",
    "windows_freeze": f"inference: a third of {_VIRTEN}",
    "freeze_sigma": "inference: lab with QEMU, 43 to 305 ms between idle and loaded hosts",
    "flush_rate": _NO_SOURCE,
    "thaw_call": "lab with QEMU: 13 to 27 ms for one guest (M)",
    "thaw_sigma": _NO_SOURCE,
    "tools_timeout": "flynn/flynn#3952: gives up after 900 s (H)",
    "vss_hold": "VSS flush-and-hold limit of 10 s: kubevirt PR 16653, HP 3PAR RM manual p65 (H)",
    "vss_freeze": "VSS freeze to thaw within 60 s: Veeam KB1377 (H)",
    "without_tools": "inference: what a careful driver does; the API itself drops the request",
    "metadata_lock": "inference: VMFS serialises metadata (cormachogan.com 2015/04), no duration",
    "delta_create": "inference: NFS has no metadata lock, creating a file remains",
    "stun_create": "virten.net 2015/10: 188 ms (H, one measurement)",
    "stun_create_sigma": "inference: 'few 100 ms' (cormachogan.com 2015/04) to below 1 s",
    "stun_create_per_disk": "inference: 'longer with many disks' (cormachogan.com 2015/04)",
    "snapshot_depth": "PowerStore guide: 31 usable (H)",
    "delta_grain": "SEsparse grain of 4 kB, govmomi GrainSize doc (H)",
    "delta_base": "inference: little beside what guests write",
    "merge": "mirror driver from ESXi 6.0 Update 1: Veeam Best Practices (H)",
    "merge_start": "inference: part of the task's latency",
    "merge_rate": "inference: 'hours' for 500 GB in VMware KB 316414 is 30 to 100 MB/s (L)",
    "merge_sigma": _NO_SOURCE,
    "merge_passes": f"{_KB_2039754}: forced after 9 iterations (M)",
    "merge_stun_below": f"inference: just above the 0.57 to 3.71 s seen in {_KB_2039754}",
    "stun_remove": "inference: 0.1 to 1 s for a fast suspend and resume",
    "stun_remove_sigma": "inference: puts nine of ten between 0.13 and 0.7 s",
    "stun_remove_per_disk": _NO_SOURCE,
    "vmotion": _NO_SOURCE,
    "vmotion_switchover": "VMware KB 436882: goal of 500 ms (H)",
    "storage_vmotion_rate": "inference: as a merge, one stream that reads and writes",
    "storage_vmotion_share": "inference: thin disks half full",
    "under_load": "inference: hosts have room for their limit of tasks; none was measured",
}

_OLD_HOST: Values = {"merge": "iterative", "stun_remove": "600 ms"}
_OLD_HOST_SOURCES = {
    "merge": f"rolling helper snapshots before ESXi 6.0 Update 1: {_KB_2039754} (M)",
    "stun_remove": f"{_KB_2039754}: 0.57 and 0.6 s when little was left to merge (M)",
}

_LAB_NOTE = "lab with QEMU 4 KiB O_DSYNC writer"
_LAB: Values = {
    "query_latency": "10 ms",
    "task_latency": "5 ms",
    "task_latency_sigma": 0.3,
    "vcenter_tasks": None,
    "host_tasks": None,
    "linux_freeze": "60 ms",
    "freeze_sigma": 0.4,
    "thaw_call": "19 ms",
    "metadata_lock": "0 s",
    "delta_create": "0 s",
    "stun_create": "11 ms",
    "stun_create_sigma": 0.3,
    "stun_create_per_disk": "5 ms",
    "merge_rate": "330 MB/s",
    "stun_remove": "10 ms",
    "stun_remove_sigma": 0.5,
    "stun_remove_per_disk": "5 ms",
}
_LAB_SOURCES = {
    "query_latency": _NO_SOURCE,
    "task_latency": f"inference: one QMP round trip; {_LAB_NOTE}",
    "task_latency_sigma": _NO_SOURCE,
    "vcenter_tasks": "QEMU has no management server with a limit",
    "host_tasks": "QEMU has no limit of its own",
    "linux_freeze": f"{_LAB_NOTE}: 43 to 115 ms, one guest (M)",
    "freeze_sigma": f"inference: spread of the same runs; {_LAB_NOTE}",
    "thaw_call": f"{_LAB_NOTE}: 13 to 27 ms, one guest (M)",
    "metadata_lock": "creating the overlay file is part of the measured transaction",
    "delta_create": "creating the overlay file is part of the measured transaction",
    "stun_create": f"{_LAB_NOTE}: transaction of 8 to 14 ms, one guest (M)",
    "stun_create_sigma": f"inference: spread of the same runs; {_LAB_NOTE}",
    "stun_create_per_disk": f"{_LAB_NOTE}: about 5 ms for every further node (M)",
    "merge_rate": f"{_LAB_NOTE}: 3 ms per MB to commit on one guest (M)",
    "stun_remove": f"{_LAB_NOTE}: pivot of 7 to 28 ms, one guest (M)",
    "stun_remove_sigma": f"inference: spread of the same runs; {_LAB_NOTE}",
    "stun_remove_per_disk": _NO_SOURCE,
}

PROFILES: dict[str, Values] = {
    "esxi-8": _ESXI_8,
    "esxi-5.5": {**_ESXI_8, **_OLD_HOST},
    "vsphere-mixed": {**_ESXI_8, "merge": "by-host-version"},
    "lab-qemu": {**_ESXI_8, **_LAB},
}

SOURCES: dict[str, dict[str, str]] = {
    "esxi-8": _ESXI_8_SOURCES,
    "esxi-5.5": {**_ESXI_8_SOURCES, **_OLD_HOST_SOURCES},
    "vsphere-mixed": {
        **_ESXI_8_SOURCES,
        "merge": "ESXi 6.0 Update 1 changed the algorithm: Veeam Best Practices (H)",
    },
    "lab-qemu": {**_ESXI_8_SOURCES, **_LAB_SOURCES},
}
