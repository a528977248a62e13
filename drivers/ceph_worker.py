"""The process that talks to a Ceph cluster: a script for an interpreter with ``rados`` and ``rbd``.

The bindings come with the distribution and fit only its own Python, so they cannot be imported
where Stillframe runs. This file imports nothing of Stillframe and is run as a program::

    /usr/bin/python3 ceph_worker.py CONF POOL TIMEOUT_S

It reads requests from stdin and writes answers to stdout, one JSON object per line, and ends with
its stdin, after what was begun. ``{"id": 1, "do": "listed", "prefix": ""}`` is answered by
``ok``, or by ``kind`` and ``error``. The first answer, number 0, says whether the
cluster was reached.

How a group snapshot is kept. An image can be in one group at a time, but may leave it while the
group's snapshots stay. So each tag gets a group of its own, ``stillframe.TAG``, for the moment of
the snapshot, and the name of the group's one snapshot, ``STAGE.TOKEN``, says how far things are and
tells it from an earlier one with the same tag:

=============  ==================================================================================
``making``     being made, or left behind by a process that died: never listed, swept
``complete``   renamed to this when librbd has it complete: listed
``leaving``    renamed to this before anything of it is deleted: never listed, swept
=============  ==================================================================================

The rename is one write to one object, so a crash leaves a snapshot on either side of it. Whoever
has the turn (``ceph_turn``) may sweep what does not say ``complete``.
"""

from __future__ import annotations

import base64
import errno
import itertools
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import rados  # type: ignore[import-not-found,unused-ignore]
import rbd  # type: ignore[import-not-found,unused-ignore]

# As a script this has its own folder on the path, and is part of no package.
from ceph_turn import RefusedError, Turn  # type: ignore[import-not-found,unused-ignore]

GROUP = "stillframe."
MAKING, COMPLETE, LEAVING = "making", "complete", "leaving"
COPYING = "stillframe-copying."
COPY_OF = "stillframe.copy_of"
"""The key in a copy's metadata that tells it from a unit."""
_THREADS = 8
_GROUP_NAMESPACE = 1
"""RBD_SNAP_NAMESPACE_TYPE_GROUP of librbd.h."""
_TRASH_NAMESPACE = 2
"""RBD_SNAP_NAMESPACE_TYPE_TRASH."""


class Pool:
    """One pool: its images, our groups, our copies. Methods block; several may run at once."""

    def __init__(self, cluster: Any, ioctx: Any, conf: str, timeout_s: float) -> None:
        self._io = ioctx
        self._instance = cluster.get_instance_id()
        self._rbd = rbd.RBD()
        self._numbers = itertools.count()
        self._parent = os.getppid()
        self._turn = Turn(cluster, ioctx, conf, timeout_s)

    def image(self, name: str) -> dict[str, Any]:
        """Size and kind of an image."""
        with self._open(name) as image:
            features = int(image.features())
            return {
                "size_bytes": int(image.size()),
                "exclusive_lock": bool(features & rbd.RBD_FEATURE_EXCLUSIVE_LOCK),
                "copy_of": dict(image.metadata_list()).get(COPY_OF, ""),
            }

    def snapshot(self, tag: str, images: list[str], fence_s: float) -> dict[str, Any]:
        """Snapshot these images at one point in time; begin and end of the call that did it."""
        with self._turn.taken():
            stage, token = self._stage(tag)
            if stage == COMPLETE:
                held = self._all_members()[tag]
                if set(held) != set(images):
                    raise RefusedError("never", f"a snapshot with this tag holds {', '.join(held)}")
                return {"token": token, "images": held, "begin_s": None, "end_s": None}
            for name in images:
                if not self.image(name)["exclusive_lock"]:
                    reason = f"image {name!r} has no exclusive lock: its writes cannot be held"
                    raise RefusedError("never", reason)
            try:
                return self._make(tag, images, fence_s)
            except BaseException:
                self._undo(tag)
                raise

    def _make(self, tag: str, images: list[str], fence_s: float) -> dict[str, Any]:
        try:
            group = self._filled(tag, images)
        except rbd.ObjectExists:
            self._sweep()  # a process that died left them in its group, or this very group
            try:
                group = self._filled(tag, images)
            except rbd.ObjectExists:
                raise RefusedError("never", self._whose(images)) from None
        token = f"{self._instance}-{next(self._numbers)}"
        begin_s = time.monotonic()
        group.create_snap(f"{MAKING}.{token}")
        end_s = time.monotonic()
        if end_s - begin_s > fence_s:
            held = f"writes were held for up to {end_s - begin_s:.3g} s"
            raise RefusedError("undone", f"{held}, the limit is {fence_s:g} s")
        if os.getppid() != self._parent:
            # On behalf of the dead somebody may have looked for the tag already.
            raise RefusedError("undone", "whoever asked for it has died")
        group.rename_snap(f"{MAKING}.{token}", f"{COMPLETE}.{token}")
        with suppress(rbd.Error):  # it is complete whatever happens here; a sweep finishes the rest
            self._empty(tag)
        return {"token": token, "images": images, "begin_s": begin_s, "end_s": end_s}

    def listed(self, prefix: str) -> list[dict[str, Any]]:
        """Tag, token and images of each complete group snapshot whose tag begins so."""
        stages = {tag: self._stage(tag) for tag in self._tags() if tag.startswith(prefix)}
        whole = {tag: token for tag, (stage, token) in stages.items() if stage == COMPLETE}
        members = self._all_members() if whole else {}
        return [
            {"tag": tag, "token": token, "images": members[tag]}
            for tag, token in whole.items()
            # Else its deletion has begun since, and some images may have left it.
            if self._stage(tag) == (COMPLETE, token)
        ]

    def delete(self, tag: str, token: str) -> None:
        """Delete a group snapshot."""
        with self._turn.taken():
            stage, found = self._stage(tag)
            if found != token or stage not in (COMPLETE, LEAVING):
                raise RefusedError("gone", "there is no such snapshot")
            if stage == COMPLETE:
                group = rbd.Group(self._io, GROUP + tag)
                group.rename_snap(f"{COMPLETE}.{token}", f"{LEAVING}.{token}")
            try:
                self._remove(tag, cut_off=stage == LEAVING)
            except rbd.Error as error:
                raise RefusedError("happened", f"it is no longer listed, but {error}") from None

    def read(self, tag: str, token: str, image: str, offset: int, length: int) -> str:
        """Bytes of an image as a group snapshot holds them, in base 64."""
        with self._at(tag, token, image) as opened:
            size = opened.size()
            if offset < 0 or length < 0 or offset + length > size:
                raise RefusedError("never", f"{length} bytes at {offset} are not within {size}")
            data: bytes = opened.read(offset, length)
        return base64.b64encode(data).decode()

    def copy(self, tag: str, token: str, image: str, name: str) -> dict[str, Any]:
        """Copy an image, as a group snapshot holds it, to a new image."""
        if name in self._rbd.list(self._io):
            raise RefusedError("never", f"there is an image {name!r} already")
        # A name that only this process uses: what a dead one left in the way of it stays locked
        # until its watch times out, after half a minute.
        half = f"{COPYING}{self._instance}.{name}"
        with self._at(tag, token, image) as opened:
            try:
                opened.copy(self._io, half)
            except rbd.ImageExists:
                raise RefusedError("busy", f"copy {name!r} is being made") from None
        try:
            with self._open(half, read_only=False) as made:
                made.metadata_set(COPY_OF, f"{image}@{tag}")
            self._rbd.rename(self._io, half, name)
        except rbd.ImageExists:
            self._rbd.remove(self._io, half)
            raise RefusedError("never", f"there is an image {name!r} already") from None
        return self.image(name)

    def discard(self, name: str) -> None:
        """Delete a copy; an image that is no copy is never touched."""
        if not self.image(name)["copy_of"]:
            raise RefusedError("gone", f"image {name!r} is no copy")
        self._rbd.remove(self._io, name)

    def sweep(self) -> None:
        """Remove what processes that died left half made or half deleted."""
        with self._turn.taken():
            self._sweep()
            for name in self._rbd.list(self._io):
                if name.startswith(COPYING):
                    self._drop_half(name)

    def _sweep(self) -> None:
        for tag in self._tags():
            if self._stage(tag)[0] != COMPLETE:
                self._remove(tag)
            else:
                self._empty(tag)

    def _undo(self, tag: str) -> None:
        # A cluster that has stopped answering would keep us here; the next to come sweeps.
        with suppress(rbd.Error, rados.Error):
            if tag in self._tags() and self._stage(tag)[0] != COMPLETE:
                self._remove(tag)

    def _remove(self, tag: str, *, cut_off: bool = True) -> None:
        """Remove a group and its snapshot; ``cut_off`` if somebody else may have begun to."""
        group = rbd.Group(self._io, GROUP + tag)
        for snapshot in list(group.list_snaps()):
            group.remove_snap(snapshot["name"])
        if cut_off:
            self._clear_trash(tag)
        self._empty(tag)
        self._rbd.group_remove(self._io, GROUP + tag)

    def _clear_trash(self, tag: str) -> None:
        """Remove what librbd had of a group's snapshot in the trash when its removal was cut off.

        It moves the snapshot of each image there first, and does not look there when it is asked
        again. Such a snapshot bears the group's id in the name that it had.
        """
        key = f"name_{GROUP}{tag}"
        with rados.ReadOpCtx() as asked:
            found, _ = self._io.get_omap_vals_by_keys(asked, (key,))
            self._io.operate_read_op(asked, "rbd_group_directory")
            ids = [value[4:].decode() for _, value in found]  # after the length, 32 bits
        beginnings = tuple(f".group.{self._io.get_pool_id()}_{one}_" for one in ids)
        for name in self._rbd.list(self._io) if beginnings else ():
            with suppress(RefusedError), self._open(name, read_only=False) as image:
                for one in list(image.list_snaps()):
                    of = one.get("trash", {}).get("original_name", "")
                    if one["namespace"] == _TRASH_NAMESPACE and of.startswith(beginnings):
                        image.remove_snap_by_id(one["id"])

    def _empty(self, tag: str) -> None:
        group = rbd.Group(self._io, GROUP + tag)
        for member in list(group.list_images()):
            group.remove_image(self._io, member["name"])

    def _filled(self, tag: str, images: list[str]) -> Any:
        self._rbd.group_create(self._io, GROUP + tag)
        group = rbd.Group(self._io, GROUP + tag)
        for name in images:
            group.add_image(self._io, name)
        return group

    def _whose(self, images: list[str]) -> str:
        for name in images:
            with self._open(name) as image:
                group = image.group()["name"]
            if group and not group.startswith(GROUP):
                return f"image {name!r} is in group {group!r}, and can be in one only"
        return "the group or one of its images was taken by somebody else"

    def _tags(self) -> list[str]:
        names = self._rbd.group_list(self._io)
        return sorted(name.removeprefix(GROUP) for name in names if name.startswith(GROUP))

    def _stage(self, tag: str) -> tuple[str, str]:
        """Stage and token of a tag's snapshot; "" without one, or when librbd has it incomplete."""
        try:
            found = list(rbd.Group(self._io, GROUP + tag).list_snaps())
        except rbd.ObjectNotFound:
            return "", ""
        whole = [one for one in found if one["state"] == rbd.RBD_GROUP_SNAP_STATE_COMPLETE]
        name = str(whole[0]["name"]) if len(found) == len(whole) == 1 else ""
        return name.partition(".")[0], name.partition(".")[2]

    def _all_members(self) -> dict[str, list[str]]:
        """By tag, the images in its snapshot: only the images know, once they left the group."""
        found: dict[str, list[str]] = {}
        for name in sorted(self._rbd.list(self._io)):
            # One that is deleted meanwhile had no snapshot.
            with suppress(RefusedError), self._open(name) as image:
                for snapshot in _group_snapshots(image):
                    found.setdefault(snapshot["group"]["name"].removeprefix(GROUP), []).append(name)
        return found

    @contextmanager
    def _open(self, name: str, *, read_only: bool = True) -> Iterator[Any]:
        try:
            image = rbd.Image(self._io, name, read_only=read_only)
        except rbd.ImageNotFound:
            raise RefusedError("gone", f"there is no image {name!r}") from None
        try:
            yield image
        finally:
            image.close()

    @contextmanager
    def _at(self, tag: str, token: str, name: str) -> Iterator[Any]:
        """An image as a complete group snapshot holds it."""
        if self._stage(tag) != (COMPLETE, token):
            raise RefusedError("gone", f"there is no snapshot {tag!r}")
        with self._open(name) as image:
            held = [one for one in _group_snapshots(image) if one["group"]["name"] == GROUP + tag]
            if not held:
                raise RefusedError("gone", f"snapshot {tag!r} does not hold image {name!r}")
            image.set_snap_by_id(held[0]["id"])
            yield image
        # What is deleted while it is read reads as zeros.
        if self._stage(tag) != (COMPLETE, token):
            raise RefusedError("gone", f"snapshot {tag!r} was deleted meanwhile")

    def _drop_half(self, half: str) -> None:
        with suppress(RefusedError, rbd.ImageNotFound, rbd.ImageBusy):
            with self._open(half) as image:
                if list(image.watchers_list()):
                    return  # it is being made, or whoever made it died a moment ago
            self._rbd.remove(self._io, half)


def _group_snapshots(image: Any) -> list[dict[str, Any]]:
    return [
        one
        for one in image.list_snaps()
        if one["namespace"] == _GROUP_NAMESPACE and one["group"]["name"].startswith(GROUP)
    ]


def _answer(number: int, work: Callable[[], Any]) -> dict[str, Any]:
    try:
        return {"id": number, "ok": work()}
    except RefusedError as error:
        return {"id": number, "kind": error.kind, "error": str(error)}
    except (rados.Error, rbd.Error, OSError) as error:
        kind = _KINDS.get(getattr(error, "errno", 0), "failed")
        return {"id": number, "kind": kind, "error": " ".join(str(error).split())}


_KINDS = {
    errno.EBUSY: "busy",
    errno.ENOSPC: "full",
    errno.ESHUTDOWN: "fenced",
    errno.ETIMEDOUT: "silent",
}


def _serve(number: int, work: Callable[[], Any]) -> None:
    answer = _answer(number, work)
    _tell(answer)
    if answer.get("kind") == "fenced":
        os._exit(1)  # the cluster never again takes anything from this process; a new one may ask


_telling = threading.Lock()


def _tell(answer: dict[str, Any]) -> None:
    # When nobody listens any more, what was begun is finished all the same.
    with _telling, suppress(BrokenPipeError):
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def main(conf: str, pool: str, timeout_s: float) -> int:
    """Serve until stdin ends; 1 when the cluster cannot be reached."""
    seconds = max(1, round(timeout_s))
    # Without these librados waits for ever.
    limits = ("client_mount_timeout", "rados_mon_op_timeout", "rados_osd_op_timeout")
    options = dict.fromkeys(limits, str(seconds))
    options |= dict.fromkeys(("log_to_stderr", "err_to_stderr"), "false")
    opened: list[Pool] = []

    def connect() -> None:
        cluster = rados.Rados(conffile=conf, rados_id="admin", conf=options)
        cluster.connect(timeout=seconds)
        opened.append(Pool(cluster, cluster.open_ioctx(pool), conf, timeout_s))

    _tell(_answer(0, connect))
    if not opened:
        return 1
    with ThreadPoolExecutor(_THREADS) as threads:
        for line in sys.stdin:
            request = json.loads(line)
            number, name = request.pop("id"), request.pop("do")
            method = getattr(opened[0], name)
            threads.submit(_serve, number, partial(method, **request))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], float(sys.argv[3])))
