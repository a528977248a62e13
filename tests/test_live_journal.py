"""Who holds a job: processes that certainly ended, and those of which one cannot tell."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stillframe import live_journal
from stillframe.errors import InputError
from stillframe.live_journal import Holder, is_dead, may_be_made, open_journal, who


@pytest.fixture
def other() -> Iterator[subprocess.Popen[str]]:
    """Another process, and on its first line of output, the holder that it is."""
    code = (
        "import sys; from stillframe.live_journal import Holder; "
        "print(Holder.here(), flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def name_of(process: subprocess.Popen[str]) -> str:
    """The holder that it says it is."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_process_is_dead_once_it_is_killed(other: subprocess.Popen[str]) -> None:
    holder = name_of(other)
    assert who(holder) == f"process {other.pid} on {os.uname().nodename}"
    assert not is_dead(holder)
    assert not is_dead(str(Holder.here()))
    other.kill()
    os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
    assert is_dead(holder), "nobody has looked at how it ended yet"
    other.wait()
    assert is_dead(holder)


def test_the_same_number_is_another_process(other: subprocess.Popen[str]) -> None:
    holder = Holder.parse(name_of(other))
    assert holder is not None
    assert is_dead(str(holder._replace(started=holder.started + "1")))


def test_another_machine_or_namespace_cannot_be_told(other: subprocess.Popen[str]) -> None:
    holder = Holder.parse(name_of(other))
    assert holder is not None
    other.kill()
    other.wait()
    assert is_dead(str(holder))
    assert not is_dead(str(holder._replace(host="elsewhere")))
    assert not is_dead(str(holder._replace(space="1")))
    assert not is_dead(str(holder._replace(boot="")))
    assert not is_dead("somebody who writes otherwise")
    assert who("somebody") == "somebody"


def test_a_machine_that_has_started_again_has_no_process_of_before(
    other: subprocess.Popen[str],
) -> None:
    holder = Holder.parse(name_of(other))
    assert holder is not None
    assert is_dead(str(holder._replace(boot="0")))


def test_without_proc_a_process_that_answers_is_alive(
    other: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    holder = Holder.parse(name_of(other))
    assert holder is not None
    monkeypatch.setattr(live_journal, "_PROC", Path("/nowhere"))
    bare = str(holder._replace(started="", boot="", space=""))
    assert not is_dead(bare)
    other.kill()
    other.wait()
    assert is_dead(bare)


def test_every_hand_is_another() -> None:
    assert Holder.here() != Holder.here()
    assert Holder.parse(str(Holder.here())) is not None


def test_a_journal_is_not_made_by_looking(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such journal"):
        open_journal(tmp_path / "x.journal")
    assert not list(tmp_path.iterdir())
    open_journal(tmp_path / "x.journal", create=True).close()
    open_journal(tmp_path / "x.journal").close()
    assert [one.name for one in tmp_path.iterdir()] == ["x.journal"]


def test_a_place_where_no_journal_can_be_made_is_refused(tmp_path: Path) -> None:
    may_be_made(tmp_path / "x.journal")
    with pytest.raises(InputError, match=r"folder .*no does not exist \(name another place in"):
        may_be_made(tmp_path / "no" / "x.journal")
