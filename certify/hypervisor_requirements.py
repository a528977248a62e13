"""All requirements of hypervisor drivers, in the order in which they are tried and reported."""

from __future__ import annotations

from .checks import (
    hypervisor_abandoned,
    hypervisor_consolidation,
    hypervisor_data,
    hypervisor_declared,
    hypervisor_end,
    hypervisor_errors,
    hypervisor_faults,
    hypervisor_freezing,
    hypervisor_inventory,
    hypervisor_lifecycle,
    hypervisor_listing,
    hypervisor_location,
    hypervisor_moves,
    hypervisor_performance,
    hypervisor_quiesce,
)
from .hypervisor_bench import HypervisorBench
from .requirement import Requirement, Topic

TOPICS: tuple[Topic[HypervisorBench], ...] = (
    hypervisor_inventory.TOPIC,
    hypervisor_listing.TOPIC,
    hypervisor_lifecycle.TOPIC,
    hypervisor_location.TOPIC,
    hypervisor_errors.TOPIC,
    hypervisor_quiesce.TOPIC,
    hypervisor_freezing.TOPIC,
    hypervisor_data.TOPIC,
    hypervisor_consolidation.TOPIC,
    hypervisor_abandoned.TOPIC,
    hypervisor_faults.TOPIC,
    hypervisor_moves.TOPIC,
    hypervisor_declared.TOPIC,
    hypervisor_performance.TOPIC,
    hypervisor_end.TOPIC,
)

HYPERVISOR_REQUIREMENTS: tuple[Requirement[HypervisorBench], ...] = tuple(
    requirement for topic in TOPICS for requirement in topic.requirements
)
