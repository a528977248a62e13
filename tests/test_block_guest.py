"""A guest's writes: the same whoever looks when, in order, and held where they are to be held."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillframe.sim.block_guest import BlockGuest, Stop
from stillframe.sim.block_script import Workload, WriteScript
from stillframe.sim.draws import Draws

LOAD = Workload(20.0, 4096, (20, 20), (30, 30), (0.5, 0.5), 0.8, 0.5)
TIME = st.floats(0.0, 20.0).map(lambda value: round(value, 3))
WHAT = st.sampled_from(
    ["freeze", "flush", "thaw", "stun", "unstun", "fence", "unfence", "cut", "off", "on"]
)


class Disks:
    """Takes the writes of a guest whose second disk lies on unit ``b``."""

    def __init__(
        self, load: Workload = LOAD, cache_s: float = 3.0, *, running: bool = True
    ) -> None:
        self.content: dict[int, int] = {}
        self.order: list[int] = []
        self.script = WriteScript(load, Draws(7), "vm")
        self.guest = BlockGuest(self.script, cache_s, 0.0, self.write, self.unit, running=running)
        self.fenced = False

    def write(self, blocks: Sequence[int], stamps: Sequence[int]) -> None:
        self.content.update(zip(blocks, stamps, strict=True))
        self.order += stamps

    def unit(self, block: int) -> str:
        return "b" if block >= self.script.first_block[1] else "a"

    def do(self, what: str, now_s: float) -> None:
        guest = self.guest
        match what:
            case "freeze":
                guest.halt(Stop.FROZEN, now_s)
            case "flush":
                guest.flush(now_s)
            case "thaw":
                guest.go(Stop.FROZEN, now_s)
            case "stun":
                guest.halt(Stop.STUNNED, now_s)
            case "unstun":
                guest.go(Stop.STUNNED, now_s)
            case "fence" if not self.fenced:
                guest.fence("b", now_s)
                self.fenced = True
            case "unfence" if self.fenced:
                guest.unfence("b", now_s)
                self.fenced = False
            case "cut":
                guest.lose_memory(now_s)
            case "off":
                guest.halt(Stop.OFF, now_s)
            case "on":
                guest.go(Stop.OFF, now_s)


@given(
    events=st.lists(st.tuples(TIME, WHAT), max_size=12),
    looks=st.lists(TIME, max_size=20),
)
def test_what_is_on_the_disks_does_not_depend_on_who_looked_when(
    events: list[tuple[float, str]], looks: list[float]
) -> None:
    alone, watched = Disks(), Disks()
    events = sorted(events, key=lambda event: event[0])
    for now_s, what in events:
        alone.do(what, now_s)
    timeline = sorted(
        [*((t, 1, what) for t, what in events), *((t, 0, "") for t in looks)], key=lambda e: e[:1]
    )
    for now_s, is_event, what in timeline:
        if is_event:
            watched.do(what, now_s)
        else:
            watched.guest.advance(now_s)
    alone.guest.advance(25.0)
    watched.guest.advance(25.0)
    assert alone.content == watched.content
    assert alone.guest.moment(25.0) == watched.guest.moment(25.0)


@given(events=st.lists(st.tuples(TIME, WHAT), max_size=12), span=st.tuples(TIME, TIME))
def test_the_blocks_of_a_span_are_those_that_reached_the_disks_in_it(
    events: list[tuple[float, str]], span: tuple[float, float]
) -> None:
    disks = Disks()
    begin, end = sorted(span)
    timeline = sorted([*events, (begin, "begin"), (end, "end")], key=lambda event: event[0])
    seen: dict[str, list[int]] = {}
    for now_s, what in timeline:
        if what in ("begin", "end"):
            disks.guest.advance(now_s)
            seen.setdefault(what, list(disks.order))
        else:
            disks.do(what, now_s)
    first, last = len(seen.get("begin", [])), len(seen.get("end", []))
    if not any(t in (begin, end) for t, what in events):
        blocks = {
            **dict(zip(disks.script.durable.stamps, disks.script.durable.blocks, strict=True)),
            **dict(zip(disks.script.cached.stamps, disks.script.cached.blocks, strict=True)),
        }
        expected = {blocks[stamp] for stamp in disks.order[first:last]}
        assert disks.guest.written(begin, end) == expected


def test_it_writes_at_its_rate_to_its_disks_by_their_shares() -> None:
    script = WriteScript(
        Workload(50.0, 4096, (100, 100), (900, 900), (0.25, 0.75), 0.9, 0.5), Draws(1), "vm"
    )
    script.reach(400.0)
    blocks = script.durable.blocks + script.cached.blocks
    times = sorted(script.durable.times_s + script.cached.times_s)
    made = sum(t <= 400.0 for t in times)
    assert made == pytest.approx(20_000, rel=0.03)
    first = [block for block in blocks if block < script.first_block[1]]
    assert len(first) / len(blocks) == pytest.approx(0.25, abs=0.02)
    assert sum(block < 100 for block in first) / len(first) == pytest.approx(0.9, abs=0.02)
    assert len(script.durable.blocks) / len(blocks) == pytest.approx(0.5, abs=0.05)
    assert not set(script.durable.blocks) & set(script.cached.blocks)
    assert sorted(script.durable.stamps + script.cached.stamps) == list(range(len(blocks)))


@given(moments=st.lists(st.floats(0.0, 60.0), max_size=8))
def test_a_script_is_the_same_however_it_is_asked_for(moments: list[float]) -> None:
    at_once, in_steps = (WriteScript(LOAD, Draws(3), "vm") for _ in range(2))
    at_once.reach(60.0)
    for moment in moments:
        in_steps.reach(moment)
    in_steps.reach(60.0)
    assert in_steps.durable.times_s == at_once.durable.times_s
    assert in_steps.cached.blocks == at_once.cached.blocks


def test_a_guest_that_is_frozen_and_flushed_has_all_that_it_wrote_on_its_disks() -> None:
    disks = Disks()
    disks.do("freeze", 10.0)
    before = disks.guest.moment(10.0)
    assert before.issued > before.cached
    disks.do("flush", 11.0)
    moment = disks.guest.moment(11.0)
    assert moment.cached == moment.issued == before.issued
    assert disks.content == disks.guest.expected(moment.durable, moment.issued)
    disks.guest.advance(15.0)
    assert disks.guest.moment(15.0) == moment
    disks.do("thaw", 15.0)
    disks.guest.advance(16.0)
    assert disks.guest.moment(16.0).durable > moment.durable


def test_a_fence_holds_a_durable_write_and_with_it_every_later_one() -> None:
    disks = Disks()
    disks.do("fence", 5.0)
    before = disks.guest.moment(5.0)
    disks.guest.advance(9.0)
    held = disks.guest.moment(9.0)
    assert Stop.WAITING in disks.guest.stop
    # It went on as long as it wrote to the other unit only, and its memory let go of nothing.
    assert held.cached == before.cached
    passed = disks.script.durable.blocks[before.durable : held.durable]
    assert all(disks.unit(block) == "a" for block in passed)
    assert disks.unit(disks.script.durable.blocks[held.durable]) == "b"
    disks.do("unfence", 9.0)
    disks.guest.advance(9.01)
    assert disks.guest.moment(9.01).durable > held.durable


def test_losing_power_loses_what_was_cached_and_nothing_else() -> None:
    disks = Disks()
    disks.guest.advance(10.0)
    before = disks.guest.moment(10.0)
    disks.do("cut", 10.0)
    disks.do("off", 10.0)
    disks.guest.advance(60.0)
    assert disks.guest.lost == [(before.cached, before.issued)]
    lost = set(disks.script.cached.stamps[before.cached : before.issued])
    assert lost
    assert not lost & set(disks.content.values())
    assert disks.content == disks.guest.expected(before.durable, before.issued)


def test_a_guest_that_writes_nothing_has_nothing() -> None:
    for load in (
        Workload(0.0, 4096, (1,), (1,), (1.0,), 0.5, 0.5),
        Workload(9.0, 4096, (), (), (), 0.5, 0.5),
    ):
        disks = Disks(load)
        disks.guest.advance(1e6)
        assert not disks.content
        assert disks.guest.dirty_blocks(1e6) == 0


def test_a_stream_of_draws_depends_on_its_purpose_alone() -> None:
    draws = Draws(1)
    first = draws.stream(64, "writes", "vm", 0)
    draws.uniforms("something", "else")
    assert draws.stream(64, "writes", "vm", 0) == first
    assert draws.stream(32, "writes", "vm", 0) == first[:32]
    assert draws.stream(64, "writes", "vm", 1) != first
    assert Draws("1").stream(64, "writes", "vm", 0) != first
