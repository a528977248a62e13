"""What the array keeps: blocks at places, and maps from blocks to places. Redirect-on-write.

A write puts its blocks at new places and points the unit's map there; a snapshot keeps the map.
Everything is in one SQLite file, so that a transaction is kept whole or not at all.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from zlib import crc32

BLOCK_BYTES = 4096
_ZEROES = bytes(BLOCK_BYTES)
_TABLES = """
create table if not exists volume (name text primary key, bytes integer, serial text);
create table if not exists place (id integer primary key, data blob);
create table if not exists live (
    volume text, block integer, place integer, primary key (volume, block)) without rowid;
create table if not exists snapshot (id integer primary key autoincrement, name text unique);
create table if not exists member (
    snapshot integer, volume text, primary key (snapshot, volume)) without rowid;
create table if not exists kept (
    snapshot integer, volume text, block integer, place integer,
    primary key (snapshot, volume, block)) without rowid;
"""


class Refused(Exception):
    """The array says no; ``code`` is for programs."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class Store:
    """Volumes and snapshots in one file."""

    def __init__(self, file: Path) -> None:
        self._database = sqlite3.connect(file, isolation_level=None)
        # The file outlives this process, not a loss of power: enough for an example.
        self._database.execute("pragma journal_mode = wal")
        self._database.execute("pragma synchronous = off")
        self._database.executescript(_TABLES)

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()

    def make_volume(self, name: str, size_bytes: int) -> None:
        """Make a volume, unless it is there."""
        serial = f"{crc32(name.encode()):08X}"
        self._database.execute(
            "insert or ignore into volume values (?, ?, ?)", (name, size_bytes, serial)
        )

    def volumes(self) -> list[tuple[str, int, str]]:
        """Name, size in bytes and serial number of each."""
        return list(self._database.execute("select name, bytes, serial from volume order by name"))

    def write(self, volume: str, offset: int, data: bytes) -> None:
        """Write whole blocks; kept when this returns."""
        with self._database:
            self._database.execute("begin immediate")
            for start in range(0, len(data), BLOCK_BYTES):
                put = self._database.execute(
                    "insert into place (data) values (?)", (data[start : start + BLOCK_BYTES],)
                )
                self._database.execute(
                    "insert or replace into live values (?, ?, ?)",
                    (volume, (offset + start) // BLOCK_BYTES, put.lastrowid),
                )

    def read(self, volume: str, offset: int, length: int, snapshot: str | None = None) -> bytes:
        """Whole blocks of a volume, or of a snapshot of it."""
        sizes = {one: size for one, size, _ in self.volumes()}
        if not 0 <= offset < offset + length <= sizes.get(volume, 0):
            raise Refused("range", f"volume {volume} has no bytes {offset} to {offset + length}")
        return b"".join(
            data for _, data in self._blocks(volume, offset, length, self._id_of(snapshot, volume))
        )

    def place(self, volume: str, offset: int, snapshot: str | None = None) -> int:
        """Where a block is kept; 0 for one that was never written."""
        ((place, _),) = self._blocks(volume, offset, BLOCK_BYTES, self._id_of(snapshot, volume))
        return place

    def cut(self, name: str, volumes: Sequence[str]) -> None:
        """Snapshot these volumes at one point in time."""
        known = {one for one, _, _ in self.volumes()}
        for volume in volumes:
            if volume not in known:
                raise Refused("unknown-volume", f"there is no volume {volume}")
        with self._database:
            self._database.execute("begin immediate")
            made = self._database.execute("insert into snapshot (name) values (?)", (name,))
            for volume in volumes:
                self._keep(made.lastrowid, volume)

    def _keep(self, number: int | None, volume: str) -> None:
        self._database.execute("insert into member values (?, ?)", (number, volume))
        self._database.execute(
            "insert into kept select ?, volume, block, place from live where volume = ?",
            (number, volume),
        )

    def snapshots(self) -> list[tuple[int, str, list[str]]]:
        """Number, name and volumes of each, oldest first."""
        return [
            (number, name, self.members(number))
            for number, name in self._database.execute("select id, name from snapshot order by id")
        ]

    def members(self, number: int) -> list[str]:
        """The volumes that a snapshot holds."""
        found = self._database.execute(
            "select volume from member where snapshot = ? order by volume", (number,)
        )
        return [volume for (volume,) in found]

    def drop(self, number: int) -> None:
        """Delete a snapshot, and what only it kept."""
        with self._database:
            self._database.execute("begin immediate")
            gone = self._database.execute("delete from snapshot where id = ?", (number,))
            if not gone.rowcount:
                raise Refused("not-found", f"there is no snapshot {number}")
            for table in ("member", "kept"):
                self._database.execute(f"delete from {table} where snapshot = ?", (number,))
            self._sweep()

    def clone(self, snapshot: str, volume: str, name: str) -> None:
        """A volume with the content that a snapshot holds of another."""
        number = self._id_of(snapshot, volume)
        sizes = {one: size for one, size, _ in self.volumes()}
        if name in sizes:
            raise Refused("exists", f"there is a volume {name} already")
        with self._database:
            self._database.execute("begin immediate")
            self.make_volume(name, sizes[volume])
            self._database.execute(
                "insert into live select ?, block, place from kept"
                " where snapshot = ? and volume = ?",
                (name, number, volume),
            )

    def discard(self, name: str) -> None:
        """Delete a volume that a clone made."""
        with self._database:
            self._database.execute("begin immediate")
            gone = self._database.execute("delete from volume where name = ?", (name,))
            if not gone.rowcount:
                raise Refused("not-found", f"there is no volume {name}")
            self._database.execute("delete from live where volume = ?", (name,))
            self._sweep()

    def _sweep(self) -> None:
        self._database.execute(
            "delete from place where id not in"
            " (select place from live union all select place from kept)"
        )

    def _id_of(self, snapshot: str | None, volume: str) -> int | None:
        if snapshot is None:
            return None
        found = self._database.execute(
            "select id from snapshot join member on snapshot = id where name = ? and volume = ?",
            (snapshot, volume),
        ).fetchone()
        if found is None:
            raise Refused("not-found", f"no snapshot {snapshot} holds volume {volume}")
        return int(found[0])

    def _blocks(
        self, volume: str, offset: int, length: int, number: int | None
    ) -> Iterator[tuple[int, bytes]]:
        table, of_snapshot = ("live", "") if number is None else ("kept", " and snapshot = :number")
        first, last = offset // BLOCK_BYTES, (offset + length) // BLOCK_BYTES
        found = self._database.execute(
            f"select block, place, data from {table} join place on place = id where"
            f" volume = :volume and block >= :first and block < :last{of_snapshot}",
            {"volume": volume, "first": first, "last": last, "number": number},
        )
        blocks = {block: (place, data) for block, place, data in found}
        return (blocks.get(block, (0, _ZEROES)) for block in range(first, last))
