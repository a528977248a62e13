"""A live process killed with SIGKILL at exact moments, and recovered.

The vCenter is an API that is not ours. The process kills itself when its journal has done a certain
thing, or is killed when the endpoint has had certain calls.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import support_kill
from support_kill import (
    CREATE,
    SLOW_CREATES,
    SLOW_REMOVALS,
    VMS,
    AfterFirstIntent,
    AtCalls,
    AtJournal,
    Moment,
    assert_nothing_is_left,
    config,
    durable_config,
    kill_and_recover,
    recover,
    vsim,
)
from support_vsim import Vsim
from typer.testing import CliRunner

from stillframe.cli import app

__all__ = ["config", "vsim"]  # fixtures

pytestmark = pytest.mark.timeout(120)


@pytest.mark.parametrize(
    ("moment", "rules", "open_before", "protected"),
    [
        pytest.param(AtJournal("intend", 1), [], 0, 0, id="first-intent-before-its-create"),
        pytest.param(AtCalls(CREATE, 4), SLOW_CREATES, None, 0, id="creates-under-way"),
        pytest.param(AtJournal("intend", VMS + 2), [], None, None, id="a-cut-under-way"),
        pytest.param(AtJournal("keep", 3), SLOW_REMOVALS, None, VMS, id="releases-under-way"),
    ],
)
def test_killed_and_recovered(
    vsim: Vsim,
    config: Path,
    moment: Moment,
    rules: list[dict[str, Any]],
    open_before: int | None,
    protected: int | None,
) -> None:
    vsim.rules(rules)
    told = kill_and_recover(vsim, config, moment)
    assert told["killed"], told
    left = (told["exit"], told["orphans"], told["array_orphans"], told["lies"])
    assert left == (0, 0, 0, 0), told
    assert (told["foreign_lost"], told["journal_ok"]) == (0, True), told
    if open_before is not None:
        assert told["interrupted_snapshots"] == open_before, told
    if protected is not None:
        listed = CliRunner().invoke(app, ["catalog", "list", str(config), "--json"])
        assert len(json.loads(listed.stdout)) == protected
    assert recover(config)[:2] == (
        0,
        {"journal": str(config.parent / "durable.journal"), "jobs": [], "complete": True},
    )


def test_the_helper_sees_what_is_left_where_nobody_recovers(
    vsim: Vsim, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(support_kill, "recover", lambda config: (0, {}, ""))
    told = kill_and_recover(vsim, config, AtJournal("intend", VMS + 1))
    assert (told["killed"], told["interrupted_snapshots"]) == (True, VMS), told
    assert (told["orphans"], told["journal_ok"]) == (VMS, False), told


def test_the_helper_tells_a_run_that_ended_from_one_that_was_killed(
    vsim: Vsim, tmp_path: Path
) -> None:
    nobody = durable_config(vsim, tmp_path, job={"select": {"include": {"name": "nobody"}}})
    told = kill_and_recover(vsim, nobody, AfterFirstIntent(0.0))
    assert (told["killed"], told["exit"], told["orphans"]) == (False, 0, 0), told
    somebody = durable_config(vsim, tmp_path)
    told = kill_and_recover(vsim, somebody, AfterFirstIntent(0.0))
    assert (told["killed"], told["exit"], told["orphans"]) == (True, 0, 0), told
    assert_nothing_is_left(vsim, somebody)
