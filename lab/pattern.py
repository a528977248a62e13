"""The records that a lab guest writes, as its writer (guest/writer.c) lays them out.

``pattern.bin`` in the root of a guest disk is a ring of records of ``record_bytes`` each: record
``n`` lies in slot ``n % (file_bytes / record_bytes)``. A record is a row of little-endian 64-bit
words: MAGIC, the sequence number n, the guest's time of day (a double, in seconds), ``n ^ SALT``,
and then word ``i`` is ``n * FACTOR + i`` modulo 2**64, so that every byte tells whose record it is.
A slot of zeros was never written.
"""

from __future__ import annotations

from dataclasses import dataclass

PATTERN_FILE = "pattern.bin"
MAGIC = 0x52454331
SALT = 0xABCDEF
FACTOR = 0x9E3779B97F4A7C15
HEADER_WORDS = 4


@dataclass(frozen=True, slots=True)
class PatternReport:
    """What the pattern file of one disk holds.

    Attributes
    ----------
    records:
        Whole records, each in the slot it belongs to.
    bad:
        Slots with something else in them.
    missing:
        Sequence numbers up to ``max_seq`` that the ring should still hold and does not.
    max_seq:
        The highest sequence number; -1 when there is no record.
    """

    records: int
    bad: int
    missing: int
    max_seq: int
