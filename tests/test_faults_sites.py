"""Fault sites at run time: two levels, limits, keyed draws, and no cost when nothing can happen."""

from __future__ import annotations

from typing import Any

import pytest
from support_faults import sites_of, sure
from support_faulty_job import run

from stillframe.sim.draws import Draws
from stillframe.sim.env import SimEnv
from stillframe.sim.faults import Faults, Site

HANGS = Site.QUIESCE_HANGS
BUSY = Site.ARRAY_BUSY


def test_a_site_is_active_in_its_share_of_the_runs() -> None:
    faults = {"sites": {HANGS: {"activate": 0.25, "fire": 1}}}
    active = [HANGS in sites_of(faults, seed).active for seed in range(2000)]
    assert 430 < sum(active) < 570


def test_sites_are_activated_independently() -> None:
    faults = {"sites": {site: {"activate": 0.5, "fire": 1} for site in (HANGS, BUSY)}}
    both = [len(sites_of(faults, seed).active) for seed in range(2000)]
    for number, expected in ((0, 500), (1, 1000), (2, 500)):
        assert abs(both.count(number) - expected) < 120


def test_an_active_site_fires_at_its_share_of_the_visits() -> None:
    sites = sites_of({"sites": {HANGS: 0.25}})
    fired = sum(sites.strikes(HANGS, f"vm-{n}") for n in range(4000))
    assert 880 < fired < 1120
    assert sites.fired == {HANGS: fired}
    again = sum(sites.strikes(HANGS, "vm-1") for _ in range(4000))
    assert 880 < again < 1120


def test_an_inactive_site_never_fires() -> None:
    sites = sites_of({"sites": {HANGS: {"activate": 0, "fire": 1}, BUSY: 0}})
    assert not any(sites.strikes(site, "x") for site in Site)
    assert sites.if_any() is None
    assert sites.fired == {}


def test_a_site_fires_as_often_as_it_may() -> None:
    sites = sites_of(sure(HANGS, BUSY, most=3))
    assert [sites.strikes(HANGS, "a") for _ in range(5)] == [True] * 3 + [False] * 2
    assert sites.strikes(BUSY, "a")
    assert sites.fired == {HANGS: 3, BUSY: 1}


@pytest.mark.parametrize("budget", [0, 1, 4])
def test_the_budget_holds_over_all_sites(budget: int) -> None:
    sites = sites_of(sure(HANGS, BUSY, budget=budget))
    fired = sum(sites.strikes(site, "a") for _ in range(10) for site in (HANGS, BUSY))
    assert fired == sum(sites.fired.values()) == budget


def test_faults_happen_between_two_times_only() -> None:
    env = SimEnv()
    sites = sites_of(sure(HANGS, since=10.0, until=20.0), env=env)
    seen = []
    for at_s in (0.0, 9.9, 10.0, 19.9, 20.0, 99.0):
        env.after(at_s, lambda: seen.append(sites.strikes(HANGS, "a")))
    env.run()
    assert seen == [False, False, True, True, False, False]


def test_nothing_goes_wrong_after_faults_were_stopped() -> None:
    sites = sites_of(sure(*Site))
    assert sites.strikes(HANGS, "a")
    sites.stop()
    assert not any(sites.strikes(site, "a") for site in Site)
    assert sites.fired == {HANGS: 1}


def test_equal_seeds_decide_alike_and_others_do_not() -> None:
    def decisions(seed: int) -> list[bool]:
        sites = sites_of({"sites": {HANGS: 0.5}}, seed)
        return [sites.strikes(HANGS, f"vm-{n % 7}", n % 3) for n in range(200)]

    assert decisions(1) == decisions(1)
    assert decisions(1) != decisions(2)


def test_a_visit_more_elsewhere_shifts_nothing() -> None:
    faults = {"sites": dict.fromkeys((HANGS, BUSY), 0.5)}
    plain, busier = sites_of(faults), sites_of(faults)
    expected, found = [], []
    for number in range(100):
        expected.append(plain.strikes(HANGS, "vm-1", "create"))
        busier.strikes(BUSY, "vm-1", "create")  # another site
        busier.strikes(HANGS, f"vm-2-{number}", "create")  # another subject
        busier.strikes(HANGS, "vm-1", "remove")  # another key
        busier.share(HANGS, "vm-1", "create")  # how a fault happens
        found.append(busier.strikes(HANGS, "vm-1", "create"))
    assert found == expected
    assert any(expected)
    assert not all(expected)


@pytest.mark.parametrize("changed", ["site", "subject", "key", "visit"])
def test_visits_that_differ_in_anything_are_drawn_apart(changed: str) -> None:
    same = 0
    for number in range(400):
        sites = sites_of({"sites": dict.fromkeys((HANGS, BUSY), 0.5)}, number)
        first = sites.strikes(HANGS, "a", "x")
        same += first == sites.strikes(
            BUSY if changed == "site" else HANGS,
            "b" if changed == "subject" else "a",
            "y" if changed == "key" else "x",
        )
    assert 140 < same < 260


def test_a_site_less_leaves_the_others_as_they_were() -> None:
    """What shrinking relies on: a fault that is taken out takes no other with it."""
    other = {"array-query-lost": {"fire": 1, "most": 2}}
    two = run({"sites": {HANGS: 0.4, **other}}).world.faults.fired
    one = run({"sites": {HANGS: 0.4}}).world.faults.fired
    assert two[Site.ARRAY_QUERY_LOST] == 2
    assert one == {HANGS: two[HANGS]}


def test_every_fire_is_in_the_log() -> None:
    done = run(sure("hypervisor-busy", "array-busy", most=2))
    rows = done.result.events.of("world.fault")
    assert sorted(row[4] for row in rows) == ["array-busy"] * 2 + ["hypervisor-busy"] * 2
    assert {row[3] for row in rows if row[4] == "array-busy"} == {"array-a"}
    assert all(row[0] >= 10.0 for row in rows)


def test_what_cannot_happen_costs_no_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[str | int, ...]] = []

    def spy(name: str) -> Any:
        real = getattr(Draws, name)

        def call(self: Draws, *key: str | int) -> Any:
            drawn.append(key)
            return real(self, *key)

        return call

    for name in ("three", "uniforms"):
        monkeypatch.setattr(Draws, name, spy(name))
    quiet = run({})
    without = list(drawn)
    drawn.clear()
    idle = run({"sites": {site: {"activate": 0, "fire": 1} for site in Site}})
    with_idle = [key for key in drawn if key[0] != "fault-site"]
    assert with_idle == without
    assert not any(key[0] in ("fault", "fault-site") for key in without)
    assert quiet.result.events.trace_hash() == idle.result.events.trace_hash()


def test_a_world_without_faults_asks_no_site(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> bool:
        raise AssertionError("a site was visited")

    monkeypatch.setattr("stillframe.sim.faultsites.FaultSites.strikes", never)
    assert run({}).world.faults.fired == {}
    with pytest.raises(BaseException, match=r"unhandled|visited"):
        run(sure(HANGS))


def test_the_order_in_which_sites_are_given_does_not_matter() -> None:
    names = [site.value for site in Site]
    one, other = (sites_of({"sites": dict.fromkeys(order, 0.3)}) for order in (names, names[::-1]))
    assert list(one.active) == list(other.active) == list(Site)


def test_a_section_without_sites_is_no_section() -> None:
    assert sites_of({"budget": 3}).if_any() is None
    assert Faults() == Faults.model_validate({})
