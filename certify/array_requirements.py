"""All requirements of array drivers, in the order in which they are tried and reported."""

from __future__ import annotations

from .array_bench import ArrayBench
from .requirement import Requirement, Topic

TOPICS: tuple[Topic[ArrayBench], ...] = ()

ARRAY_REQUIREMENTS: tuple[Requirement[ArrayBench], ...] = tuple(
    requirement for topic in TOPICS for requirement in topic.requirements
)
