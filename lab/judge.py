"""What the records of lab guests say of an image: whole, damaged, or torn between disks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from .pattern import FACTOR, HEADER_WORDS, MAGIC, SALT, PatternReport

_WORD_BYTES = 8


def judge_pattern(data: bytes, record_bytes: int, file_bytes: int) -> PatternReport:
    """Look at every byte of a pattern file.

    Parameters
    ----------
    data:
        The file; shorter than the ring as long as that has not been filled once.
    record_bytes:
        Size of one record, a multiple of 8.
    file_bytes:
        Size of the ring: whole records.

    Raises
    ------
    ValueError
        The sizes are not those of a ring of records.
    """
    if record_bytes % _WORD_BYTES or record_bytes <= HEADER_WORDS * _WORD_BYTES:
        raise ValueError(f"a record of {record_bytes} bytes cannot hold the pattern")
    if file_bytes <= 0 or file_bytes % record_bytes:
        raise ValueError(f"{file_bytes} bytes are no ring of records of {record_bytes}")
    slots = file_bytes // record_bytes
    whole_slots, rest = divmod(len(data), record_bytes)
    # A view, not a copy: the words of an array from bytes cannot be written to.
    words = np.frombuffer(data, dtype="<u8", count=whole_slots * record_bytes // _WORD_BYTES)
    table = words.reshape(whole_slots, record_bytes // _WORD_BYTES)
    whole = _whole(table, slots)
    written = table.any(axis=1)
    bad = int((written & ~whole).sum()) + bool(rest)
    numbers = table[whole, 1]
    max_seq = int(numbers.max()) if len(numbers) else -1
    return PatternReport(
        records=len(numbers),
        bad=bad,
        missing=_missing(set(numbers.tolist()), max_seq, slots),
        max_seq=max_seq,
    )


def _whole(table: npt.NDArray[np.uint64], slots: int) -> npt.NDArray[np.bool_]:
    """Which rows are a record in the slot it belongs to, to the last word."""
    good: npt.NDArray[np.bool_]
    seq = table[:, 1]
    slot = np.arange(len(table), dtype=np.uint64)
    # Of a slot behind the ring's end no record is the owner: a remainder is never that large.
    good = (table[:, 0] == MAGIC) & (table[:, 3] == seq ^ np.uint64(SALT))
    good &= seq % np.uint64(slots) == slot
    good &= seq < np.uint64(1 << 63)
    index = np.arange(HEADER_WORDS, table.shape[1], dtype=np.uint64)
    first = seq * np.uint64(FACTOR)  # modulo 2**64, as the guest reckons
    good &= (table[:, HEADER_WORDS:] == first[:, None] + index[None, :]).all(axis=1)
    return good


def _missing(numbers: set[int], max_seq: int, slots: int) -> int:
    """How many of the last records are not there; an older one may stand in the slot of one."""
    return sum(seq not in numbers for seq in range(max(0, max_seq - slots + 1), max_seq + 1))


def judge_pair(reports: Sequence[PatternReport]) -> str:
    """What contradicts one cut through the disks of a VM; empty when nothing does.

    A guest with several disks writes record n to the first, then to the next, and only then goes
    on to n + 1. So at any one point in time a later disk is never ahead of an earlier one, and the
    first is at most one record ahead of the last.

    Parameters
    ----------
    reports:
        Of the VM's disks, in the order in which its guest writes to them.
    """
    last = [report.max_seq for report in reports]
    for before, (one, other) in enumerate(pairwise(last)):
        if other > one:
            return f"disk {before + 1} holds record {other}, but disk {before} ends at {one}"
    if last and last[0] - last[-1] > 1:
        return f"disk 0 holds record {last[0]}, but disk {len(last) - 1} ends at {last[-1]}"
    return ""
