"""vCenters, clusters and hosts out of the vHost and vInfo tabs."""

from __future__ import annotations

from collections.abc import Container, Mapping

from ..drivers.records import Cluster, ClusterId, Host, HostId, VCenter
from .rvtools_read import Row, Table
from .rvtools_report import Report, Severity
from .rvtools_values import dotted_version, text

UNNAMED_SERVER = "vcenter"
"""The vCenter of rows that name none."""

_MAKERS = ("vInfo", "vHost", "vDatastore", "vMultiPath")
"""The tabs whose rows make objects of their own; other tabs describe those."""


def free_id(usual: str, taken: Container[str]) -> str:
    """``usual``, or with a number behind it when that is taken."""
    if usual not in taken:
        return usual
    number = 2
    while f"{usual}#{number}" in taken:
        number += 1
    return f"{usual}#{number}"


class Compute:
    """Knows the management servers, and the cluster and datacenter of every host."""

    def __init__(self, tables: Mapping[str, Table], report: Report) -> None:
        self._report = report
        named = dict.fromkeys(
            name for table in tables.values() for row in table.rows if (name := text(row, "server"))
        )
        # A row without a server belongs to the only one there is, if there is only one.
        self._default = next(iter(named)) if len(named) == 1 else UNNAMED_SERVER
        makers = [tables[tab] for tab in _MAKERS if tab in tables]
        self._servers = dict.fromkeys(self.server(row) for table in makers for row in table.rows)
        self._hosts: dict[tuple[str, str], Host] = {}
        self._clusters: dict[tuple[str, str, str], Cluster] = {}
        self._datacenters: dict[tuple[str, str], str] = {}
        for tab in ("vHost", "vInfo"):
            if tab in tables:
                for row in tables[tab].rows:
                    self._add_host(row)
        self._say(tables)

    def server(self, row: Row) -> str:
        """The management server of a row."""
        return text(row, "server") or self._default

    def datacenter_of(self, server: str, host: str) -> str:
        """The datacenter of a host; empty when it is not known."""
        return self._datacenters.get((server, host), "")

    def host_id(self, row: Row) -> HostId | None:
        """The host that a row names; None when it names none."""
        host = self._hosts.get((self.server(row), text(row, "host")))
        return host.id if host else None

    def records(self) -> tuple[tuple[VCenter, ...], tuple[Cluster, ...], tuple[Host, ...]]:
        """Everything found, in order of first appearance."""
        vcenters = tuple(VCenter(name, name) for name in self._servers)
        return vcenters, tuple(self._clusters.values()), tuple(self._hosts.values())

    def _add_host(self, row: Row) -> None:
        name = text(row, "host")
        if not name:
            return
        server, datacenter = self.server(row), text(row, "datacenter")
        if datacenter:
            self._datacenters.setdefault((server, name), datacenter)
        known = self._hosts.get((server, name))
        if known is not None and known.cluster_id is not None:
            return
        cluster_id = self._cluster(server, datacenter, text(row, "cluster"))
        if known is None or cluster_id is not None:
            version = known.version if known else dotted_version(text(row, "version"))
            taken = {host.id for key, host in self._hosts.items() if key != (server, name)}
            host = Host(free_id(f"{server}/{name}", taken), server, name, cluster_id, version)
            self._hosts[server, name] = host

    def _cluster(self, server: str, datacenter: str, name: str) -> ClusterId | None:
        if not name:
            return None
        key = (server, datacenter, name)
        if key not in self._clusters:
            usual = f"{server}/{datacenter}/{name}" if datacenter else f"{server}/{name}"
            taken = {cluster.id for cluster in self._clusters.values()}
            self._clusters[key] = Cluster(free_id(usual, taken), server, name)
        return self._clusters[key].id

    def _say(self, tables: Mapping[str, Table]) -> None:
        if UNNAMED_SERVER in self._servers:
            text_ = f"rows that name no vCenter count as those of one called {UNNAMED_SERVER!r}"
            self._report.add(Severity.ASSUMED, "vInfo", "VI SDK Server", text_)
        unversioned = [host.name for host in self._hosts.values() if not host.version]
        where = "column missing or empty" if "vHost" in tables else "tab missing"
        self._report.about(
            Severity.CANNOT,
            "vHost",
            "ESX Version",
            unversioned,
            "host",
            f"{where}, so the way its hypervisor merges snapshots is not known",
        )
        alone = [host.name for host in self._hosts.values() if host.cluster_id is None]
        self._report.about(
            Severity.NOTE, "vHost", "Cluster", alone, "host", "in no cluster as far as is known"
        )
