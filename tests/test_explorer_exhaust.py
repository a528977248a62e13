"""Killing at every place: every place has its turn, and what is broken there is found."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from support_sabotage import forget_to_recover

from stillframe.errors import StillframeError
from stillframe.explorer.exhaust import Death, Place, die_at, exhaust
from stillframe.explorer.options import RunOptions
from stillframe.explorer.run import explore_one
from stillframe.scenarios.schema import load_scenario

CLAIM = load_scenario("first-claim")
ONE_VM = RunOptions(vms=("vc-1/shop-db",), lease_s=1.0, downtime_s=1.25)
"""A VM on two arrays, and recovery while what was begun is still going on."""


def test_wherever_the_orchestrator_dies_nothing_is_broken() -> None:
    told: list[tuple[int, int]] = []
    found = exhaust(
        CLAIM, 1, options=ONE_VM, pairs=40, progress=lambda done, of: told.append((done, of))
    )
    whole = explore_one(CLAIM, 1, ONE_VM, keep_events=True)
    assert whole.rows is not None
    assert found.failures == ()
    assert (found.steps, found.events) == (whole.steps, len(whole.rows))
    assert found.pairs == 40
    assert told == [(done, found.runs) for done in range(1, found.runs + 1)]
    # A death that was meant and did not come would make all of this worth little.
    assert found.deaths >= found.steps + found.events + 2 * found.pairs - 10


def test_the_process_dies_exactly_where_it_is_meant_to() -> None:
    whole = explore_one(CLAIM, 1, ONE_VM, keep_events=True)
    assert whole.rows is not None
    killed = ONE_VM.model_copy(update={"barriers": ("array.snapshot.requested#2",)})
    cut_off = explore_one(CLAIM, 1, killed, keep_events=True)
    assert cut_off.rows is not None
    at = [n for n, row in enumerate(whole.rows) if row[1] == "array.snapshot.requested"][1]
    assert cut_off.rows[: at + 1] == whole.rows[: at + 1]
    (first, *_) = [row for row in cut_off.rows[at + 1 :] if not row[1].startswith("world.")]
    assert first[0] > whole.rows[at][0] + ONE_VM.downtime_s - 0.1
    died = die_at(CLAIM, 1, ONE_VM, Place((33,)))
    assert (died.died, died.steps[0]) == (1, 33)
    assert die_at(CLAIM, 1, ONE_VM, Place((33, 7))).steps[:2] == (33, 7)


def test_a_recovery_that_does_nothing_is_found_and_its_place_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    forget_to_recover(monkeypatch)
    found = exhaust(CLAIM, 1, options=ONE_VM, pairs=3)
    assert len(found.failures) > found.steps / 2
    assert {v.invariant for death in found.failures for v in death.violations} >= {"I2 orphans"}
    assert str(found.failures[0].place).startswith("step ")
    assert str(found.failures[0].place).endswith(" of the job")
    events = [str(death.place) for death in found.failures if death.place.event]
    assert "event vm.snapshot.created#1" in events


def test_places_have_names() -> None:
    assert str(Place((3,))) == "step 3 of the job"
    assert str(Place((3, 9))) == "step 3 of the job, step 9 of recovery"
    assert str(Place(event="world.array.cut#2")) == "event world.array.cut#2"


def test_another_way_to_run_many_gives_the_same() -> None:
    """As a pool does it: what goes to another process and back can be pickled, and keeps order."""
    asked: list[Place] = []

    def pooled(kill: Callable[[Place], Death], places: Sequence[Place]) -> list[Death]:
        asked.extend(places)
        sent = pickle.dumps((kill, places))
        function, items = pickle.loads(sent)  # noqa: S301
        return list(pickle.loads(pickle.dumps([function(item) for item in items])))  # noqa: S301

    small = ONE_VM.model_copy(update={"vms": ("vc-1/shop-report",)})
    plain = exhaust(CLAIM, 1, options=small, pairs=5)
    assert exhaust(CLAIM, 1, options=small, pairs=5, run_all=pooled) == plain
    assert len(asked) == plain.runs
    assert len(set(asked)) == len(asked)  # one place each, none twice


def test_a_scenario_that_fails_without_deaths_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:

    async def releases_nothing(_group: Any) -> None:
        """And nobody looks after it either."""

    async def sweeps_nothing(*_arguments: Any, **_options: Any) -> list[str]:
        return []

    monkeypatch.setattr("stillframe.orchestrator.group.GroupRun._release_all", releases_nothing)
    monkeypatch.setattr("stillframe.orchestrator.job.sweep", sweeps_nothing)
    with pytest.raises(StillframeError, match=r"breaks I\d .* though nobody was killed"):
        exhaust(CLAIM, 1, options=ONE_VM)


@pytest.mark.parametrize("options", [{"crash_steps": (4,)}, {"barriers": ("job.started#1",)}])
def test_options_that_name_deaths_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(StillframeError, match="places to die"):
        exhaust(CLAIM, 1, options=RunOptions.model_validate(options))
