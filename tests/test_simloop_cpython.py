"""CPython's own asyncio tests, run with SimLoop as the event loop.

They ship with the interpreter (package ``test``; Debian keeps them apart in
``libpython3.X-testsuite``, which ``scripts/install-system.sh`` installs). They run in a process of
their own, because they set event loop policies and leave warnings behind.

Nothing is deselected. If a test of a newer interpreter has to be, it goes into ``DESELECTED`` with
the reason why SimLoop rightly behaves otherwise.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import subprocess
import sys
import unittest
from pathlib import Path
from typing import Any

import pytest

MODULES = ("test_taskgroups", "test_timeouts", "test_locks", "test_queues", "test_waitfor")

# Test id -> why SimLoop rightly behaves otherwise.
DESELECTED: dict[str, str] = {}

# There are 181 on CPython 3.11.2, 196 on 3.11.7, 200 on 3.12.1, 226 on 3.13.0.
FEWEST_TESTS = 180
# Those that run an event loop at all; each makes at least one.
FEWEST_LOOPS = 150


def _flatten(suite: unittest.TestSuite) -> list[unittest.TestCase]:
    cases: list[unittest.TestCase] = []
    for entry in suite:
        cases += _flatten(entry) if isinstance(entry, unittest.TestSuite) else [entry]
    return cases


def run_suite() -> dict[str, Any]:
    """Run the modules on SimLoop, in this process."""
    from stillframe.sim.loop import SimLoop

    loops = 0

    def make_loop() -> SimLoop:
        nonlocal loops
        loops += 1
        return SimLoop()

    # The tests reset the policy, so the class under every policy is what has to change.
    asyncio.DefaultEventLoopPolicy._loop_factory = staticmethod(make_loop)
    result = unittest.TestResult()
    for module in MODULES:
        loaded = unittest.defaultTestLoader.loadTestsFromName(f"test.test_asyncio.{module}")
        unittest.TestSuite(c for c in _flatten(loaded) if c.id() not in DESELECTED).run(result)
    bad = [(case.id(), text) for case, text in [*result.failures, *result.errors]]
    bad += [(case.id(), "unexpected success") for case in result.unexpectedSuccesses]
    return {
        "run": result.testsRun,
        "skipped": [[case.id(), why] for case, why in result.skipped],
        "bad": bad,
        "loops": loops,
    }


def _in_subprocess() -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(Path(__file__))],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def _require_testsuite() -> None:
    try:
        found = importlib.util.find_spec("test.test_asyncio.test_taskgroups") is not None
    except ModuleNotFoundError:
        found = False
    if found:
        return
    reason = (
        f"{sys.executable} comes without CPython's tests (test.test_asyncio); "
        "scripts/install-system.sh installs them where apt can"
    )
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def test_cpythons_own_tests_pass_on_simloop() -> None:
    _require_testsuite()
    outcome = _in_subprocess()
    assert outcome["bad"] == []
    assert outcome["run"] >= FEWEST_TESTS
    assert outcome["loops"] >= FEWEST_LOOPS
    assert len(outcome["skipped"]) <= 2, outcome["skipped"]


if __name__ == "__main__":
    sys.stdout.write(json.dumps(run_suite()) + "\n")
