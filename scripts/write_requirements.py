"""Writes docs/requirements.md from the requirements of the kit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stillframe.certify.array_requirements import ARRAY_REQUIREMENTS
from stillframe.certify.hypervisor_requirements import HYPERVISOR_REQUIREMENTS
from stillframe.certify.requirement import Requirement

PAGE = Path(__file__).resolve().parents[1] / "docs" / "requirements.md"
HEAD = """# Requirements of drivers

What the conformance kit asks, and what each requirement needs to be tried: a capability that the
driver declares, hooks that the target offers, scratch units or VMs. [Certify a driver](certify.md)
says how. An identifier is never given to another requirement.
"""


def page() -> str:
    """The whole document."""
    parts = [HEAD]
    for title, requirements in (
        ("Array drivers", ARRAY_REQUIREMENTS),
        ("Hypervisor drivers", HYPERVISOR_REQUIREMENTS),
    ):
        parts.append(f"## {title} ({len(requirements)})\n")
        parts += _topics(requirements)
    return "\n".join(parts)


def _topics(requirements: tuple[Requirement[Any], ...]) -> list[str]:
    lines = []
    for topic in dict.fromkeys(one.topic for one in requirements):
        lines += [f"### {topic.capitalize()}\n", "| | level | | needs |", "|---|---|---|---|"]
        lines += [
            f"| {one.id} | {one.level} | {one.sentence} | {_needs(one)} |"
            for one in requirements
            if one.topic == topic
        ]
        lines.append("")
    return lines


def _needs(one: Requirement[Any]) -> str:
    parts = [f"`{one.capability}`"] if one.capability else []
    parts += [f"`{hook}`" for hook in one.hooks]
    if one.units > 1:
        parts.append(f"{one.units} units")
    parts += [f"VM {role}" for role in one.roles]
    return ", ".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
