"""The test endpoint as a process: who gets in, how it is built, and when it fails a test."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from pathlib import Path

import pytest
import support_vsim
from pyVim.connect import SmartConnect
from pyVmomi import vim
from support_pyvmomi import Client, client, sockets_left_open, vsim
from support_vsim import ROOT, Vsim, small_inventory

__all__ = ["client", "vsim"]  # fixtures


def test_only_its_user_and_its_authority_open_it(vsim: Vsim) -> None:
    where = {"host": vsim.host, "port": vsim.port, "user": vsim.user}
    with sockets_left_open(), pytest.raises(vim.fault.InvalidLogin):
        SmartConnect(**where, pwd=vsim.password[:-1], sslContext=vsim.context())
    with sockets_left_open(), pytest.raises(ssl.SSLCertVerificationError):
        SmartConnect(**where, pwd=vsim.password, sslContext=ssl.create_default_context())


def test_a_call_without_session_starts_no_task(vsim: Vsim, client: Client) -> None:
    vm = client.vm("vm0001")
    client.content.sessionManager.Logout()
    with pytest.raises(vim.fault.NotAuthenticated):
        vm.CreateSnapshot_Task("s", "", False, False)
    with Client(vsim) as other:
        assert other.names(other.vm("vm0001")) == []


def test_a_machine_that_cannot_build_it_says_so_in_one_line(tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("bash", "cat", "cut", "dirname", "flock", "mkdir", "mktemp", "rm", "sha256sum"):
        (tools / name).symlink_to(shutil.which(name) or name)
    done = subprocess.run(
        [str(ROOT / "scripts" / "build-vsim.sh")],
        env={"PATH": str(tools), "STILLFRAME_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "apt-get" in done.stderr
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["lock"]


@pytest.mark.parametrize(
    ("ci", "outcome"), [("true", pytest.fail.Exception), ("", pytest.skip.Exception)]
)
def test_without_the_endpoint_tests_are_skipped_but_never_where_it_counts(
    monkeypatch: pytest.MonkeyPatch, ci: str, outcome: type[BaseException]
) -> None:
    monkeypatch.setattr(support_vsim, "_build", lambda: ("", "no network"))
    monkeypatch.setenv("CI", ci)
    with pytest.raises(outcome, match="no network"):
        support_vsim.Vsim({})


def test_a_test_in_which_the_endpoint_panicked_fails() -> None:
    vsim = Vsim(small_inventory(1, 1, 1))
    log = vsim.folder / "log"
    with pytest.raises(AssertionError, match="panic"), vsim, log.open("a") as file:
        file.write("panic in something\n")
    assert not vsim.folder.exists()
