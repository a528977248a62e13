"""Orchestrators with a safeguard taken out, to have runs that fail."""

from __future__ import annotations

from typing import Any

import pytest

from stillframe.orchestrator.journal import Journal
from stillframe.orchestrator.recover import Recovery


def forget_to_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    """The job no longer looks, at its end, for what a failed call may have left."""

    async def sweeps_nothing(*_arguments: Any, **_options: Any) -> list[str]:
        return []

    monkeypatch.setattr("stillframe.orchestrator.job.sweep", sweeps_nothing)


def forget_to_recover(monkeypatch: pytest.MonkeyPatch) -> None:
    """Recovery takes every job over and looks for nothing."""

    async def recovers_nothing(
        journal: Journal, job_id: str, *_arguments: Any, **_options: Any
    ) -> Recovery:
        journal.finish("recovered")
        return Recovery(job_id)

    monkeypatch.setattr("stillframe.orchestrator.recover.recover_job", recovers_nothing)
