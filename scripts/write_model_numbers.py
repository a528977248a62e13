"""Write docs/model-numbers.md: every default number of the model, with its source.

python scripts/write_model_numbers.py          (tests/test_docs.py checks that the page is current)
"""

from __future__ import annotations

from pathlib import Path

from stillframe.sim.array_profiles import ARRAY_PROFILES, ArrayProfile
from stillframe.sim.profiles import PROFILES, profile_sources_table

PAGE = Path(__file__).resolve().parents[1] / "docs" / "model-numbers.md"
HEAD = """# The model's numbers and their sources

This page is generated from the profiles (`python scripts/write_model_numbers.py`), so it says what
the model uses. Letters behind a source say how far it can be trusted: H (vendor's documentation or
several measurements), M (one measurement, or old), L (unsourced or far from it). A number whose
source is "inference" was chosen by us, for the reason given where there is one; replace it in a
scenario (`world.hypervisor`, `world.arrays`) when you know better; the report then says that you
did.
"""
TABLE = "\n| number | value | source |\n|---|---|---|\n"


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for name in PROFILES:
        parts.append(f"\n## Hypervisor profile `{name}`\n{TABLE}")
        for profile, field, value, source in profile_sources_table():
            if profile == name:
                shown = "no limit" if value == "none" else value
                parts.append(f"| `{field}` | {shown} | {source} |\n")
    for name, array in ARRAY_PROFILES.items():
        parts.append(f"\n## Array profile `{name}`\n{TABLE}")
        for field in type(array).model_fields:
            if field not in ("profile", "sources"):
                value = _array_value(array, field)
                parts.append(f"| `{field}` | {value} | {array.source_of(field)} |\n")
    return "".join(parts)


def _array_value(array: ArrayProfile, field: str) -> str:
    value = array.model_dump(mode="json")[field]
    unit = _unit(field)
    if value is None:
        return "no limit"
    return f"{value:,} {unit}".strip() if isinstance(value, int | float) else str(value)


def _unit(field: str) -> str:
    """The unit of a field, read off the quantity that its type annotation is."""
    example = ArrayProfile.model_json_schema()["properties"][field].get("examples", [""])[0]
    return {"250 ms": "s", "64 KiB": "B", "120 MiB/s": "B/s"}.get(example, "")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
