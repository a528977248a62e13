"""The configuration of a world fits its estate, or is refused."""

from __future__ import annotations

from typing import Any

import pytest
from support_world import Bench, disk, estate, vm

from stillframe.errors import InputError
from stillframe.sim.config import WorldConfig


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"arrays": {"a9": {}}}, r"arrays\.a9: no such array \(there are a1, a2\)"),
        (
            {"working_directories": [{"match": "*", "datastore": "ds9"}]},
            r"working_directories\[0\]: the estate has no 'ds9'",
        ),
        ({"guests": [{"profile": "nothing"}]}, "'nothing' is not known"),
    ],
)
def test_a_world_that_the_estate_does_not_fit_is_refused(bad: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        Bench(estate(vm("a", disk(1, "ds1"))), WorldConfig.model_validate(bad))


def test_arrays_have_profiles_by_identifier_by_name_and_by_default() -> None:
    arrays = {
        "default": {"management_calls": 3},
        "a1": {"management_calls": 4},
        "two": {"management_calls": 5},
    }
    b = Bench(estate(), WorldConfig.model_validate({"arrays": arrays}))
    assert b.world.arrays["a1"].profile.management_calls == 4
    assert b.world.arrays["a2"].profile.management_calls == 5
    only_one = WorldConfig.model_validate({"arrays": {"a1": {}, "default": arrays["default"]}})
    assert only_one.array_profile("a2", "two").management_calls == 3
