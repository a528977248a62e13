"""Runs made by the model under a known profile are fitted back to that profile."""

from __future__ import annotations

import functools
import math
import statistics
from typing import Any

import pytest
from support_fit import (
    KNOWN,
    KNOWN_ARRAY,
    RECORD_BYTES,
    USUAL_MERGE_S,
    modelled_run,
    modelled_runs,
    without,
    world,
)

from stillframe.errors import InputError
from stillframe.lab.fit import FittedProfile, fit
from stillframe.lab.fit_record import RunRecord
from stillframe.sim.profiles import HypervisorProfile, Phases

UNDISTURBED = {"under_load": {**KNOWN["under_load"], "per_writer": {}}}
"""Nobody's writes hold anything up."""


@functools.cache
def known() -> tuple[RunRecord, ...]:
    return tuple(modelled_runs((1, 2, 4), (1.0, 5.0, 25.0), 8))


@functools.cache
def fitted() -> FittedProfile:
    return fit(known())


@pytest.mark.parametrize(
    "number", ["create_start", "linux_freeze", "stun_create", "thaw_call", "stun_remove"]
)
def test_a_median_comes_back(number: str) -> None:
    assert getattr(fitted().hypervisor, number) == pytest.approx(KNOWN[number], rel=0.25)


def test_the_base_of_a_delta_comes_back() -> None:
    assert fitted().hypervisor.delta_base == pytest.approx(KNOWN["delta_base"], rel=0.05)


def test_the_merge_rate_comes_back_where_deltas_differ_and_nobody_else_writes() -> None:
    runs = modelled_runs((1, 2), (20.0, 400.0, 1600.0), 12, hypervisor=UNDISTURBED)
    profile = fit(runs).hypervisor
    assert profile.merge_rate == pytest.approx(KNOWN["merge_rate"], rel=0.25)
    assert profile.merge_start == pytest.approx(KNOWN["merge_start"], rel=0.25)


@pytest.mark.parametrize("phase", sorted(KNOWN["under_load"]["per_operation"]))
def test_the_dependence_on_others_comes_back(phase: str) -> None:
    """Each phase takes as long beside others and writers as it did; single slopes are looser."""
    load = fitted().hypervisor.under_load
    assert load is not None
    assert load.full_write_rate == pytest.approx(RECORD_BYTES / USUAL_MERGE_S, rel=0.5)
    for others, writers in ((0, 0.2), (0, 0.9), (3, 0.8), (3, 3.6)):
        found, known = (
            _median_of(phase, profile, -math.log1p(-writers / (others + 1)))
            * (1.0 + getattr(profile.under_load.per_operation, phase) * others)
            * (1.0 + getattr(profile.under_load.per_writer, phase) * writers)
            for profile in (fitted().hypervisor, hypervisor())
            if profile.under_load is not None
        )
        assert found == pytest.approx(known, rel=0.2)


def hypervisor() -> HypervisorProfile:
    return HypervisorProfile.model_validate(KNOWN)


def _median_of(phase: str, profile: HypervisorProfile, rate: float) -> float:
    """The phase's time alone; a merge's after 0.2 s at this share of the full write rate."""
    if phase == "merge":
        delta_bytes = profile.delta_base + 0.2 * rate * RECORD_BYTES / USUAL_MERGE_S
        return profile.merge_start + delta_bytes / profile.merge_rate
    fields = {"freeze": "linux_freeze", "thaw": "thaw_call"}
    return float(getattr(profile, fields.get(phase, phase)))


@pytest.mark.parametrize(
    "sigma", ["freeze_sigma", "stun_create_sigma", "thaw_sigma", "merge_sigma", "stun_remove_sigma"]
)
def test_a_spread_comes_back(sigma: str) -> None:
    assert getattr(fitted().hypervisor, sigma) == pytest.approx(KNOWN[sigma], rel=0.3)


def test_the_array_comes_back() -> None:
    storage = fitted().storage
    for units, writers in ((1, 0.2), (1, 0.9), (2, 0.4), (2, 3.6)):
        known = KNOWN_ARRAY["snapshot_base"] + units * KNOWN_ARRAY["snapshot_per_unit"]
        known *= 1.0 + writers * KNOWN_ARRAY["snapshot_per_writer"]
        found = storage.snapshot_base + units * storage.snapshot_per_unit
        found *= 1.0 + writers * storage.snapshot_per_writer
        assert found == pytest.approx(known, rel=0.15)
    assert storage.snapshot_sigma == pytest.approx(0.2, rel=0.3)


def test_what_was_not_used_for_fitting_is_predicted() -> None:
    """The point of it all: 2 guests and the middle load from 1 and 4 guests and the others."""
    profile = fit(modelled_runs((1, 4), (1.0, 25.0), 12))
    # The same seeds: what differs is the fit, not the luck.
    truth = [modelled_run(2, world(5.0), 100 + seed) for seed in range(40)]
    twin = [modelled_run(2, profile.world(world(5.0)), 100 + seed) for seed in range(40)]
    for clock in ("quiesce_s", "merge_s"):
        for quantile, error in ((9, 0.15), (18, 0.3)):  # the median and the 95th percentile
            true, found = (
                statistics.quantiles((getattr(vm, clock) for run in runs for vm in run.vms), n=20)[
                    quantile
                ]
                for runs in (truth, twin)
            )
            assert found == pytest.approx(true, rel=error)


def test_every_number_says_which_runs_it_comes_from() -> None:
    profile = fitted()
    assert profile.runs == tuple(run.name for run in known())
    assert profile.dates == ("2026-11-23T10:00:00", "2026-11-23T10:00:00")
    sources = profile.hypervisor.sources
    assert sources["linux_freeze"] == "fitted to 168 creates in 72 runs on modelled, 2026-11-23"
    assert sources["under_load.per_operation.merge"].startswith("fitted to 168 merges in 72 runs")
    assert profile.storage.source_of("snapshot_base").startswith("fitted to 72 group snapshots")
    assert sources["vss_hold"].startswith("VSS flush-and-hold")
    rows = {row.number: row for row in profile.numbers}
    assert rows["merge_start"].observations == 168
    assert rows["linux_freeze"].spread == profile.hypervisor.freeze_sigma


def test_a_driver_that_sees_no_seams_gives_windows_as_a_whole() -> None:
    unseen = {"stun_create_start_s": None, "stun_remove_start_s": None}
    runs = modelled_runs((1, 4), (5.0,), 10, hypervisor=UNDISTURBED)
    profile = fit([without(run, **unseen) for run in runs])
    assert profile.hypervisor.stun_create == profile.hypervisor.thaw_call == 0.0
    whole = KNOWN["linux_freeze"] + KNOWN["stun_create"] + KNOWN["thaw_call"]
    assert profile.hypervisor.linux_freeze == pytest.approx(whole, rel=0.3)
    assert "no overlay apart from the freeze" in profile.notes[0]
    assert any("no pivot apart from the merge" in note for note in profile.notes)


def test_further_disks_are_told_apart_from_others_under_way() -> None:
    more = {"stun_create_per_disk": 0.02, "stun_remove_per_disk": 0.01, **UNDISTURBED}
    how = world(50.0, hypervisor=more)
    runs = [
        modelled_run(size, how, seed, wide=size // 2) for size in (1, 2, 4) for seed in range(15)
    ]
    profile = fit(runs).hypervisor
    assert profile.stun_create_per_disk == pytest.approx(0.02, rel=0.3)
    assert profile.stun_remove_per_disk == pytest.approx(0.01, rel=0.4)


def test_a_fence_is_fitted_apart() -> None:
    fence = {"fence_base": 0.1, "fence_per_unit": 0.01, "fence_sigma": 0.2}
    array = {"snapshot_per_writer": 0.0, **fence}
    storage = fit(modelled_runs((1, 2), (50.0,), 20, array=array)).storage
    assert storage.fence_base + storage.fence_per_unit == pytest.approx(0.11, rel=0.15)
    assert storage.snapshot_base + storage.snapshot_per_unit == pytest.approx(0.03, rel=0.2)
    assert storage.fence_sigma == pytest.approx(0.2, rel=0.4)


def test_deltas_that_tell_no_rate_leave_the_rate_as_it_was() -> None:
    profile = fit(modelled_runs((1, 2), (0.0,), 5))
    assert profile.hypervisor.merge_rate == 330e6
    assert any("merge_rate is not fitted" in note for note in profile.notes)


def test_a_single_size_of_group_is_said() -> None:
    profile = fit(modelled_runs((1,), (50.0,), 6))
    assert profile.storage.snapshot_per_unit == 0.0
    assert any("what each further unit costs is not fitted" in note for note in profile.notes)
    assert profile.hypervisor.under_load is not None
    assert profile.hypervisor.under_load.per_operation.freeze == 0.0
    assert profile.hypervisor.under_load.per_writer.freeze == 0.0
    assert any("all wrote alike" in note for note in profile.notes)


def test_a_load_that_nobody_told_is_not_guessed() -> None:
    profile = fit([run.model_copy(update={"writes": None}) for run in known()[:60]])
    assert profile.hypervisor.under_load is not None
    assert profile.hypervisor.under_load.per_writer == Phases()
    assert profile.storage.snapshot_per_writer == 0.0
    assert any("do not tell how their guests wrote" in note for note in profile.notes)
    assert profile.hypervisor.delta_base >= KNOWN["delta_base"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"array": "qsd"}, "more than one array: modelled (5 runs), qsd (1 runs)"),
        ({"hypervisor": "qemu"}, "more than one hypervisor: modelled (5 runs), qemu (1 runs)"),
        ({"machine": "other"}, "more than one machine"),
    ],
)
def test_runs_of_different_systems_are_refused(change: dict[str, str], says: str) -> None:
    runs = [*known()[:5], known()[5].model_copy(update=change)]
    with pytest.raises(InputError) as caught:
        fit(runs)
    assert says in str(caught.value)
    assert "make a profile of each" in str(caught.value)


def test_too_few_runs_are_refused() -> None:
    with pytest.raises(InputError, match=r"4 are too few.*at least 5"):
        fit(known()[:4])


@pytest.mark.parametrize(
    ("unseen", "says"),
    [
        ({"quiesce_start_s": None}, "0 measured quiesce windows"),
        ({"merged_s": None}, "0 measured merges"),
    ],
)
def test_runs_without_the_clocks_are_refused(unseen: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        fit([without(run, **unseen) for run in known()[:6]])


def test_failed_snapshots_are_no_observations() -> None:
    failed = [
        run.model_copy(
            update={"calls": tuple(call.model_copy(update={"error": "busy"}) for call in run.calls)}
        )
        for run in known()[:6]
    ]
    with pytest.raises(InputError, match="0 completed group snapshots"):
        fit(failed)
