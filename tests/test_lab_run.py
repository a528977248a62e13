"""Jobs on real guests and real arrays: what the run reports of each image holds in the image."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support_lab_run import (
    ON_EACH_ARRAY,
    Ran,
    acks_of,
    claim_of,
    configured,
    cut,
    judge,
    left_on,
    more_acks,
    run_job,
    standing_lab,
    systems,
    unit_ids,
    verify,
    verify_folder,
)

from stillframe.drivers.contracts import ConsistencyLevel
from stillframe.lab.lab import Lab
from stillframe.lab.spec import LabSpec
from stillframe.lab.verify import ImageLevel, ImageVerdict
from stillframe.lab.verify_image import look_at
from stillframe.live import new_job_id, run_live
from stillframe.reports.rundata import RunData
from stillframe.scenarios.live import load_live

WIDE = "vm-1"
GROUP_TRIES = {"qsd": 3, "xfs": 3, "ceph": 1}
"""A clone of a Ceph image is a full copy and takes its time."""
FEW = 5


@pytest.fixture(scope="module", params=ON_EACH_ARRAY)
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """Two guests, one of them with two disks on two units; a third unit that carries nothing."""
    spec = LabSpec(array=request.param, guests=2, wide=1, datastores=2, units=3)
    with standing_lab(spec) as made:
        yield made


@pytest.fixture(scope="module")
def ran(lab: Lab) -> Ran:
    """A quiesced job on it."""
    for name in lab.guests:
        asyncio.run(more_acks(lab, name, FEW))
    return run_job(lab.config_file, lab.folder / "quiesced")


@pytest.fixture(scope="module")
def unquiesced(lab: Lab) -> RunData:
    """A job that never asks a guest to freeze, in this process."""
    config = load_live(configured(lab, "unquiesced", quiesce={"policy": "skip"}))
    return run_live(config, new_job_id(), lambda _what, _share: None).run_data()


def test_every_guest_is_protected_at_the_level_of_its_file_system(lab: Lab, ran: Ran) -> None:
    assert ran.code == 0
    assert ran.data.vms["status"].to_list() == ["protected"] * len(lab.guests)
    assert ran.data.vms["level"].to_list() == ["filesystem"] * len(lab.guests)


def test_quiesced_images_are_clean_and_end_at_the_last_write_before_the_freeze(
    lab: Lab, ran: Ran
) -> None:
    code, answer = verify_folder(lab, ran.folder)
    assert (code, answer["holds"]) == (0, True), answer
    assert sorted(one["vm"] for one in answer["images"]) == sorted(ran.data.vms["vm_id"])
    for image in answer["images"]:
        assert image["level_found"] == "filesystem", image
        assert (image["fsck_clean"], image["replayed"]) == (True, False)
        assert (image["bad"], image["missing"]) == (0, 0)
        # The freeze had been answered when the overlay began: nothing was on its way any more.
        for last in image["max_seq"]:
            assert image["acked_before"] <= last <= image["acked_before"] + 1
        assert image["acked_before"] >= FEW - 1
    assert {len(one["max_seq"]) for one in answer["images"]} == {1, 2}


def test_only_units_with_selected_guests_are_snapshotted(lab: Lab, ran: Ran) -> None:
    async def main() -> tuple[list[str], set[str]]:
        async with systems(lab) as opened:
            array = opened.arrays["array"]
            held = await array.list_snapshots("stillframe-")
            return await unit_ids(lab, array), {unit for one in held for unit in one.unit_ids}

    units, held = asyncio.run(main())
    assert ran.data.calls["units"].explode().unique().sort().to_list() == units[:2]
    assert held == set(units[:2])


def test_the_images_of_a_run_name_the_files_of_every_disk(lab: Lab, ran: Ran) -> None:
    named = set(ran.data.images.select("vm_id", "path").iter_rows())
    files = {
        (f"host/{guest.name}", str(disk.file))
        for guest in lab.guests.values()
        for disk in guest.disks
    }
    assert named == files


def test_guests_go_on_and_nothing_of_the_job_is_left(lab: Lab, ran: Ran) -> None:
    assert ran.code == 0
    for name in lab.guests:
        asyncio.run(more_acks(lab, name, FEW))
    assert left_on(lab) == []


def test_without_quiescing_the_level_is_crash_and_the_images_are_just_that(
    lab: Lab, unquiesced: RunData
) -> None:
    assert set(unquiesced.vms["level"]) == {"crash"}
    verdicts = asyncio.run(verify(lab, unquiesced))
    assert len(verdicts) == len(lab.guests)
    for found in verdicts:
        assert (found.level_found, found.replayed) == (ImageLevel.CRASH, True), found
        assert (found.fsck_clean, found.bad, found.missing) == (True, 0, 0)
        assert found.acked_before is not None
        assert min(found.max_seq) >= found.acked_before
        assert found.holds
        assert not replace(found, level_reported=ConsistencyLevel.FILESYSTEM).holds


def test_a_cut_unit_by_unit_tears_a_guest_with_disks_on_both(lab: Lab) -> None:
    async def main() -> ImageVerdict:
        async with systems(lab) as opened:
            array = opened.arrays["array"]
            units = await unit_ids(lab, array)
            first = await cut(array, "test-split-0", units[0])
            await more_acks(lab, WIDE, FEW)
            second = await cut(array, "test-split-1", units[1])
            refs = {units[0]: first.ref, units[1]: second.ref}
            (verdict,) = await judge(lab, opened, [claim_of(lab, WIDE, refs, units=units)])
            for made in (second, first):
                await array.delete_snapshot(made.ref)
            return verdict

    verdict = asyncio.run(main())
    assert verdict.level_found is ImageLevel.TORN, verdict
    assert not verdict.holds
    assert max(verdict.max_seq) - min(verdict.max_seq) >= FEW


def test_a_group_call_never_tears_it(lab: Lab) -> None:
    tries = GROUP_TRIES[lab.spec.array]

    async def main() -> list[ImageVerdict]:
        verdicts = []
        async with systems(lab) as opened:
            array = opened.arrays["array"]
            units = await unit_ids(lab, array)
            for number in range(tries):
                await more_acks(lab, WIDE, 2)
                made = await cut(array, f"test-group-{number}", *units[:2])
                refs = dict.fromkeys(units[:2], made.ref)
                verdicts += await judge(lab, opened, [claim_of(lab, WIDE, refs, units=units)])
                await array.delete_snapshot(made.ref)
        return verdicts

    verdicts = asyncio.run(main())
    assert [one.level_found for one in verdicts] == [ImageLevel.CRASH] * tries, verdicts


def test_no_acknowledged_write_is_lost_when_a_guest_is_off_and_on_again(
    lab: Lab, ran: Ran, unquiesced: RunData, tmp_path: Path
) -> None:
    """After its merges: one guest stopped in good order, one as by a power failure."""
    assert (ran.code, unquiesced.meta["status"]) == (0, "protected")

    async def main() -> None:
        await lab.stop_guest("vm-0")
        await lab.kill_guest(WIDE)
        stopped = await look_at(lab.guests["vm-0"].disks[0].file, tmp_path, lab.spec.writer)
        assert (stopped.replayed, stopped.fsck_clean) == (False, True), stopped
        for name in lab.guests:
            acked = acks_of(lab)[name][-1].seq
            await lab.start_guest(name)
            for report in await lab.check_in_guest(name):
                assert (report.bad, report.missing) == (0, 0)
                assert report.max_seq >= acked

    asyncio.run(main())
    assert left_on(lab) == []
