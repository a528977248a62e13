"""Fitting the model's numbers to live runs: how long each phase of a job takes, and how it varies.

Every time is taken apart as the model puts it together (:mod:`~..sim.creating`,
:mod:`~..sim.removing`, :mod:`~..sim.array`):

* quiesce window = freeze call + overlay + thaw call, each ``m (1 + a k) (1 + b w)`` with ``k`` the
  other operations under way on the host and ``w`` the guests on it that write;
* merge = ``(start + delta / rate) (1 + a k) (1 + b w)`` + pivot;
* array snapshot = ``(base + per unit) (1 + b w)``, a reported fence apart from the rest.

The parts are fitted one by one (:mod:`.fit_math`); then their medians and spreads are changed by
one factor each, so that the sums vary as they were measured.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ..errors import InputError
from ..sim.array_profiles import ArrayProfile
from ..sim.fitted_profile import FittedNumber, FittedProfile, load_fitted, save_fitted
from ..sim.profiles import HypervisorProfile
from .fit_array import array_numbers
from .fit_hypervisor import hypervisor_numbers
from .fit_load import load_of
from .fit_record import RunRecord
from .fit_sheet import Sheet

__all__ = ["FittedNumber", "FittedProfile", "fit", "load_fitted", "save_fitted"]

FEWEST_RUNS = 5
"""A median of fewer is no better than a guess."""

BASE_HYPERVISOR = "lab-qemu"
BASE_ARRAY = "row-flash"


def fit(runs: Sequence[RunRecord]) -> FittedProfile:
    """The profile under which the model takes as long as these runs did.

    Raises
    ------
    InputError
        There are too few runs, they come from different systems, or none of them got as far as
        what is to be fitted.
    """
    _check(runs)
    first, last = min(run.date for run in runs), max(run.date for run in runs)
    sheet = Sheet(f"{len(runs)} runs on {runs[0].array}, {_span(first, last)}")
    load = load_of(runs)
    hypervisor = hypervisor_numbers(runs, load, sheet)
    sources = sheet.sources()
    storage = array_numbers(runs, load, sheet)
    stored = {name: text for name, text in sheet.sources().items() if name not in sources}
    return FittedProfile(
        array=runs[0].array,
        driver=runs[0].hypervisor,
        dates=(first, last),
        runs=tuple(run.name for run in runs),
        hypervisor=HypervisorProfile.model_validate(
            {"profile": BASE_HYPERVISOR, **hypervisor, "sources": sources}
        ),
        storage=ArrayProfile.model_validate({"profile": BASE_ARRAY, **storage, "sources": stored}),
        numbers=sheet.numbers(),
        notes=tuple(sheet.notes),
    )


def _check(runs: Sequence[RunRecord]) -> None:
    if len(runs) < FEWEST_RUNS:
        raise InputError("runs", "", f"{len(runs)} are too few", f"give at least {FEWEST_RUNS}")
    for what in ("array", "hypervisor", "machine"):
        counts = Counter(str(getattr(run, what)) for run in runs)
        if len(counts) > 1:
            found = ", ".join(
                f"{name or 'unknown'} ({count} runs)" for name, count in counts.items()
            )
            problem = f"they come from more than one {what}: {found}"
            raise InputError("runs", what, problem, "make a profile of each")


def _span(first: str, last: str) -> str:
    days = sorted({first[:10], last[:10]} - {""})
    return " to ".join(days) or "without a date"
