"""``world: {profile_file: FILE}``: a world that begins with a profile fitted to live runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..sim.array_profiles import CONFIGURED
from ..sim.fitted_profile import load_fitted

KEY = "profile_file"


def with_profile_file(data: dict[str, Any], path: Path) -> dict[str, Any]:
    """A configuration's data with the profile file that its world names put into that world.

    What the configuration itself says of the hypervisor or of an array replaces what the file says,
    number by number. The result holds everything and no longer depends on the file.

    Parameters
    ----------
    data:
        As read from YAML.
    path:
        The configuration's file; the profile's is relative to it.

    Raises
    ------
    InputError
        The profile file cannot be used; the error names that file, field and value.
    """
    world = data.get("world")
    if not isinstance(world, dict) or not isinstance(world.get(KEY), str):
        return data
    section = load_fitted(path.parent / world[KEY]).world_section()
    own = {key: value for key, value in world.items() if key != KEY}
    return {**data, "world": {**own, **{key: _over(section[key], own.get(key)) for key in section}}}


def _over(file: Any, own: Any) -> Any:
    """What stands in the file, replaced by what the configuration says, mapping by mapping."""
    if own is None:
        return file
    if not isinstance(file, dict) or not isinstance(own, dict):
        return own
    merged = {**file, **{key: _over(file.get(key), value) for key, value in own.items()}}
    if isinstance(merged.get("sources"), dict):
        changed = dict.fromkeys(own.keys() - {"profile", "sources"}, CONFIGURED)
        merged["sources"] = {**merged["sources"], **changed, **own.get("sources", {})}
    return merged
