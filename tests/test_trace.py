"""The .vscsi reader: what it takes, what it refuses and how it says so."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support_traces import REAL, record

from stillframe.errors import InputError
from stillframe.sim.trace import BlockTrace, read_vscsi


def refused(tmp_path: Path, content: bytes) -> str:
    path = tmp_path / "t.vscsi"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_vscsi(path)
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(str(path))
    return text.removeprefix(f"{path}: ")


@given(
    rows=st.lists(
        st.tuples(
            st.integers(0, 10**7),
            st.integers(0, 2**40),
            st.integers(0, 400),
            st.sampled_from([0x08, 0x28, 0xA8, 0x88, 0x0A, 0x2A, 0xAA, 0x8A]),
        ),
        min_size=1,
        max_size=30,
    ),
    start_us=st.integers(0, 2**62),
)
def test_reads_back_every_field(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, int, int, int]], start_us: int
) -> None:
    times_us = start_us + np.cumsum([row[0] for row in rows], dtype=object)
    path = tmp_path_factory.mktemp("trace") / "t.vscsi"
    path.write_bytes(
        b"".join(
            record(time_us, lbn, blocks * 512, command)
            for time_us, (_, lbn, blocks, command) in zip(times_us, rows, strict=True)
        )
    )
    trace = read_vscsi(path)
    assert trace.times_s.tolist() == [(time_us - times_us[0]) / 1e6 for time_us in times_us]
    assert trace.offset_bytes.tolist() == [lbn * 512 for _, lbn, _, _ in rows]
    assert trace.length_bytes.tolist() == [blocks * 512 for _, _, blocks, _ in rows]
    assert trace.is_write.tolist() == [command & 0x0F == 0x0A for _, _, _, command in rows]


def test_cut_off_in_the_middle_of_a_record(tmp_path: Path) -> None:
    text = refused(tmp_path, record(0) + record(1)[:20])
    assert text.startswith("record 2: is cut off: 20 of 32 bytes")


def test_empty_file(tmp_path: Path) -> None:
    assert refused(tmp_path, b"").startswith("is empty")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.vscsi: cannot be read: No such file"):
        read_vscsi(tmp_path / "nowhere.vscsi")


def test_a_folder_is_not_a_trace(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_vscsi(tmp_path)


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (record(5, command=0x42), "record 2: has unknown SCSI command 0x42"),
        (record(5, version=0x0200), "record 2: has layout version 2"),
        (record(5, length=1000), "record 2: has length 1000 bytes"),
        (record(5, lbn=2**60), f"record 2: has block number {2**60}"),
        (record(4_999_999), "record 2: has time 4999999 µs, before the record in front"),
    ],
)
def test_a_record_that_cannot_be_right(tmp_path: Path, bad: bytes, says: str) -> None:
    first = record(5_000_000)
    good = record(6_000_000)
    if "before" not in says:
        bad = bad[:24] + struct.pack("<Q", 5_500_000)
    assert refused(tmp_path, first + bad + good).startswith(says)


def test_the_block_number_is_judged_before_it_can_overflow(tmp_path: Path) -> None:
    path = tmp_path / "t.vscsi"
    path.write_bytes(record(0, lbn=2**54 - 1) + record(1))
    assert read_vscsi(path).offset_bytes[0] == (2**54 - 1) * 512


def trace_at(times_s: list[float]) -> BlockTrace:
    count = len(times_s)
    return BlockTrace(
        np.array(times_s, dtype=np.float64),
        np.ones(count, dtype=np.bool_),
        np.arange(count, dtype=np.int64) * 4096,
        np.full(count, 4096, dtype=np.int64),
    )


def test_period_is_the_span_and_one_mean_gap() -> None:
    assert trace_at([0.0, 1.0, 2.0, 3.0]).period_s == 4.0
    assert trace_at([0.0]).period_s == 0.0


def test_window_keeps_its_start_and_leaves_out_its_end() -> None:
    part = trace_at([0.0, 1.0, 2.0, 3.0]).window(1.0, 3.0)
    assert part.times_s.tolist() == [0.0, 1.0]
    assert part.offset_bytes.tolist() == [4096, 8192]
    assert re.search("from 1 s to 3 s", part.source)


@pytest.mark.skipif(not REAL.is_file(), reason=f"the trace {REAL.name} is not here")
def test_known_totals_of_the_real_trace() -> None:
    trace = read_vscsi(REAL)
    writes = trace.is_write
    assert len(trace) == 55_918
    assert np.count_nonzero(writes) == 33_591
    assert trace.length_bytes[writes].sum() == 1_209_739_776
    assert trace.times_s[-1] == pytest.approx(3598.599778)
