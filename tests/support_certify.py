"""Suites on the reference targets, for the tests of the kit."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stillframe.certify.array_suite import certify_array
from stillframe.certify.array_target import ArrayTarget
from stillframe.certify.effort import EFFORTS
from stillframe.certify.hypervisor_suite import certify_hypervisor
from stillframe.certify.hypervisor_target import HypervisorTarget
from stillframe.certify.outcome import SuiteResult
from stillframe.certify.requirement import Requirement
from stillframe.certify.running import SuiteOptions


def certified(
    kind: type[ArrayTarget] | type[HypervisorTarget],
    requirements: Sequence[Requirement[Any]],
    settings: Mapping[str, Any] | None = None,
    **options: Any,
) -> SuiteResult:
    """What a suite of these requirements says of a target, on the target's own loop."""
    chosen = SuiteOptions(**({"effort": EFFORTS["quick"]} | options))
    with tempfile.TemporaryDirectory() as folder:
        model = kind.settings_model
        checked = settings or {} if model is None else model.model_validate(settings or {})
        target = kind(checked, Path(folder), chosen.seed)
        with asyncio.Runner(loop_factory=target.new_loop) as runner:
            if isinstance(target, ArrayTarget):
                return runner.run(certify_array(target, chosen, requirements))
            return runner.run(certify_hypervisor(target, chosen, requirements))
