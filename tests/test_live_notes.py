"""A live run's notes say what an array does to the datastores, and what it cannot promise."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from stillframe.drivers.contracts import ArrayCapabilities
from stillframe.live_systems import Systems, notes_on
from stillframe.scenarios.live import LiveConfig

HOLDS = "Holds the writes of the datastores on a group's units"
TORN = "no common point in time"


@pytest.mark.parametrize(
    ("can", "said"),
    [
        (ArrayCapabilities(atomic_groups=True), ()),
        (ArrayCapabilities(atomic_groups=True, holds_writes=True), (HOLDS,)),
        (ArrayCapabilities(holds_writes=True), (HOLDS, TORN)),
        (ArrayCapabilities(), (TORN,)),
    ],
)
def test_how_an_array_cuts_a_group_is_said(can: ArrayCapabilities, said: tuple[str, ...]) -> None:
    config = LiveConfig.model_validate(
        {"name": "n", "hypervisors": {"h": {"driver": "d"}}, "arrays": {"a": {"driver": "x"}}}
    )
    array: Any = SimpleNamespace(capabilities=can)
    (note,) = [text for text in notes_on(config, Systems({}, {"a": array})) if "Array a" in text]
    assert [text for text in (HOLDS, TORN) if text in note] == list(said)
