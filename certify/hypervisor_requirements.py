"""All requirements of hypervisor drivers, in the order in which they are tried and reported."""

from __future__ import annotations

from .hypervisor_bench import HypervisorBench
from .requirement import Requirement, Topic

TOPICS: tuple[Topic[HypervisorBench], ...] = ()

HYPERVISOR_REQUIREMENTS: tuple[Requirement[HypervisorBench], ...] = tuple(
    requirement for topic in TOPICS for requirement in topic.requirements
)
