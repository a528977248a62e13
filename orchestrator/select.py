"""Which VMs a job protects."""

from __future__ import annotations

import re
from collections.abc import Callable
from fnmatch import translate
from functools import lru_cache

from ..drivers.records import Vm
from ..topology.graph import Topology
from .spec import Rule, Selection

Predicate = Callable[[Vm], bool]


def select(topology: Topology, selection: Selection) -> list[Vm]:
    """The selected VMs, in the order of the inventory."""
    included = compile_rule(selection.include, topology)
    excluded = compile_rule(selection.exclude, topology) if selection.exclude else None
    return [
        vm
        for vm in topology.estate.inventory.vms
        if not vm.is_template and included(vm) and not (excluded and excluded(vm))
    ]


def compile_rule(rule: Rule, topology: Topology) -> Predicate:
    """A function that says whether a VM matches the rule; patterns are compiled once."""
    tests: list[Predicate] = []
    if rule.name is not None:
        matches_name = _glob(rule.name)
        tests.append(lambda vm: matches_name(vm.name))
    if rule.folder is not None:
        matches_folder = _glob(rule.folder)
        tests.append(lambda vm: matches_folder(vm.folder))
    if rule.tag is not None:
        matches_tag = _glob(rule.tag)
        tests.append(lambda vm: any(matches_tag(tag) for tag in vm.tags))
    if rule.power is not None:
        power = rule.power
        tests.append(lambda vm: vm.power_state is power)
    if rule.cluster is not None:
        tests.append(_in_cluster(rule.cluster, topology))
    if rule.datastore is not None:
        tests.append(_on_datastore(rule.datastore, topology))
    tests.extend(_combinations(rule, topology))
    if len(tests) == 1:
        return tests[0]
    return lambda vm: all(test(vm) for test in tests)


def _combinations(rule: Rule, topology: Topology) -> list[Predicate]:
    tests: list[Predicate] = []
    if rule.any:
        alternatives = [compile_rule(inner, topology) for inner in rule.any]
        tests.append(lambda vm: any(test(vm) for test in alternatives))
    if rule.all:
        tests.extend(compile_rule(inner, topology) for inner in rule.all)
    if rule.negate is not None:
        negated = compile_rule(rule.negate, topology)
        tests.append(lambda vm: not negated(vm))
    return tests


@lru_cache(maxsize=1024)
def _glob(pattern: str) -> Callable[[str], bool]:
    compiled = re.compile(translate(pattern), re.IGNORECASE)
    return lambda text: compiled.match(text) is not None


def _in_cluster(pattern: str, topology: Topology) -> Predicate:
    matches = _glob(pattern)
    inventory = topology.estate.inventory
    clusters = {cluster.id for cluster in inventory.clusters if matches(cluster.name)}
    hosts = {host.id for host in inventory.hosts if host.cluster_id in clusters}
    return lambda vm: vm.host_id in hosts


def _on_datastore(pattern: str, topology: Topology) -> Predicate:
    """A VM is on a datastore when its home or any of its disks lies there."""
    matches = _glob(pattern)
    stores = {store.id for store in topology.estate.inventory.datastores if matches(store.name)}
    return lambda vm: (
        vm.home_datastore_id in stores or any(disk.datastore_id in stores for disk in vm.disks)
    )
