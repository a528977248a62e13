"""The durable store against the plain one: same steps, same answers, processes dying in between."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from support_store import Clock, entry, intent, tags_of

from stillframe.drivers.contracts import ConsistencyLevel
from stillframe.errors import StillframeError
from stillframe.orchestrator.journal import IntentKind, Journal, Store
from stillframe.orchestrator.memory_store import MemoryStore
from stillframe.orchestrator.result import CatalogueEntry
from stillframe.orchestrator.sqlite_store import SqliteStore

JOBS = st.sampled_from(["a", "b", "a-1"])
TAGS = st.sampled_from([f"t{i}" for i in range(6)])
VMS = st.sampled_from([f"vm{i}" for i in range(4)])
PROCESSES = st.sampled_from([0, 1])
LEASES_S = st.sampled_from([5.0, 30.0, float("inf")])
ENTRIES = st.lists(
    st.builds(
        entry,
        VMS,
        st.lists(TAGS, min_size=1, max_size=3, unique=True),
        st.sampled_from(ConsistencyLevel),
        st.floats(-1e6, 1e6),
    ),
    max_size=4,
)


class Held:
    """One hold on a job: its journal in each of the two stores, and who has it open."""

    def __init__(self, job_id: str, process: int, plain: Journal, durable: Journal) -> None:
        self.job_id = job_id
        self.process = process
        self.plain = plain
        self.durable = durable
        self.unwritten: set[str] = set()
        """Settled since the last write: what may be open again after a crash."""


class Stores(RuleBasedStateMachine):
    """Two processes on one file beside one store in memory."""

    @initialize()
    def open(self) -> None:
        self.folder = tempfile.mkdtemp(prefix="stillframe-test-")
        self.clock = Clock()
        self.plain = MemoryStore(self.clock)
        self.durable = [self._open(), self._open()]
        self.held: list[Held] = []
        self.lost: dict[str, set[str]] = {}

    def teardown(self) -> None:
        for store in getattr(self, "durable", ()):
            store.abandon()
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)

    def _open(self) -> SqliteStore:
        path = Path(self.folder, "store.db")
        return SqliteStore(path, clock=self.clock, synchronous="OFF")

    def _both(
        self, plain: Callable[[], object], durable: Callable[[], object]
    ) -> tuple[Any, Any] | None:
        """Do it to both; None when both refused, in the same words."""
        answers: list[Any] = []
        refusals: list[tuple[type, str]] = []
        for one in (plain, durable):
            try:
                answers.append(one())
            except StillframeError as error:
                refusals.append((type(error), str(error)))
        if refusals:
            assert len(refusals) == 2
            assert refusals[0] == refusals[1]
            return None
        return answers[0], answers[1]

    def _write(self, held: Held, call: Callable[[Journal], object]) -> None:
        answers = self._both(lambda: call(held.plain), lambda: call(held.durable))
        if answers is not None:
            assert answers[0] == answers[1]
            held.unwritten.clear()

    def _take(self, job_id: str, process: int, take: Callable[[Store], Journal]) -> None:
        answers = self._both(lambda: take(self.plain), lambda: take(self.durable[process]))
        if answers is not None:
            held = Held(job_id, process, *answers)
            self._settle_what_came_back(held)
            self.held.append(held)

    def _settle_what_came_back(self, held: Held) -> None:
        back = set(tags_of(held.durable)) - set(tags_of(held.plain))
        assert back <= self._unwritten(held.job_id)
        for tag in sorted(back):
            held.durable.settle(tag)
        assert held.durable.open_intents() == held.plain.open_intents()
        for one in self.held:
            if one.job_id == held.job_id:
                one.unwritten.clear()
        self.lost.pop(held.job_id, None)
        held.unwritten = back

    def _unwritten(self, job_id: str) -> set[str]:
        """Tags that may be open again because nobody wrote that they were settled."""
        ours = [one.unwritten for one in self.held if one.job_id == job_id]
        return self.lost.get(job_id, set()).union(*ours)

    @rule(job_id=JOBS, process=PROCESSES, lease_s=LEASES_S)
    def begin(self, job_id: str, process: int, lease_s: float) -> None:
        self._take(
            job_id,
            process,
            lambda store: store.begin(
                job_id, name="name", spec='{"é": 1}', holder=f"process {process}", lease_s=lease_s
            ),
        )

    @rule(job_id=JOBS, process=PROCESSES, lease_s=LEASES_S)
    def take_over(self, job_id: str, process: int, lease_s: float) -> None:
        self._take(
            job_id,
            process,
            lambda store: store.take_over(job_id, holder=f"process {process}", lease_s=lease_s),
        )

    @precondition(lambda self: self.held)
    @rule(data=st.data(), tag=TAGS, kind=st.sampled_from(IntentKind))
    def intend(self, data: st.DataObject, tag: str, kind: IntentKind) -> None:
        self._write(
            data.draw(st.sampled_from(self.held)), lambda one: one.intend(intent(tag, kind))
        )

    @precondition(lambda self: self.held)
    @rule(data=st.data(), tag=TAGS)
    def settle(self, data: st.DataObject, tag: str) -> None:
        held = data.draw(st.sampled_from(self.held))
        if self._both(lambda: held.plain.settle(tag), lambda: held.durable.settle(tag)):
            held.unwritten.add(tag)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), entries=ENTRIES, now_s=st.floats(0, 1e6))
    def keep(self, data: st.DataObject, entries: list[CatalogueEntry], now_s: float) -> None:
        self._write(
            data.draw(st.sampled_from(self.held)),
            lambda one: one.keep(entries, now_s),
        )

    @precondition(lambda self: self.held)
    @rule(data=st.data(), vm_ids=st.lists(VMS, max_size=3), reason=st.text(max_size=5))
    def withdraw(self, data: st.DataObject, vm_ids: list[str], reason: str) -> None:
        self._write(data.draw(st.sampled_from(self.held)), lambda one: one.withdraw(vm_ids, reason))

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def renew(self, data: st.DataObject) -> None:
        self._write(data.draw(st.sampled_from(self.held)), lambda one: one.renew())

    @precondition(lambda self: self.held)
    @rule(data=st.data(), status=st.sampled_from(["protected", "failed"]))
    def finish(self, data: st.DataObject, status: str) -> None:
        self._write(data.draw(st.sampled_from(self.held)), lambda one: one.finish(status))

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def read(self, data: st.DataObject) -> None:
        held = data.draw(st.sampled_from(self.held))
        for ask in (
            lambda one: one.open_intents(),
            lambda one: one.kept(),
        ):
            answers = self._both(lambda ask=ask: ask(held.plain), lambda ask=ask: ask(held.durable))
            assert answers is None or answers[0] == answers[1]

    @rule(by_s=st.sampled_from([0.5, 4.5, 30.0]))
    def time_passes(self, by_s: float) -> None:
        self.clock.now_s += by_s

    @rule(process=PROCESSES)
    def die(self, process: int) -> None:
        """The process is gone, and another opens the file; its leases run on."""
        self.durable[process].abandon()
        for held in self._forget(process):
            self.lost.setdefault(held.job_id, set()).update(held.unwritten)
        self.durable[process] = self._open()

    @rule(process=PROCESSES)
    def close_and_open(self, process: int) -> None:
        self.durable[process].close()
        self._forget(process)
        self.durable[process] = self._open()

    def _forget(self, process: int) -> list[Held]:
        gone = [one for one in self.held if one.process == process]
        self.held = [one for one in self.held if one.process != process]
        return gone

    @rule()
    def compare(self) -> None:
        for store in self.durable:
            store.jobs()  # writes what was settled
        for held in self.held:
            held.unwritten.clear()
        for store in self.durable:
            assert store.entries() == self.plain.entries()
            assert store.withdrawn() == self.plain.withdrawn()
            records = zip(store.jobs(), self.plain.jobs(), strict=True)
            for durable, plain in records:
                assert durable._replace(open_intents=0) == plain._replace(open_intents=0)
                back = durable.open_intents - plain.open_intents
                assert 0 <= back <= len(self.lost.get(plain.job_id, ()))


TestStores = Stores.TestCase
TestStores.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
