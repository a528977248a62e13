"""What the kit does not ask: this driver's own settings and its password."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from stillframe.drivers.errors import DidNotHappenError, NeverWillError
from stillframe.errors import InputError

from acme_array.certification import AcmeTarget, AcmeTargetSettings
from acme_array.driver import open_acme


async def _connect(settings: Mapping[str, Any]) -> None:
    async with open_acme("acme-1", settings) as driver:
        assert await driver.list_snapshots("") == []


def test_settings_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACME_PASSWORD", "x")
    with pytest.raises(InputError, match="array acme-1: port: Field required"):
        asyncio.run(_connect({}))
    with pytest.raises(InputError, match="array acme-1: prot: Extra inputs"):
        asyncio.run(_connect({"port": 1, "prot": 2}))


def test_the_password_is_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ACME_PASSWORD", raising=False)
    with pytest.raises(InputError, match="ACME_PASSWORD: is not set"):
        asyncio.run(_connect({"port": 1}))


def test_a_wrong_password_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACME_PASSWORD", "right")

    async def main() -> None:
        async with AcmeTarget(AcmeTargetSettings(), tmp_path, 1) as target:
            async with target.connect() as driver:
                assert await driver.list_snapshots("") == []
            monkeypatch.setenv("ACME_PASSWORD", "wrong")
            with pytest.raises(NeverWillError, match="the password is wrong"):
                async with target.connect():
                    pass

    asyncio.run(main())


def test_an_array_that_is_not_there_is_said_to_be_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACME_PASSWORD", "x")
    with pytest.raises(DidNotHappenError, match=r"127\.0\.0\.1:1 does not answer"):
        asyncio.run(_connect({"port": 1}))
