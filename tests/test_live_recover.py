"""Recoveries that are killed, repeated, or find the vCenter away: a later one completes."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
from support_kill import (
    ENVIRONMENT,
    REMOVE,
    SLOW_REMOVALS,
    VMS,
    AtJournal,
    LiveProcess,
    assert_nothing_is_left,
    catalogued,
    config,
    kill_live,
    on_vms,
    recover,
    unfinished_jobs,
    vsim,
)
from support_vsim import Vsim
from typer.testing import CliRunner

from stillframe.cli import app
from stillframe.reports import folder

__all__ = ["config", "vsim"]  # fixtures

pytestmark = pytest.mark.timeout(120)


def test_a_recovery_that_is_killed_itself_is_recovered(vsim: Vsim, config: Path) -> None:
    vsim.rules(SLOW_REMOVALS)
    assert kill_live(vsim, config, AtJournal("intend", VMS + 1))
    assert len(on_vms(vsim)[0]) == VMS
    vsim.reset_calls()
    with LiveProcess(config, command=("recover",)) as recovering:
        assert recovering.wait_for_calls(vsim, REMOVE, 2), recovering.output
        recovering.signal(signal.SIGKILL)
        recovering.process.wait()
    assert unfinished_jobs(config) == 1
    code, answer, told = recover(config)
    assert (code, answer["complete"]) == (0, True), told
    assert_nothing_is_left(vsim, config)


def test_two_runs_killed_one_after_the_other_and_a_third_that_is_not(
    vsim: Vsim, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder, "draw_all", lambda run: {})
    assert kill_live(vsim, config, AtJournal("intend", VMS + 1))
    assert kill_live(vsim, config, AtJournal("intend", 3), "--no-recover")
    assert unfinished_jobs(config) == 2
    result = CliRunner().invoke(
        app,
        ["run", "--live", str(config), "--json", "--out", str(config.parent / "third")],
        env=ENVIRONMENT,
    )
    assert result.exit_code == 0, result.stderr
    recovered = json.loads(result.stdout)["live"]["recovered"]
    assert [one["complete"] for one in recovered] == [True, True]
    assert_nothing_is_left(vsim, config)
    assert len(catalogued(config)) == 3


def test_recovering_while_the_vcenter_is_away_and_later(vsim: Vsim, config: Path) -> None:
    assert kill_live(vsim, config, AtJournal("intend", VMS + 1))
    vsim.kill()
    code, answer, told = recover(config)
    assert code == 1, told
    assert "vc cannot be reached, what is left there is left" in told
    assert answer["complete"] is False
    assert unfinished_jobs(config) == 1
    vsim.restart()
    assert len(on_vms(vsim)[0]) == VMS
    code, answer, told = recover(config)
    assert (code, answer["complete"]) == (0, True), told
    assert_nothing_is_left(vsim, config)
