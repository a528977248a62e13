"""Both ways of keeping old data show the same: what was there at the cut."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillframe.sim.block_images import BlockFile, CopyImages, RedirectImages, UnitImages

FILES = (1, 2)
STEP = st.one_of(
    st.tuples(
        st.just("write"),
        st.sampled_from(FILES),
        st.lists(st.integers(0, 5), min_size=1, max_size=4),
    ),
    st.tuples(st.just("cut"), st.none(), st.none()),
    st.tuples(st.just("drop"), st.integers(0, 9), st.none()),
    st.tuples(st.just("delete"), st.just(2), st.none()),
)


class Plain:
    """The same unit kept the dear way: a whole copy at every cut."""

    def __init__(self) -> None:
        self.live: dict[int, dict[int, int]] = {file: {} for file in FILES}
        self.cuts: dict[int, dict[int, dict[int, int]]] = {}
        self.written: dict[int, set[tuple[int, int]]] = {}


@pytest.mark.parametrize("images", [RedirectImages, CopyImages])
@given(steps=st.lists(STEP, max_size=25))
def test_a_snapshot_shows_what_was_there_at_its_cut(
    images: type[UnitImages], steps: list[tuple[str, int | None, list[int] | None]]
) -> None:
    unit, plain, stamp, deleted = images(), Plain(), 0, False
    for file in FILES:
        unit.create(file, 4096)
    for number, (what, one, blocks) in enumerate(steps):
        if what == "write" and one is not None and blocks and not (deleted and one == 2):
            stamps = list(range(stamp, stamp + len(blocks)))
            stamp += len(blocks)
            unit.write(one, blocks, stamps)
            plain.live[one].update(zip(blocks, stamps, strict=True))
            for seen in plain.written.values():
                seen.update((one, block) for block in blocks)
        elif what == "cut":
            unit.cut(number, float(number))
            plain.cuts[number] = copy.deepcopy(plain.live)
            plain.written[number] = set()
        elif what == "drop" and plain.cuts:
            gone = sorted(plain.cuts)[(one or 0) % len(plain.cuts)]
            unit.drop(gone)
            del plain.cuts[gone], plain.written[gone]
        elif what == "delete" and not deleted:
            unit.delete(2)
            deleted = True
            del plain.live[2]
        for file, content in plain.live.items():
            assert unit.live(file) == content
        for cut, files in plain.cuts.items():
            for file, content in files.items():
                assert unit.read(cut, file) == content
            overwritten = len(plain.written[cut]) * 4096
            assert unit.overwritten_bytes(float(cut), 1e9, 4096) == overwritten


@pytest.mark.parametrize("images", [RedirectImages, CopyImages])
def test_an_extent_counts_once_however_many_of_its_blocks_are_written(
    images: type[UnitImages],
) -> None:
    unit = images()
    unit.create(1, 4096)
    unit.write(1, [0], [0])
    unit.cut(1, 10.0)
    unit.write(1, [0, 1, 2, 3, 4, 3], range(1, 7))
    assert unit.overwritten_bytes(10.0, 99.0, 4096) == 5 * 4096
    assert unit.overwritten_bytes(10.0, 99.0, 16384) == 2 * 16384
    unit.cut(2, 20.0)
    unit.write(1, [4, 9], [7, 8])
    assert unit.overwritten_bytes(10.0, 20.0, 4096) == 5 * 4096
    assert unit.overwritten_bytes(10.0, 99.0, 4096) == 6 * 4096
    assert unit.overwritten_bytes(20.0, 99.0, 4096) == 2 * 4096


@given(blocks=st.lists(st.integers(0, 10**12), unique=True, min_size=1))
def test_a_file_on_several_units_has_each_block_on_one_of_them(blocks: list[int]) -> None:
    units = [RedirectImages(), RedirectImages(), RedirectImages()]
    file = BlockFile(
        1,
        4096,
        [
            (f"u{n}", unit, share)
            for n, (unit, share) in enumerate(zip(units, (0.5, 0.3, 0.2), strict=True))
        ],
    )
    file.write(blocks, range(len(blocks)))
    parts = [unit.live(1) for unit in units]
    assert sum(map(len, parts)) == len(blocks)
    assert file.live() == dict(zip(blocks, range(len(blocks)), strict=True))
    for block in blocks:
        assert block in parts[file.place_of(block)]


def test_blocks_spread_over_units_by_their_shares() -> None:
    units = [RedirectImages(), RedirectImages()]
    file = BlockFile(1, 4096, [("u0", units[0], 0.25), ("u1", units[1], 0.75)])
    file.write(range(1000), range(1000))
    assert len(units[0].live(1)) == pytest.approx(250, abs=5)
