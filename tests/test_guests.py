"""Guests in flow fidelity against their profiles."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support_world import GIB, INDEPENDENT, MIB, NAA, STEADY, disk, vm

from stillframe.drivers.records import PowerState, Vm
from stillframe.sim.draws import Draws
from stillframe.sim.guest_rules import GuestRule, GuestRules
from stillframe.sim.guests import Guests, Shares
from stillframe.sim.load import OverwriteModel
from stillframe.sim.profilefile import load_profile

GRAIN = 4096
PROFILE = load_profile()


def guests_of(*vms: Vm, shares: Shares = (("u", 1.0),), **rule: object) -> Guests:
    rules = GuestRules([GuestRule.model_validate({"scale_median": 1, "scale_sigma": 0, **rule})])
    return Guests(vms, rules, [shares] * len(vms), Draws(4), GRAIN)


def big(name: str = "a", **more: object) -> Vm:
    return vm(name, disk(1, "ds1", 10_000 * GIB), **more)


@given(st.floats(0, 5000), st.floats(0, 5000))
@settings(max_examples=50)
def test_a_delta_grows_as_the_profile_says(since_s: float, length_s: float) -> None:
    guests = guests_of(big(), scale_median=1.5)
    expected = 1.5 * PROFILE.delta_bytes(guests.phase_s[0] + since_s, length_s, GRAIN)
    # since + length is rounded, so the duration differs in its last digit.
    assert guests.delta_bytes(0, since_s, since_s + length_s) == pytest.approx(
        expected, rel=1e-6, abs=GRAIN
    )


def test_guests_draw_phase_and_scale_by_name_and_not_by_place() -> None:
    both = guests_of(big("a"), big("b"), scale_sigma=1.0)
    alone = guests_of(big("b"), scale_sigma=1.0)
    assert both.phase_s[0] != both.phase_s[1]
    assert both.scale[0] != both.scale[1]
    assert (both.phase_s[1], both.scale[1]) == (alone.phase_s[0], alone.scale[0])
    assert 0 <= both.phase_s[0] < PROFILE.period_s


def test_a_delta_never_outgrows_the_disks() -> None:
    guests = guests_of(vm("a", disk(1, "ds1", 5 * MIB)))
    assert guests.delta_bytes(0, 0.0, 3000.0) == 5 * MIB


def test_disks_outside_the_snapshot_take_their_share_of_the_writes_along() -> None:
    guests = guests_of(
        vm(
            "a",
            disk(1, "ds1", 100 * GIB),
            disk(2, "ds1", 200 * GIB, mode=INDEPENDENT),
            disk(3, None, 100 * GIB, raw_device=NAA[3], raw_is_physical=True),
        ),
        profile=STEADY,
    )
    assert guests.delta_bytes(0, 0.0, 10.0) == pytest.approx(0.25 * 100e6, rel=1e-6)
    assert guests.overwritten_bytes("u", 0.0, 10.0, GRAIN) == pytest.approx(100e6, rel=1e-6)


def test_a_vm_that_is_off_writes_nothing_until_it_is_on() -> None:
    guests = guests_of(big(power_state=PowerState.OFF), profile=STEADY)
    assert guests.delta_bytes(0, 0.0, 100.0) == 0.0
    assert guests.overwritten_bytes("u", 0.0, 100.0, GRAIN) == 0.0
    guests.power(0, on=True, now_s=100.0)
    guests.power(0, on=False, now_s=110.0)
    guests.power(0, on=True, now_s=200.0)
    assert guests.delta_bytes(0, 0.0, 205.0) == pytest.approx(150e6, rel=1e-6)
    assert guests.overwritten_bytes("u", 105.0, 150.0, GRAIN) == pytest.approx(50e6, rel=1e-6)
    assert guests.write_rate_bytes_per_s("u", 100.0, 200.0) == pytest.approx(1e6)


def test_powering_on_what_runs_changes_nothing() -> None:
    guests = guests_of(big(), profile=STEADY)
    guests.power(0, on=True, now_s=50.0)
    assert guests.delta_bytes(0, 0.0, 100.0) == pytest.approx(1e9, rel=1e-6)
    assert guests.overwritten_bytes("u", 0.0, 100.0, GRAIN) == pytest.approx(1e9, rel=1e-6)


def test_templates_write_nothing() -> None:
    guests = guests_of(big(is_template=True), profile=STEADY)
    assert guests.overwritten_bytes("u", 0.0, 100.0, GRAIN) == 0.0


def test_a_unit_sees_the_sum_of_its_guests_as_one_look_up_each() -> None:
    vms = [big(f"vm-{n}") for n in range(20)]
    guests = guests_of(*vms, shares=(("u", 0.25), ("v", 0.75)), scale_sigma=0.7)
    expected = sum(
        guests.scale[n] * PROFILE.delta_bytes(guests.phase_s[n] + 30.0, 45.0, 65536)
        for n in range(20)
    )
    u = guests.overwritten_bytes("u", 30.0, 75.0, 65536)
    v = guests.overwritten_bytes("v", 30.0, 75.0, 65536)
    assert u == pytest.approx(0.25 * expected)
    assert v == pytest.approx(0.75 * expected)
    rate = sum(
        guests.scale[n] * PROFILE.written_bytes(guests.phase_s[n] + 30.0, 45.0) / 45.0
        for n in range(20)
    )
    assert guests.write_rate_bytes_per_s("v", 30.0, 75.0) == pytest.approx(0.75 * rate)


def test_a_granularity_without_a_table_is_rounded_up() -> None:
    guests = guests_of(big())
    tables = PROFILE.granularities_bytes
    between = (tables[0] + tables[1]) // 2
    assert guests.overwritten_bytes("u", 0.0, 60.0, between) == guests.overwritten_bytes(
        "u", 0.0, 60.0, tables[1]
    )


def test_writes_follow_a_vm_that_moves_and_what_it_wrote_before_stays() -> None:
    guests = guests_of(big("a"), big("b"), profile=STEADY)
    guests.place(0, (("v", 1.0),), 40.0)
    assert guests.overwritten_bytes("u", 0.0, 100.0, GRAIN) == pytest.approx(1.4e9, rel=1e-6)
    assert guests.overwritten_bytes("u", 50.0, 100.0, GRAIN) == pytest.approx(0.5e9, rel=1e-6)
    assert guests.overwritten_bytes("v", 0.0, 100.0, GRAIN) == pytest.approx(0.6e9, rel=1e-6)
    assert guests.delta_bytes(0, 0.0, 100.0) == pytest.approx(1e9, rel=1e-6)


def test_a_vm_moved_while_off_writes_at_the_new_place() -> None:
    guests = guests_of(big(power_state=PowerState.OFF), profile=STEADY)
    guests.place(0, (("v", 1.0),), 5.0)
    guests.power(0, on=True, now_s=10.0)
    assert guests.overwritten_bytes("u", 0.0, 20.0, GRAIN) == 0.0
    assert guests.overwritten_bytes("v", 0.0, 20.0, GRAIN) == pytest.approx(100e6, rel=1e-6)


def test_merges_and_copies_count_from_the_moment_they_are_complete() -> None:
    guests = guests_of()
    guests.wrote_to((("u", 0.5), ("v", 0.5)), 100.0, 10.0)
    guests.wrote_to((("u", 1.0),), 7.0, 20.0)
    assert guests.overwritten_bytes("u", 0.0, 9.9, GRAIN) == 0.0
    assert guests.overwritten_bytes("u", 0.0, 10.0, GRAIN) == 50.0
    assert guests.overwritten_bytes("u", 10.0, 20.0, GRAIN) == 7.0
    assert guests.overwritten_bytes("v", 0.0, 20.0, GRAIN) == 50.0
    assert guests.write_rate_bytes_per_s("u", 0.0, 20.0) == 0.0


def test_an_unknown_unit_and_an_empty_span_have_nothing() -> None:
    guests: OverwriteModel = guests_of(big())
    assert guests.overwritten_bytes("nowhere", 0.0, 10.0, GRAIN) == 0.0
    assert guests.write_rate_bytes_per_s("nowhere", 0.0, 10.0) == 0.0
    assert guests.overwritten_bytes("u", 10.0, 10.0, GRAIN) == 0.0


@given(st.floats(-100, 4000), st.floats(0, 500), st.floats(0, 500))
@settings(max_examples=40)
def test_overwriting_never_falls_when_the_span_grows(start: float, a: float, b: float) -> None:
    guests = guests_of(big("a"), big("b"))
    guests.place(0, (("u", 0.5),), 1000.0)
    short = guests.overwritten_bytes("u", start, start + a, GRAIN)
    assert guests.overwritten_bytes("u", start, start + a + b, GRAIN) >= short * (1 - 1e-9)


def test_dirty_data_are_the_distinct_writes_of_the_last_while() -> None:
    guests = guests_of(big(), profile=STEADY, dirty_age="20 s", dirty_limit="150 MB")
    assert guests.dirty_bytes(0, 100.0) == pytest.approx(150e6)
    lazy = guests_of(big(), profile=STEADY, dirty_age="3 s")
    assert lazy.dirty_bytes(0, 100.0) == pytest.approx(30e6, rel=1e-6)


def test_the_first_rule_that_matches_a_name_wins() -> None:
    rules = GuestRules(
        [
            GuestRule(match="DB-*", scale_median=4),
            GuestRule(match="db-1", scale_median=9),
            GuestRule.model_validate({"match": "web*", "profile": STEADY}),
        ]
    )
    assert rules.of("db-1")[0].scale_median == 4
    assert rules.of("Web-7")[1].rate_bytes_per_s == 10e6
    assert rules.of("other")[0] == GuestRule()


@given(st.floats(0, 5000), st.floats(0, 5000))
@settings(max_examples=20)
def test_few_guests_on_a_unit_are_added_up_as_many_are(since_s: float, length_s: float) -> None:
    names = [f"vm-{n}" for n in range(12)]
    together = guests_of(*map(big, names), scale_sigma=1.0)
    alone = [guests_of(big(name), scale_sigma=1.0) for name in names]
    for guests in (together, alone[3]):
        guests.power(0 if guests is alone[3] else 3, on=False, now_s=2500.0)
    span = ("u", since_s, since_s + length_s)
    assert together.overwritten_bytes(*span, GRAIN) == pytest.approx(
        sum(one.overwritten_bytes(*span, GRAIN) for one in alone)
    )
    assert together.write_rate_bytes_per_s(*span) == pytest.approx(
        sum(one.write_rate_bytes_per_s(*span) for one in alone)
    )
