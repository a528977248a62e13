"""The pytest plugin: estates, jobs and seeded labs for tests of one's own orchestration.

Installed with Stillframe, pytest loads it in every project of the same environment, so nothing
heavy is imported here: a fixture imports what it needs when a test first uses it.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Generator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .drivers.records import Estate
    from .pytest_golden import Golden
    from .pytest_job import JobMaker
    from .pytest_lab import LabMaker

SEED = "stillframe_seed"
MARKER = "stillframe_seeds"
FIRST_SEED = 0
"""The seed of a test that no marker and no option gives one; counts of seeds begin with it."""
_ASKED = pytest.StashKey[int]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """The command-line options."""
    group = parser.getgroup("stillframe", "snapshot orchestration in modelled worlds")
    group.addoption(
        "--stillframe-seeds",
        type=_count,
        metavar="N",
        help="run every test and lab that goes through seeds with N of them, whatever it says",
    )
    group.addoption(
        "--stillframe-seed",
        type=_seed,
        metavar="S",
        help="run with this seed only: what a failure tells to type",
    )
    group.addoption(
        "--stillframe-shrink",
        action="store_true",
        help="make a lab's failing run small, and show where it parts from one that passes",
    )
    group.addoption(
        "--stillframe-update-golden",
        action="store_true",
        help="write golden event traces anew instead of comparing with them",
    )


def _seed(text: str) -> int:
    if not text.isascii() or not text.isdecimal():
        raise ValueError(text)
    return int(text)


def _count(text: str) -> int:
    if _seed(text) < 1:
        raise ValueError(text)
    return int(text)


# What argparse calls them: "invalid seed value: 'x'".
_seed.__name__ = "seed"
_count.__name__ = "number of seeds"


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line(
        "markers",
        f"{MARKER}(seeds): run the test once with each seed; a count, a range or a list",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each seed of the marker."""
    marker = metafunc.definition.get_closest_marker(MARKER)
    if marker is None:
        return
    test = metafunc.definition.nodeid
    if SEED not in metafunc.fixturenames:
        pytest.fail(
            f"{test}: marker {MARKER} has no effect: the test uses no stillframe fixture",
            pytrace=False,
        )
    seeds = _seeds_of(test, marker)
    option = metafunc.config.option
    if option.stillframe_seed is not None:
        seeds = [option.stillframe_seed]
    elif option.stillframe_seeds is not None:
        seeds = range(FIRST_SEED, FIRST_SEED + option.stillframe_seeds)
    metafunc.parametrize(SEED, seeds, indirect=True, ids=[f"seed{seed}" for seed in seeds])


def _seeds_of(test: str, marker: pytest.Mark) -> Sequence[int]:
    given = marker.args[0] if len(marker.args) == 1 and not marker.kwargs else None
    if isinstance(given, int) and not isinstance(given, bool) and given > 0:
        return range(FIRST_SEED, FIRST_SEED + given)
    if isinstance(given, range | list | tuple):
        seeds = list(given)
        if seeds and all(type(seed) is int and seed >= 0 for seed in seeds):
            return seeds
    arguments = [repr(value) for value in marker.args]
    arguments += [f"{name}={value!r}" for name, value in marker.kwargs.items()]
    pytest.fail(
        f"{test}: {MARKER}({', '.join(arguments)}) is not understood: give a count of at least 1, "
        "or a range or a list of seeds that are not negative",
        pytrace=False,
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Under a failure, the seed and what to type to see it again."""
    report = yield
    seed = item.stash.get(_ASKED, None)
    if report.failed and seed is not None:
        report.sections.append(
            ("Stillframe", f"seed {seed}; again with: {again_command(item, seed)}")
        )
    return report


def again_command(item: pytest.Item, seed: int) -> str:
    """The command line that runs this test with this seed only."""
    below_root, separator, name = item.nodeid.partition("::")
    path = os.path.relpath(item.config.rootpath / below_root, item.config.invocation_params.dir)
    callspec = getattr(item, "callspec", None)
    if callspec is not None and set(callspec.params) == {SEED}:
        # Without what stands in brackets the command holds for every seed.
        name = name.partition("[")[0]
    return f"pytest {shlex.quote(f'{path}{separator}{name}')} --stillframe-seed {seed}"


@pytest.fixture
def stillframe_seed(request: pytest.FixtureRequest) -> int:
    """The seed of this test: from the marker, from ``--stillframe-seed``, else 0."""
    given: int | None = getattr(request, "param", None)
    if given is None:
        given = request.config.option.stillframe_seed
    seed = FIRST_SEED if given is None else given
    request.node.stash[_ASKED] = seed
    return seed


@pytest.fixture
def stillframe_estate() -> Callable[..., Estate]:
    """Makes estates: ``stillframe_estate(vms=20, datastores=4)``, or from a scenario or a file."""
    from .pytest_worlds import make_estate

    return make_estate


@pytest.fixture
def stillframe_job(stillframe_seed: int) -> JobMaker:
    """Runs the real job in a modelled world: ``stillframe_job("demo", strategy=mine)``."""
    from .pytest_job import JobMaker

    return JobMaker(stillframe_seed)


@pytest.fixture
def stillframe_lab(stillframe_seed: int, request: pytest.FixtureRequest) -> LabMaker:
    """A lab with faults and crashes: ``stillframe_lab("demo", strategy=mine).explore(200)``."""
    from .pytest_lab import LabMaker

    option = request.config.option
    return LabMaker(
        seed=stillframe_seed,
        only_seed=option.stillframe_seed,
        count=option.stillframe_seeds,
        again=partial(_note_failing, request.node),
        folder=_replay_folder(request.config),
        shrinks=option.stillframe_shrink,
    )


def _note_failing(item: pytest.Item, seed: int) -> str:
    """The command for a seed that just failed, which the test's report names too."""
    item.stash[_ASKED] = seed
    return again_command(item, seed)


@pytest.fixture
def stillframe_golden(request: pytest.FixtureRequest) -> Golden:
    """Compares a run's event trace with one that was kept: ``stillframe_golden(run, "shop")``."""
    from .pytest_golden import Golden

    folder = Path(request.path).parent / "golden"
    return Golden(folder, update=request.config.option.stillframe_update_golden)


def _replay_folder(config: pytest.Config) -> Path | None:
    """Where replay files go: pytest's cache, which no repository keeps; None without a cache."""
    cache: Any = getattr(config, "cache", None)
    return None if cache is None else Path(cache.mkdir("stillframe"))
