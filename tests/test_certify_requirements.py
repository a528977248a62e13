"""The list of requirements: complete, well formed, each with a canary; its page is current."""

from __future__ import annotations

import importlib.util
import re
from collections import Counter
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from stillframe.certify.array_requirements import ARRAY_REQUIREMENTS
from stillframe.certify.array_target import ArrayTarget
from stillframe.certify.canaries import ARRAY_CANARIES, HYPERVISOR_CANARIES
from stillframe.certify.canary import Canary
from stillframe.certify.hypervisor_requirements import HYPERVISOR_REQUIREMENTS
from stillframe.certify.hypervisor_target import ROLES, HypervisorTarget
from stillframe.certify.requirement import Requirement
from stillframe.certify.target import hooks_of
from stillframe.drivers.contracts import ArrayCapabilities, HypervisorCapabilities

ROOT = Path(__file__).resolve().parents[1]
KINDS: list[tuple[str, tuple[Requirement[Any], ...], tuple[Canary[Any], ...], Any, Any]] = [
    ("ARR", ARRAY_REQUIREMENTS, ARRAY_CANARIES, ArrayTarget, ArrayCapabilities),
    (
        "HYP",
        HYPERVISOR_REQUIREMENTS,
        HYPERVISOR_CANARIES,
        HypervisorTarget,
        HypervisorCapabilities,
    ),
]


@pytest.mark.parametrize(("prefix", "requirements", "canaries", "target", "able"), KINDS)
def test_requirements_are_well_formed(
    prefix: str, requirements: Any, canaries: Any, target: Any, able: Any
) -> None:
    ids = [one.id for one in requirements]
    assert not [one for one, count in Counter(ids).items() if count > 1]
    assert all(re.fullmatch(rf"{prefix}-[A-Z]{{3}}-\d\d", one) for one in ids)
    sentences = [one.sentence for one in requirements]
    assert len(set(sentences)) == len(sentences)
    assert all(re.fullmatch(r".*\bshall\b.*\.", one) for one in sentences)
    known = {field.name for field in fields(able)}
    for one in requirements:
        assert one.capability is None or one.capability in known
        assert set(one.hooks) <= set(hooks_of(target))
        assert set(one.roles) <= set(ROLES)
        assert one.units <= 4


@pytest.mark.parametrize(("prefix", "requirements", "canaries", "target", "able"), KINDS)
def test_every_requirement_has_a_canary(
    prefix: str, requirements: Any, canaries: Any, target: Any, able: Any
) -> None:
    ids = {one.id for one in requirements}
    assert len({one.id for one in canaries}) == len(canaries)
    assert {one.breaks for one in canaries} == ids
    for one in canaries:
        assert set(one.also) <= ids - {one.breaks}
        assert bool(one.also) is bool(one.because)


@pytest.mark.parametrize("script", ["write_requirements"])
def test_the_page_of_requirements_is_current(script: str) -> None:
    spec = importlib.util.spec_from_file_location(script, ROOT / "scripts" / f"{script}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.PAGE.read_text(encoding="utf-8") == module.page()
