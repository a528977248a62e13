"""Two processes and one job, or one configuration: only one of them touches anything."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from support_kill import (
    CREATE,
    ENVIRONMENT,
    SLOW_CREATES,
    VMS,
    LiveProcess,
    assert_nothing_is_left,
    config,
    recover,
    vsim,
)
from support_vsim import Vsim
from typer.testing import CliRunner

from stillframe.cli import app

__all__ = ["config", "vsim"]  # fixtures

pytestmark = pytest.mark.timeout(120)


def test_a_process_that_only_stood_still_is_fenced(vsim: Vsim, config: Path) -> None:
    vsim.rules(SLOW_CREATES)
    with LiveProcess(config) as running:
        # All have been sent: a call that is still in the process when it stops is sent when it
        # goes on, and no journal can hold it back (docs/recovery.md, known limits).
        assert running.wait_for_calls(vsim, CREATE, VMS), running.output
        running.signal(signal.SIGSTOP)
        code, answer, _ = recover(config)
        assert (code, answer["complete"]) == (1, False), "it is alive, as far as one can tell"
        assert answer["jobs"][0]["held_by"].startswith(f"process {running.process.pid} on ")
        code, answer, told = recover(config, "--take-over")
        assert (code, answer["complete"]) == (0, True), told
        assert_nothing_is_left(vsim, config)

        running.signal(signal.SIGCONT)
        assert running.process.wait() == 3
        assert "was taken over by" in running.output
    assert_nothing_is_left(vsim, config)
    assert recover(config)[1]["jobs"] == []


def test_a_run_beside_a_live_one_is_refused(vsim: Vsim, config: Path) -> None:
    vsim.rules([{"method": CREATE, "delayMs": 1000, "times": 0}])
    with LiveProcess(config) as running:
        assert running.wait_for_calls(vsim, CREATE, 1), running.output
        result = CliRunner().invoke(app, ["run", "--live", str(config)], env=ENVIRONMENT)
        assert result.exit_code == 3
        assert f"is in the hands of process {running.process.pid} on" in result.stderr
        running.signal(signal.SIGKILL)
        running.process.wait()
    assert recover(config)[0] == 0
    assert_nothing_is_left(vsim, config)
