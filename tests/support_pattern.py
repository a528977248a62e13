"""Pattern files as a lab guest writes them, made in Python."""

from __future__ import annotations

import struct

from stillframe.lab.pattern import FACTOR, HEADER_WORDS, MAGIC, SALT


def record(seq: int, record_bytes: int) -> bytes:
    """Record number ``seq``; see lab/pattern.py."""
    count = record_bytes // 8
    words = [(seq * FACTOR + i) % 2**64 for i in range(count)]
    head = struct.pack("<QQdQ", MAGIC, seq, 1.5e9 + seq, seq ^ SALT)
    return head + struct.pack(f"<{count - HEADER_WORDS}Q", *words[HEADER_WORDS:])


def ring(records: int, slots: int, record_bytes: int) -> bytes:
    """A ring into which so many records have been written, from number 0 on."""
    newest = {seq % slots: seq for seq in range(records)}
    return b"".join(record(newest[slot], record_bytes) for slot in sorted(newest))
