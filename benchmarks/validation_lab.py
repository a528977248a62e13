"""The live side of ``make evidence-validation``: many short jobs on small labs, as records.

    python -m benchmarks.validation_lab --records FILE.json [--arrays qsd,xfs] [--guests 1,2] ...

For each array and number of guests a lab is brought up, several times over the session and in an
order that a seed decides, those of one array close together in time. In each, every guest first
writes its ring of records once, as fast as it can: first writes allocate. Then the write loads take
turns in blocks, again in drawn order, so that the machine's slow drift falls on all of them alike.
A block restarts the writers, waits until every guest has had so many writes acknowledged, and runs
the job a few times through :func:`stillframe.live.run_live`; what retention does not keep is pruned
after each run, so that chains of array snapshots do not grow. The first run of a lab is marked as a
warm-up and not used: guests that were restored from a saved state freeze for the first time in it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import shutil
import statistics
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stillframe.lab.fit_record import WriteLoad
from stillframe.lab.lab import Lab, bring_up
from stillframe.lab.spec import LabArray, LabSpec, Writes
from stillframe.lab.teardown import take_down
from stillframe.orchestrator.retention import Retention
from stillframe.orchestrator.spec import StrategyName
from stillframe.scenarios.live import LiveConfig, load_live
from stillframe.topology.estate import dump_estate
from stillframe.validation_runs import run_often

FORMAT = "stillframe-validation-runs"
ARRAYS = ("qsd", "xfs", "ceph")
GUESTS = (1, 2, 4)
RECORD_BYTES = 64 * 1024
RING_BYTES = 8 * 1024**2
LOADS = {
    name: Writes(record_bytes=RECORD_BYTES, file_bytes=RING_BYTES, rate_per_s=rate_per_s)
    for name, rate_per_s in (("low", 5.0), ("middle", 25.0), ("high", 75.0))
}
FILL = LOADS["low"].model_copy(update={"rate_per_s": 10_000.0})
"""As fast as it goes, until the ring exists: first writes allocate, and take several times as long
as those that come after."""

SEED = 11
ROUNDS = 4
BLOCKS = 1
RUNS = 5
"""Runs in a block; rounds x blocks x runs is what a cell gets."""

SETTLED_S = 0.5
"""Writers have settled when they have acknowledged what they should write in this time."""
SETTLING_LIMIT_S = 60.0
_LOOK_S = 0.02
FOLDER = Path("/var/tmp/stillframe-validation")  # noqa: S108  short: sockets have long names


@dataclass
class Session:
    """What was measured so far, and where it is kept.

    ``labs`` has one entry for each bring-up: array, guests, round, the estate as the drivers found
    it, the job. ``runs`` has one for each run: which lab it was in, the load, the record.
    """

    seed: int
    file: Path
    arrays: Sequence[str]
    labs: list[dict[str, Any]] = field(default_factory=list)
    runs: list[dict[str, Any]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def save(self) -> None:
        """Write everything; called after each lab, so that a crash loses one at most."""
        document = {
            "format": FORMAT,
            "version": 1,
            "seed": self.seed,
            "arrays": list(self.arrays),
            "loads": {name: load.model_dump(mode="json") for name, load in LOADS.items()},
            "labs": self.labs,
            "runs": self.runs,
            "failures": self.failures,
        }
        self.file.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(document, ensure_ascii=False, allow_nan=False)
        self.file.write_text(f"{text}\n", encoding="utf-8")


@dataclass(frozen=True)
class Plan:
    """What a session measures."""

    arrays: Sequence[str] = ARRAYS
    guests: Sequence[int] = GUESTS
    rounds: int = ROUNDS
    blocks: int = BLOCKS
    runs: int = RUNS


def measure(plan: Plan, folder: Path, session: Session) -> None:
    """Bring up each lab and measure its loads; a lab that fails is noted and left out."""
    chance = random.Random(session.seed)
    for round_number in range(plan.rounds):
        for array, guests in _in_turn(plan, chance):
            print(f"round {round_number + 1}: {array}, {guests} guests", flush=True)
            here = folder / f"{array}-{guests}"
            try:
                _one_lab(plan, array, guests, round_number, here, session, chance)
            except Exception as error:  # noqa: BLE001  the others are still worth measuring
                session.failures.append(f"{array}, {guests} guests: {error}")
                traceback.print_exception(error)
            session.save()


def _in_turn(plan: Plan, chance: random.Random) -> Iterator[tuple[str, int]]:
    """The labs of a round: those of one array, which are compared, close together in time."""
    for array in chance.sample(list(plan.arrays), len(plan.arrays)):
        for guests in chance.sample(list(plan.guests), len(plan.guests)):
            yield array, guests


def _one_lab(
    plan: Plan,
    array: str,
    guests: int,
    round_number: int,
    folder: Path,
    session: Session,
    chance: random.Random,
) -> None:
    spec = LabSpec(name="validation", array=LabArray(array), guests=guests, wide=0, writer=FILL)
    shutil.rmtree(folder, ignore_errors=True)
    # The lab's own calls, and the jobs, each have a loop of their own, one at a time.
    with asyncio.Runner() as runner:
        lab = runner.run(bring_up(spec, folder))
        try:
            config = load_live(lab.config_file).with_strategy(StrategyName.ALL_AT_ONCE)
            config = config.model_copy(update={"retention": Retention(keep_last=1)})
            runner.run(_acknowledged(lab, RING_BYTES // RECORD_BYTES))
            where = {"array": array, "guests": guests, "round": round_number}
            blocks = [load for _ in range(plan.blocks) for load in _shuffled(chance)]
            for number, load in enumerate(blocks):
                written = runner.run(_settle(lab, LOADS[load]))
                _block(plan, config, where, load, written, session, is_first=number == 0)
        finally:
            runner.run(take_down(folder))
            shutil.rmtree(folder, ignore_errors=True)


def _shuffled(chance: random.Random) -> list[str]:
    loads = list(LOADS)
    chance.shuffle(loads)
    return loads


def _block(
    plan: Plan,
    config: LiveConfig,
    where: dict[str, Any],
    load: str,
    written: WriteLoad,
    session: Session,
    *,
    is_first: bool,
) -> None:
    count = plan.runs + is_first
    live = run_often(config, count, _silent, _notice, load=written, prune=True)
    if is_first:
        job = config.job.model_dump(mode="json", by_alias=True)
        session.labs.append({**where, "estate": dump_estate(live.estate), "job": job})
    for number, record in enumerate(live.records):
        session.runs.append(
            {
                **where,
                "load": load,
                "warm_up": is_first and number == 0,
                "record": record.model_dump(mode="json"),
            }
        )


async def _settle(lab: Lab, writes: Writes) -> WriteLoad:
    """Restart every writer, wait until all have settled; what a guest has written since."""
    await asyncio.gather(*(lab.stop_writer(name) for name in lab.guests))
    before = {name: len(lab.acks(name)) for name in lab.guests}
    await asyncio.gather(*(lab.start_writer(name, writes) for name in lab.guests))
    await _acknowledged(lab, max(5, round(SETTLED_S * writes.rate_per_s)), before)
    since = [lab.acks(name)[known:] for name, known in before.items()]
    rates = [(len(acks) - 1) / (acks[-1].t_s - acks[0].t_s) for acks in since]
    return WriteLoad(
        record_bytes=writes.record_bytes,
        rate_per_s=statistics.fmean(rates),
        nominal_per_s=writes.rate_per_s,
        file_bytes=writes.file_bytes,
    )


async def _acknowledged(lab: Lab, count: int, before: Mapping[str, int] | None = None) -> None:
    """Wait until every guest has acknowledged so many more writes."""
    known = before or {}
    async with asyncio.timeout(SETTLING_LIMIT_S):
        for name in lab.guests:
            while len(lab.acks(name)) < known.get(name, 0) + count:  # noqa: ASYNC110  a file grows
                await asyncio.sleep(_LOOK_S)


def _silent(_label: str, _share: float | None) -> None:
    """Nobody watches a bar here."""


def _notice(sentence: str) -> None:
    print(f"  {sentence}", flush=True)


def main() -> int:
    """Measure and write the records."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--records", type=Path, required=True, help="where the records go")
    add_plan(parser)
    options = parser.parse_args()
    plan = plan_of(options)
    session = Session(options.seed, options.records, plan.arrays)
    started_s = time.monotonic()
    measure(plan, options.folder, session)
    print(f"{len(session.runs)} runs in {time.monotonic() - started_s:.0f} s: {session.file}")
    return 1 if session.failures else 0


def add_plan(parser: argparse.ArgumentParser) -> None:
    """The options that say what is measured."""
    parser.add_argument("--arrays", default=",".join(ARRAYS))
    parser.add_argument("--guests", default=",".join(map(str, GUESTS)))
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--blocks", type=int, default=BLOCKS)
    parser.add_argument("--runs", type=int, default=RUNS, help="in a block")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--folder", type=Path, default=FOLDER)


def plan_of(options: argparse.Namespace) -> Plan:
    """What the options ask for."""
    return Plan(
        options.arrays.split(","),
        [int(text) for text in options.guests.split(",")],
        options.rounds,
        options.blocks,
        options.runs,
    )


if __name__ == "__main__":
    sys.exit(main())
