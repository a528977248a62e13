"""A killed job whose journal is cut off at every byte of its last record, and recovered."""

from __future__ import annotations

import asyncio
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from stillframe.drivers.contracts import VmSnapshotRef
from stillframe.errors import InputError
from stillframe.orchestrator.discover import discover
from stillframe.orchestrator.events import EventLog
from stillframe.orchestrator.job import Job
from stillframe.orchestrator.journal import Journal, Store
from stillframe.orchestrator.plan import make_plan
from stillframe.orchestrator.recover import recover_job
from stillframe.orchestrator.result import JobResult
from stillframe.orchestrator.sqlite_files import look
from stillframe.orchestrator.sqlite_schema import TABLES
from stillframe.orchestrator.sqlite_store import SqliteStore
from stillframe.scenarios.schema import Scenario, load_scenario
from stillframe.sim.crash import kill
from stillframe.sim.env import SimEnv
from stillframe.sim.loop import SimLoop, SimStepLimitError
from stillframe.sim.world import World
from stillframe.topology.graph import Topology

from .evidence import Figure

RECORDS = 6
LEASE_S = 60.0
CONSOLE = Console(stderr=True)


def begin(store: Store, job_id: str) -> Journal:
    """A job of this program."""
    return store.begin(job_id, name="evidence", spec="{}", holder="evidence", lease_s=LEASE_S)


async def modelled_job(scenario: Scenario, world: World, store: Store, job_id: str) -> JobResult:
    """The scenario's job in a world."""
    topology = Topology(await discover(world.hypervisors, world.arrays, ()))
    job = Job(
        job_id,
        scenario.job,
        make_plan(topology, scenario.job),
        topology,
        world.hypervisors,
        world.arrays,
        random=random.Random(1),
        log=EventLog(),
        journal=begin(store, job_id),
    )
    return await job.run()


class Dead(NamedTuple):
    """A job that was killed: the world that it left, and the files of its journal."""

    env: SimEnv
    world: World
    file: Path

    @property
    def log(self) -> bytes:
        """The write-ahead log."""
        return Path(f"{self.file}-wal").read_bytes()


def kill_at(scenario: Scenario, step: int, folder: Path) -> Dead:
    """Run the job up to a step of its event loop and kill its process."""
    env = SimEnv()
    world = World(env, scenario.build_estate(), scenario.world, seed=1, log=EventLog())
    place = Path(tempfile.mkdtemp(dir=folder))
    store = SqliteStore(place / "live.db", clock=lambda: env.now)
    loop = SimLoop(env)
    loop.step_limit = step
    with suppress(SimStepLimitError):
        loop.run_until_complete(modelled_job(scenario, world, store, "evidence"))
    for suffix in ("", "-wal"):
        shutil.copyfile(place / f"live.db{suffix}", place / f"dead.db{suffix}")
    kill(loop)
    store.close()
    return Dead(env, world, place / "dead.db")


def commits(log: bytes, begun: int) -> int:
    """Transactions in a write-ahead log after byte ``begun``.

    Format: https://www.sqlite.org/fileformat2.html#walformat: a header of 32 bytes with the page
    size at 8, then frames of 24 bytes and a page; the last of a transaction has a size at 4.
    """
    page_bytes = int.from_bytes(log[8:12], "big") if log else 4096
    frames = range(max(begun, 32), len(log), 24 + page_bytes)
    return sum(log[at + 4 : at + 8] != bytes(4) for at in frames)


def holdings(file: Path) -> tuple[tuple[object, ...], ...] | None:
    """Every row of a journal; None when it is refused."""
    try:
        copy = look(file)
    except InputError:
        return None
    with closing(copy):
        rows = []
        for table in ("jobs", *TABLES):
            rows += copy.execute(f"SELECT '{table}', * FROM {table}").fetchall()  # noqa: S608
        return tuple(rows)


def torn(before: Dead, after: Dead, size: int) -> Path:
    """A copy of the journal after the record, cut off at a byte."""
    place = before.file.with_name("torn.db")
    shutil.copyfile(after.file, place)
    Path(f"{place}-wal").write_bytes(after.log[:size])
    return place


def torn_everywhere(before: Dead, after: Dead) -> Counter[str]:
    """What the journal is read as when it ends at each byte of its last record."""
    expected = holdings(before.file)
    outcomes: Counter[str] = Counter()
    for size in range(len(before.log), len(after.log)):
        found = holdings(torn(before, after, size))
        outcomes["refused" if found is None else "before" if found == expected else "another"] += 1
    return outcomes


def recovered(scenario: Scenario, dead: Dead, file: Path) -> list[str]:
    """Recover the job in its world with a journal; what is wrong in the world afterwards."""
    env, world = dead.env, dead.world
    store = SqliteStore(file, clock=lambda: env.now + LEASE_S)
    foreign = foreign_snapshots(world)
    records = [record for record in store.jobs() if record.unfinished]

    held: dict[str, None] = {}

    async def main() -> None:
        for record in records:
            await recover_job(
                store.take_over(record.job_id, holder="recovery", lease_s=LEASE_S),
                record.job_id,
                scenario.job,
                world.hypervisors,
                world.arrays,
                random=random.Random(1),
            )
        for array in world.arrays.values():
            held.update((one.ref.tag, None) for one in await array.list_snapshots(""))

    with asyncio.Runner(loop_factory=lambda: SimLoop(env)) as runner:
        runner.run(main())
    named = {ref.tag for entry in store.entries() for ref in entry.cuts}
    store.close()
    wrong = list(world.leftovers())
    wrong += [f"no entry names {tag}" for tag in held if tag not in named]
    wrong += [f"{tag} is in the catalogue and gone" for tag in sorted(named) if tag not in held]
    if foreign_snapshots(world) != foreign:
        wrong.append("a snapshot of somebody else is gone")
    return wrong


def foreign_snapshots(world: World) -> dict[str, list[VmSnapshotRef]]:
    """The VM snapshots that were there before, by VM."""
    return {
        state.vm.id: [one.ref for one in state.chain if one.foreign]
        for hypervisor in world.hypervisors.values()
        for state in hypervisor.states.values()
    }


def records_of(scenario: Scenario, folder: Path) -> Iterator[tuple[int, Dead, Dead]]:
    """Steps that write one record to the journal, with the job killed before and after it."""
    before = kill_at(scenario, 1, folder)
    for step in range(2, 1_000):
        after = kill_at(scenario, step, folder)
        if commits(after.log, len(before.log)) == 1 and len(before.log):
            yield step, before, after
            after = kill_at(scenario, step, folder)  # the world of the other has gone on
        before = after


def damage() -> list[Figure]:
    """Cut the journal of a killed job at every byte of its last record, and recover."""
    scenario = load_scenario("first-claim")
    outcomes: Counter[str] = Counter()
    wrong: list[str] = []
    records = 0
    with tempfile.TemporaryDirectory() as folder:
        for step, before, after in records_of(scenario, Path(folder)):
            if records == RECORDS:
                break
            records += 1
            CONSOLE.print(f"record {records}, written at step {step}", highlight=False)
            outcomes += torn_everywhere(before, after)
            # The power failed while the record was written: what it announces was not sent.
            middle = (len(before.log) + len(after.log)) // 2
            wrong += recovered(scenario, before, torn(before, after, middle))
            wrong += recovered(scenario, after, torn(before, after, len(after.log)))
    CONSOLE.print(*wrong, sep="\n")
    return [
        Figure("records torn", records, "records"),
        Figure("places at which they were cut off", outcomes.total(), "bytes"),
        Figure("read as the moment before the record", outcomes["before"], "bytes"),
        Figure("refused with a clear error", outcomes["refused"], "bytes"),
        Figure("read as anything else", outcomes["another"], "bytes", "== 0 bytes"),
        Figure("findings after recovery from them", len(wrong), "findings", "== 0 findings"),
    ]
