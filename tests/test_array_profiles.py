"""Profiles of arrays: shipped, overridden, refused."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from stillframe.drivers.contracts import SnapshotMethod
from stillframe.sim.array_profiles import ARRAY_PROFILES, ArrayProfile


@pytest.mark.parametrize("name", ARRAY_PROFILES)
def test_shipped_profiles_are_valid_and_name_a_source_or_inference(name: str) -> None:
    profile = ARRAY_PROFILES[name]
    assert ArrayProfile.model_validate(profile.model_dump()) == profile
    assert profile.sources.keys() <= ArrayProfile.model_fields.keys()
    assert profile.source_of("retry_after") == "inference"
    assert "set in the configuration" not in profile.sources.values()
    with pytest.raises(KeyError):
        profile.source_of("colour")


def test_a_profile_is_a_start_that_fields_override() -> None:
    text = {"profile": "cow-hybrid", "snapshots_per_unit": 4, "fence_base": "250 ms"}
    profile = ArrayProfile.model_validate(text)
    assert profile.method is SnapshotMethod.COPY_ON_WRITE
    assert (profile.snapshots_per_unit, profile.fence_base) == (4, 0.25)
    assert profile.source_of("snapshots_per_unit") == "set in the configuration"
    assert "E-Series" in profile.source_of("on_pool_full")
    assert profile.io_bandwidth == ARRAY_PROFILES["cow-hybrid"].io_bandwidth


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"profile": "nobody"}, "cow-hybrid"),
        ({"method": "unknown"}, "cannot be modelled"),
        ({"color": 1}, "color"),
        ({"snapshot_extent": "0 B"}, "snapshot_extent"),
        ({"fence_base": "3 lightyears"}, "lightyears"),
    ],
)
def test_bad_profiles_are_refused(values: dict[str, Any], word: str) -> None:
    with pytest.raises(ValidationError, match=word):
        ArrayProfile.model_validate(values)
