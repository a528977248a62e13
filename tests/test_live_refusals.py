"""Commands on live systems that are refused: one line, and nothing is written."""

from __future__ import annotations

from pathlib import Path

import pytest
from support_live_front import World, config, refuse, world

from stillframe.drivers import registry
from stillframe.drivers.errors import DidNotHappenError
from stillframe.errors import InputError, StillframeError

__all__ = ["world"]  # a fixture


def test_a_driver_that_refuses_its_settings_is_quoted_with_the_place(world: World) -> None:
    world.fail_to_open["a1"] = InputError("array a1", "colour", "'mauve' is none", "try beige")
    line = refuse("run", "--live", config())
    assert line == "stillframe: live.yaml: arrays.a1.colour: 'mauve' is none (try beige)"
    assert world.closed == ["vc"]


def test_a_file_that_a_driver_refuses_keeps_its_own_name(world: World) -> None:
    Path("ca.pem").write_text("")
    world.fail_to_open["vc"] = InputError("ca.pem", "", "is empty")
    assert refuse("run", "--live", config()) == "stillframe: ca.pem: is empty"


def test_a_system_that_cannot_be_reached_fails_with_one_line(world: World) -> None:
    world.fail_to_open["vc"] = DidNotHappenError("connect", "vc", "refused", "is the port open?")
    line = refuse("run", "--live", config(), code=3)
    assert line == "stillframe: connect on vc failed: refused (is the port open?)"


def test_a_driver_in_the_wrong_section_is_refused(world: World) -> None:
    arrays = {"a1": {"driver": "memory"}, "other": {"driver": "memory"}}
    line = refuse("run", "--live", config(arrays=arrays))
    assert line == "stillframe: live.yaml: arrays.other.driver: driver 'memory' is not for arrays"
    line = refuse("run", "--live", config(hypervisors={"a1": {"driver": "memory"}}))
    assert "hypervisors.a1.driver: driver 'memory' is not for hypervisors" in line


def test_a_driver_that_answers_for_another_system_is_refused(world: World) -> None:
    systems = {"vc-9": {"driver": "memory"}}
    line = refuse("run", "--live", config(hypervisors=systems), code=3)
    assert "a driver answered for 'vc', which is not in live.yaml" in line


def test_nothing_selected_is_the_configurations_fault(world: World) -> None:
    job = {"select": {"include": {"name": "no-such-*"}}}
    for command in ("run", "plan"):
        line = refuse(command, "--live", config(job=job))
        assert "live.yaml: job.select: the selection matches no VM" in line
    assert not world.array.snapshots


def test_a_folder_of_somebody_else_is_refused_before_anything_is_opened(world: World) -> None:
    Path("mine").mkdir()
    Path("mine/thesis.tex").write_text("x")
    assert "holds something else" in refuse("run", "--live", config(), "--out", "mine")
    assert world.opened == []


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("run", "demo", "--live", "live.yaml"), "give a SCENARIO or --live CONFIG, not both"),
        (("plan", "demo", "--live", "live.yaml"), "give a SCENARIO or --live CONFIG, not both"),
        (("run", "--live", "live.yaml", "--seed", "1"), "--seed has no meaning with --live"),
        (("run",), "Missing argument 'SCENARIO'"),
        (("plan",), "Missing argument 'SCENARIO'"),
        (("run", "--live", "nowhere.yaml"), "nowhere.yaml: does not exist"),
        (("run", "--live", "live.yaml", "--strategy", "best"), "--strategy: 'best' is not known"),
        (("estate", "pull"), "--vcenter"),
        (("estate", "pull", "--vcenter", "root:hunter2@vc"), "is not the name of a host"),
        (("estate", "pull", "--vcenter", "vc:https"), "'https' in 'vc:https' is not a port"),
        (("estate", "pull", "--vcenter", ":443"), "':443' names no host"),
        (("estate", "pull", "--vcenter", "vc", "--vcenter", "vc:1"), "'vc' is named twice"),
        (("estate", "pull", "--vcenter", "vc", "--out", "live.yaml"), "live.yaml exists already"),
        (("rehearse", "live.yaml"), "give CONFIG and --estate FILE, or --compare"),
        (("rehearse", "--estate", "e.yaml"), "give CONFIG and --estate FILE, or --compare"),
        (("rehearse", "live.yaml", "--estate", "no.yaml"), "no.yaml: does not exist"),
        (("rehearse", "live.yaml", "--estate", "e", "--replications", "0"), "--replications"),
        (("rehearse", "live.yaml", "--estate", "e", "--out", "live.yaml"), "something else than"),
        (("rehearse", "live.yaml", "--estate", "e", "--out", "no/p.json"), "no does not exist"),
        (("rehearse", "live.yaml", "--compare", "a", "b"), "no more"),
        (("rehearse", "--compare", "live.yaml", "b"), "live.yaml: is not a prediction"),
        (("rehearse", "--compare", "no.json", "b"), "no.json: cannot be read"),
    ],
)
def test_bad_input_is_one_line_and_touches_nothing(
    world: World, args: tuple[str, ...], told: str
) -> None:
    config()
    line = refuse(*args)
    assert told in line
    assert "hunter2" not in line
    assert world.opened == []


def test_a_missing_driver_is_a_stillframe_error() -> None:
    with pytest.raises(StillframeError):
        registry.driver_factory("nothing")
