"""Block traces of virtual disks: reading the ``.vscsi`` format that ESXi's tracer writes.

A trace is one array of fixed 32-byte little-endian records (layout version 1): serial number,
length in bytes, scatter-gather count, SCSI command, version, first block (of 512 bytes) and a
time stamp in microseconds. Nothing in the file says how many records there should be, so the
reader checks what it can: whole records, a known layout version, known commands, whole blocks
and a clock that never runs backwards. A trace that fails one of these is refused; a profile
built from half of a damaged trace would look like any other.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError

RECORD_BYTES = 32
BLOCK_BYTES = 512
RECORD = np.dtype(
    [
        ("serial", "<u4"),
        ("length_bytes", "<u4"),
        ("sg_count", "<u4"),
        ("command", "<u2"),
        ("version", "<u2"),
        ("lbn", "<u8"),
        ("time_us", "<u8"),
    ]
)

# READ and WRITE with 6, 10, 12 and 16 byte commands (SCSI Block Commands, SBC-3, table 13).
READ_COMMANDS = (0x08, 0x28, 0xA8, 0x88)
WRITE_COMMANDS = (0x0A, 0x2A, 0xAA, 0x8A)

_LAYOUT_VERSION = 1
# Beyond this block number offset_bytes would not fit 63 bits; no disk is 8 EiB.
_LBN_LIMIT = 2**54


@dataclass(frozen=True)
class BlockTrace:
    """The reads and writes of one virtual disk in time order; all arrays have one entry each.

    Parameters
    ----------
    times_s:
        Seconds since the first record, float64, never decreasing.
    is_write:
        True for a write, False for a read.
    offset_bytes, length_bytes:
        Where on the disk and how much, int64.
    source:
        The file or description the trace came from, for messages.
    """

    times_s: NDArray[np.float64]
    is_write: NDArray[np.bool_]
    offset_bytes: NDArray[np.int64]
    length_bytes: NDArray[np.int64]
    source: str = "trace"

    def __len__(self) -> int:
        return len(self.times_s)

    @property
    def period_s(self) -> float:
        """The time the trace stands for: its span plus one mean gap between records.

        A trace is used as a cycle, so the way from the last record back to the first needs a
        length as well. The mean gap makes the record rate of the cycle equal that of the trace.
        """
        gaps = len(self) - 1
        return float(self.times_s[-1] - self.times_s[0]) * (gaps + 1) / gaps if gaps > 0 else 0.0

    def window(self, start_s: float, end_s: float) -> BlockTrace:
        """The records with ``start_s <= time < end_s``, their times counted from ``start_s``."""
        first, last = np.searchsorted(self.times_s, [start_s, end_s], side="left")
        part = slice(int(first), int(last))
        return BlockTrace(
            self.times_s[part] - start_s,
            self.is_write[part],
            self.offset_bytes[part],
            self.length_bytes[part],
            f"{self.source} from {start_s:g} s to {end_s:g} s",
        )


def read_vscsi(path: str | Path) -> BlockTrace:
    """Read a ``.vscsi`` block trace.

    Parameters
    ----------
    path:
        A file of 32-byte records, layout version 1.

    Raises
    ------
    InputError
        The file cannot be read, is empty or cut off, or a record has another layout version, an
        unknown command, a length or place that is not one of whole blocks, or a time before that
        of the record in front of it. Records are counted from 1.
    """
    source = str(path)
    try:
        size = Path(path).stat().st_size
        raw = np.fromfile(path, dtype=RECORD)
    except OSError as error:
        raise InputError(source, "", f"cannot be read: {error.strerror or error}") from error
    if size == 0:
        raise InputError(source, "", "is empty", "a trace has at least two records")
    if size % RECORD_BYTES:
        raise InputError(
            source,
            f"record {size // RECORD_BYTES + 1}",
            f"is cut off: {size % RECORD_BYTES} of {RECORD_BYTES} bytes",
            "the file is truncated or not a .vscsi trace",
        )
    _check(raw, source)
    time_us = raw["time_us"]
    return BlockTrace(
        # Unsigned subtraction first: microseconds of an uptime do not all fit a float exactly.
        times_s=(time_us - time_us[0]).astype(np.float64) / 1e6,
        is_write=np.isin(raw["command"], WRITE_COMMANDS),
        offset_bytes=raw["lbn"].astype(np.int64) * BLOCK_BYTES,
        length_bytes=raw["length_bytes"].astype(np.int64),
        source=source,
    )


def _check(raw: NDArray[np.void], source: str) -> None:
    """Refuse the first record that cannot be right, naming its number and value."""
    # The major version is the high byte; layout 2 has 40-byte records in another order.
    major = raw["version"] >> 8
    _refuse(
        source,
        major != _LAYOUT_VERSION,
        major,
        "has layout version {}",
        f"only version {_LAYOUT_VERSION} with {RECORD_BYTES}-byte records is known",
    )
    _refuse(
        source,
        ~np.isin(raw["command"], READ_COMMANDS + WRITE_COMMANDS),
        raw["command"],
        "has unknown SCSI command {:#04x}",
        "known are READ and WRITE with 6, 10, 12 and 16 bytes",
    )
    _refuse(
        source,
        raw["length_bytes"] % BLOCK_BYTES != 0,
        raw["length_bytes"],
        "has length {} bytes",
        f"a length is a multiple of {BLOCK_BYTES} bytes",
    )
    _refuse(
        source,
        raw["lbn"] >= _LBN_LIMIT,
        raw["lbn"],
        "has block number {}",
        "no disk is that large; the file is damaged or not a .vscsi trace",
    )
    time_us = raw["time_us"]
    backwards = np.zeros(len(raw), dtype=np.bool_)
    backwards[1:] = time_us[1:] < time_us[:-1]
    _refuse(
        source,
        backwards,
        time_us,
        "has time {} µs, before the record in front of it",
        "time never runs backwards in a trace",
    )


def _refuse(
    source: str, bad: NDArray[np.bool_], values: NDArray[np.integer], problem: str, advice: str
) -> None:
    if not bad.any():
        return
    index = int(np.argmax(bad))
    raise InputError(source, f"record {index + 1}", problem.format(int(values[index])), advice)
