"""The two sides of a validation: the job run live several times, and on a modelled twin."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import yaml

from .drivers.records import Estate
from .errors import InputError, StillframeError
from .lab.fit_record import RunRecord, WriteLoad, record_of
from .live import LiveRun, new_job_id, run_live
from .live_journal import open_journal
from .live_keep import prune_live
from .live_systems import Tell
from .orchestrator.result import JobStatus
from .scenarios.live import LiveConfig
from .scenarios.schema import EstateSource, Scenario
from .sim.collecting import few_collections
from .simulation import simulate
from .topology.estate import dump_estate

FEWEST_RUNS = 2
"""Of one run nobody knows what the next one would be like."""


@dataclass(frozen=True, slots=True)
class LiveRuns:
    """What several live runs of one configuration measured.

    Attributes
    ----------
    records:
        One for each run, in order.
    estate:
        What the systems held at the first.
    partly:
        Runs that did not protect everything; what they measured counts all the same.
    """

    records: list[RunRecord]
    estate: Estate
    partly: int


def run_often(
    config: LiveConfig,
    count: int,
    tell: Tell,
    notice: Callable[[str], None],
    *,
    load: WriteLoad | None = None,
    prune: bool = False,
) -> LiveRuns:
    """Run the job of a configuration so many times, one after the other, on its systems.

    Parameters
    ----------
    count:
        How many runs, 1 or more.
    load:
        How each guest writes meanwhile, where that is known.
    prune:
        After each run delete on the arrays what the configuration's retention does not keep.
    notice:
        Hears at once what a live run has to say.

    Raises
    ------
    StillframeError
        A run could not begin or failed, or nothing was measured in it: see
        :func:`~stillframe.live.run_live`.
    KeyboardInterrupt
        Ctrl-C; a job under way was cancelled and has released its VMs.
    """
    records: list[RunRecord] = []
    partly = 0
    estate: Estate | None = None
    for number in range(count):
        share = number / count
        run = run_live(config, new_job_id(), _share(tell, number, count), notice)
        _must_have_measured(run)
        partly += run.result.status is not JobStatus.PROTECTED
        records.append(record_of(run.run_data(), load))
        estate = estate or run.topology.estate
        if prune:
            tell(f"run {number + 1} of {count}: pruning", share)
            _prune(config, notice)
    assert estate is not None  # noqa: S101  there was at least one run
    return LiveRuns(records, estate, partly)


def _share(tell: Tell, number: int, count: int) -> Tell:
    def tell_share(label: str, share: float | None) -> None:
        done = (number + (share or 0.0)) / count
        tell(f"run {number + 1} of {count}: {label}", done)

    return tell_share


def _must_have_measured(run: LiveRun) -> None:
    if run.failure is not None:
        raise run.failure
    if run.interrupted or run.terminated:
        raise KeyboardInterrupt
    if not run.result.protected:
        reasons = [vm.reason for vm in run.result.vms if vm.reason]
        why = f": {reasons[0]}" if reasons else ""
        raise StillframeError(f"run {run.job_id} protected no VM{why}", "see `stillframe run`")


def _prune(config: LiveConfig, notice: Callable[[str], None]) -> None:
    with contextlib.closing(open_journal(config.journal)) as store:
        pruned = prune_live(
            config, store, config.retention, lambda _label, _share: None, lambda _sentence: None
        )
    for sentence in pruned.left:
        notice(f"not pruned: {sentence}")


def twin_of(config: LiveConfig, estate: Estate, seed: int) -> Scenario:
    """The configuration's job as a scenario on an estate that its systems were found to hold."""
    inline = yaml.safe_load(dump_estate(estate))
    return config.twin(EstateSource(inline=inline), seed)


def run_modelled(twin: Scenario, count: int, tell: Tell) -> list[RunRecord]:
    """Run the twin so many times, with its seed and the seeds after it.

    Raises
    ------
    NothingSelectedError
        The job's selection matches no VM.
    InputError
        The twin's world does not fit its estate.
    KeyboardInterrupt
        Ctrl-C.
    """
    estate = twin.build_estate()
    records = []
    with few_collections():
        for number in range(count):
            tell(f"modelled run {number + 1} of {count}", number / count)
            ran = simulate(twin, seed=twin.seed + number, estate=estate, once=False)
            if ran.result.status is JobStatus.CANCELLED:
                raise KeyboardInterrupt
            records.append(record_of(ran.run_data(), None))
    return records


def must_fit(profile_array: str, drivers: Sequence[str], profile: str, config: str) -> None:
    """Refuse a profile that was fitted on another array than the configuration names.

    Raises
    ------
    InputError
        It was.
    """
    others = sorted({driver for driver in drivers if driver != profile_array})
    if others:
        problem = f"was fitted on {profile_array}, and {config} has {' and '.join(others)}"
        advice = "fit one on runs of that array with `stillframe calibrate lab`"
        raise InputError(profile, "array", problem, advice)


@contextlib.contextmanager
def blamed_on(config: LiveConfig) -> Iterator[None]:
    """What the modelled world refuses stands in the configuration's section ``world``."""
    try:
        yield
    except InputError as error:
        if error.source != "world":
            raise
        field = f"world.{error.field}"
        raise InputError(config.source, field, error.problem, error.advice) from None
