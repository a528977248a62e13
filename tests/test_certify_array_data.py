"""Data, histories, clones and performance: the reference passes, and every canary fails."""

from __future__ import annotations

from itertools import cycle
from typing import Any

import pytest
from support_certify import certified

from stillframe.certify.array_target import ArrayTarget
from stillframe.certify.canaries import array_clones as clone_canaries
from stillframe.certify.canaries import array_data as data_canaries
from stillframe.certify.canaries import array_history as history_canaries
from stillframe.certify.canaries import array_performance as performance_canaries
from stillframe.certify.canary import Canary
from stillframe.certify.checks import array_clones, array_data, array_history, array_performance
from stillframe.certify.checks.array_performance import LIMITS, percentile_s
from stillframe.certify.outcome import Outcome, Verdict
from stillframe.certify.targets.modelled_array import CopyOnWriteArray, RedirectOnWriteArray

DATA = (array_data.TOPIC, array_history.TOPIC, array_clones.TOPIC)
REQUIREMENTS = tuple(
    requirement for topic in (*DATA, array_performance.TOPIC) for requirement in topic.requirements
)
CANARIES = (
    *data_canaries.CANARIES,
    *history_canaries.CANARIES,
    *clone_canaries.CANARIES,
    *performance_canaries.CANARIES,
)
KINDS = (RedirectOnWriteArray, CopyOnWriteArray)


def outcomes(
    kind: type[ArrayTarget], *ids: str, settings: Any = None, **options: Any
) -> dict[str, Outcome]:
    """What became of these requirements (of all, if none is named)."""
    result = certified(kind, REQUIREMENTS, settings, only=frozenset(ids), **options)
    return {one.requirement_id: one for one in result.outcomes}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_reference_passes_and_its_bytes_are_compared(
    kind: type[ArrayTarget], seed: int
) -> None:
    ids = [one.id for topic in DATA for one in topic.requirements]
    found = outcomes(kind, *ids, seed=seed)
    assert {one.verdict for one in found.values()} == {Verdict.PASS}, found
    without = {"ARR-DAT-10", "ARR-CLN-02", "ARR-CLN-09"}
    assert {one for one, what in found.items() if not what.compared_bytes} == without
    assert all(what.written_bytes for what in found.values())


@pytest.mark.parametrize(
    ("canary", "kind"),
    list(zip(CANARIES, cycle(KINDS), strict=False)),
    ids=[canary.id for canary in CANARIES],
)
def test_a_canary_fails_what_it_breaks(canary: Canary[Any], kind: type[ArrayTarget]) -> None:
    options: dict[str, Any] = {"settings": dict(canary.settings), "limits": dict(canary.limits)}
    broken = outcomes(canary.make(kind), canary.breaks, **options)[canary.breaks]
    assert broken.verdict is Verdict.FAIL, broken
    assert outcomes(kind, canary.breaks, **options)[canary.breaks].verdict is Verdict.PASS


def test_what_no_limit_is_stated_for_is_measured_and_not_judged() -> None:
    ids = [one.id for one in array_performance.TOPIC.requirements]
    found = outcomes(RedirectOnWriteArray, *ids)
    assert {one.verdict for one in found.values()} == {Verdict.NOT_TESTED}
    for one in found.values():
        assert one.samples
        (name,) = {sample.name for sample in one.samples}
        assert one.reason == f"measured, not judged: no limit {name}_p95_s is stated"
        assert f"{name}_p95_s" in LIMITS
        assert all(len(sample.values_s) == 5 for sample in one.samples)
    assert {f"{sample.name}_p95_s" for one in found.values() for sample in one.samples} == set(
        LIMITS
    )
    sizes = [sample.labels for sample in found["ARR-PRF-02"].samples]
    assert [(one["units"], one["load"]) for one in sizes] == [
        (units, load) for load in ("light", "heavy") for units in (1, 2, 4)
    ]
    held = found["ARR-PRF-04"].samples[-1]
    assert min(held.values_s) > 0.005  # longer than the fence, which is what delays a write


def test_a_percentile_is_one_of_the_values() -> None:
    values_s = [number / 100 for number in range(1, 101)]
    assert percentile_s(values_s[::-1]) == 0.95
    assert percentile_s((3.0,)) == 3.0
    assert percentile_s([1.0, 2.0, 3.0, 4.0, 5.0]) == 5.0
