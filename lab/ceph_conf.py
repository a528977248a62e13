"""The configuration of a Ceph cluster of one monitor and one OSD, all of it in one folder."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path


class Store(StrEnum):
    """How the OSD keeps its objects."""

    FILESTORE = "filestore"
    """Files and a journal: up in half a second, and what was flushed survives a kill."""
    BLUESTORE = "bluestore"
    """What production runs: one file with a database in it; survives a kill, takes 3 s to make."""
    MEMSTORE = "memstore"
    """In memory: a kill of the OSD loses everything, so that is refused."""

    @property
    def survives_a_kill(self) -> bool:
        """Whether flushed writes are still there when the OSD was killed."""
        return self is not Store.MEMSTORE


_TEXT = """\
[global]
fsid = {fsid}
mon_host = v2:127.0.0.1:{port}/0
mon_initial_members = a
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
ms_bind_ipv6 = false
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
run_dir = {folder}/run
pid_file = {folder}/run/$name.pid
admin_socket =
log_file = {folder}/log/$name.log
mon_data = {folder}/mon
osd_data = {folder}/osd
osd_objectstore = {store}
osd_journal = {folder}/osd/journal
osd_journal_size = {journal_mib}
osd_max_object_name_len = 256
osd_max_object_namespace_len = 64
bluestore_block_size = {store_bytes}
bluestore_fsck_on_mkfs = false
bluestore_rocksdb_cf = false
memstore_device_bytes = {store_bytes}
osd_memory_target = 939524096
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 8
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_warn_on_pool_no_redundancy = false
mon_data_avail_warn = 2
mon_data_avail_crit = 1
paxos_propose_interval = {propose_s}
paxos_min_wait = {least_wait_s}

[client]
log_file =
pid_file =
rbd_cache = true
rbd_skip_partial_discard = false
rbd_discard_granularity_bytes = 0
"""
# With the default of 1 s between two proposals of the monitor each snapshot takes 1 s: a cluster
# with three busy monitors amortises that, a lab with one snapshot at a time does not.
_PROPOSE_S = 0.02
_LEAST_WAIT_S = 0.005
_JOURNAL_MIB = 128


def conf_text(folder: Path, *, fsid: str, port: int, store: Store, store_bytes: int) -> str:
    """The text of ``ceph.conf``.

    Parameters
    ----------
    folder:
        Where everything of the cluster lies.
    port:
        The monitor's; the OSD takes free ones itself.
    store_bytes:
        What the OSD may grow to.
    """
    return _TEXT.format(
        folder=folder,
        fsid=fsid,
        port=port,
        store=store.value,
        store_bytes=store_bytes,
        journal_mib=_JOURNAL_MIB,
        propose_s=_PROPOSE_S,
        least_wait_s=_LEAST_WAIT_S,
    )
