"""All requirements of array drivers, in the order in which they are tried and reported."""

from __future__ import annotations

from .array_bench import ArrayBench
from .checks import (
    array_clones,
    array_concurrency,
    array_data,
    array_declared,
    array_end,
    array_errors,
    array_exhaustion,
    array_faults,
    array_fence,
    array_group,
    array_history,
    array_lifecycle,
    array_listing,
    array_mapping,
    array_outages,
    array_performance,
    array_questions,
    array_restarts,
    array_tags,
)
from .requirement import Requirement, Topic

TOPICS: tuple[Topic[ArrayBench], ...] = (
    array_declared.TOPIC,
    array_mapping.TOPIC,
    array_lifecycle.TOPIC,
    array_tags.TOPIC,
    array_listing.TOPIC,
    array_errors.TOPIC,
    array_concurrency.TOPIC,
    array_questions.TOPIC,
    array_data.TOPIC,
    array_history.TOPIC,
    array_clones.TOPIC,
    array_group.TOPIC,
    array_fence.TOPIC,
    array_faults.TOPIC,
    array_restarts.TOPIC,
    array_outages.TOPIC,
    array_exhaustion.TOPIC,
    array_performance.TOPIC,
    array_end.TOPIC,
)

ARRAY_REQUIREMENTS: tuple[Requirement[ArrayBench], ...] = tuple(
    requirement for topic in TOPICS for requirement in topic.requirements
)
