"""docs/certify.md says what is so, and its example of a target is one."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

from stillframe.certify import ArrayTarget
from stillframe.certify.array_target import ArrayTarget as Arrays
from stillframe.certify.hypervisor_target import HypervisorTarget
from stillframe.certify.target import hooks_of

PAGE = Path(__file__).resolve().parents[1] / "docs" / "certify.md"


def test_the_example_of_a_target_is_one(tmp_path: Path) -> None:
    text = PAGE.read_text(encoding="utf-8")
    (source,) = re.findall(r"^```python my_target\.py\n(.*?)^```", text, re.M | re.S)
    names: dict[str, Any] = {}
    exec(compile(source, "my_target.py", "exec"), names)  # noqa: S102
    unit = {"devices": ["naa.600001", "serial.1"], "bytes": 1 << 20, "path": "/dev/x", "id": "a/1"}
    target: ArrayTarget = names["MyTarget"]({"units": [unit]}, tmp_path, 1)
    (made,) = asyncio.run(target.units())  # type: ignore[arg-type]
    assert [str(device) for device in made.devices] == unit["devices"]
    assert (made.capacity_bytes, made.path, made.unit_id) == (1 << 20, Path("/dev/x"), "a/1")
    assert not [hook for hook in hooks_of(Arrays) if target.offers(hook)]


def test_every_hook_is_on_the_page() -> None:
    table = PAGE.read_text(encoding="utf-8").partition("**Hooks**")[2].partition("###")[0]
    named = set(re.findall(r"`(\w+)`", table))
    hooks = {*hooks_of(Arrays), *hooks_of(HypervisorTarget)}
    assert not hooks - named
    assert (
        not {name for name in named if "_" in name}
        - hooks
        - {"array_target"}
        - {"hypervisor_target"}
    )
