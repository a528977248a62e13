"""A live lab: brought up, found again, used, taken down.

A lab outlives the process that made it. A :class:`Lab` holds no connection: it can be used from
any process and any event loop, several at a time for different guests.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path

from ..errors import InputError, StillframeError
from . import guests as guest_calls
from . import recorder
from .backend import Backend
from .cache import Cache
from .guest_build import guest_files
from .guests import Ack
from .host import all_of, run
from .labfile import (
    LabFile,
    LabGuest,
    Layout,
    check_place,
    create_lab_file,
    load_lab_file,
    save_lab_file,
    write_config,
    write_guest_file,
)
from .needs import check_host
from .pattern import PatternReport
from .saved import saved_state
from .spec import LabSpec, Writes
from .storage import (
    backend_of,
    make_datastores,
    make_disks,
    mount_datastores,
    unmount_datastores,
)
from .teardown import Tell, take_down


def _silent(_step: str) -> None:
    """Tell nobody."""


class Lab:
    """A lab that is there.

    Attributes
    ----------
    spec:
        What it consists of.
    folder:
        Where all of it lies.
    backend:
        Its array.
    guests:
        Its guests by name: ``vm-0``, ``vm-1``, ...
    units:
        The files that stand for the array's units, in order.
    took_s:
        Seconds per step of bringing it up.
    """

    def __init__(self, folder: Path, made: LabFile) -> None:
        self._layout = Layout(folder)
        self._made = made
        self.folder = folder
        self.spec = made.spec
        self.backend: Backend = backend_of(made.spec, self._layout.array)
        names = dict.fromkeys(disk.guest for disk in made.spec.disks())
        self.guests: dict[str, LabGuest] = {
            name: self._layout.guest(made.spec, name) for name in names
        }
        self.units = list(made.units)
        self.took_s = dict(made.took_s)

    @classmethod
    def open(cls, folder: Path) -> Lab:
        """The lab in a folder.

        Raises
        ------
        InputError
            There is none, or it did not come up whole.
        """
        folder = folder.resolve()
        made = load_lab_file(folder)
        if not made.ready:
            raise InputError(
                str(folder), "", "the lab did not come up", f"run `stillframe lab down {folder}`"
            )
        return cls(folder, made)

    @property
    def config_file(self) -> Path:
        """A live configuration for a job on all its guests."""
        return self._layout.config_file

    @property
    def datastores(self) -> list[Path]:
        """Where its datastores are mounted, in order."""
        return [self._layout.datastore(place.number) for place in self.spec.places()]

    def is_running(self, name: str) -> bool:
        """Whether a guest's QEMU runs."""
        return guest_calls.running(self._guest(name)) is not None

    def acks(self, name: str) -> list[Ack]:
        """All that a guest has acknowledged, oldest first, restarts or not."""
        return guest_calls.read_acks(self._ack_log(name))

    async def start_guest(self, name: str, *, cold: bool = False) -> None:
        """Start a guest on the newest files of its disks and mount them; no writer is started.

        Parameters
        ----------
        cold:
            Boot it (several seconds) instead of restoring the saved state.

        Raises
        ------
        StillframeError
            It runs already, does not start, or a file system of it cannot be mounted.
        """
        await guest_calls.start(self._guest(name), Cache(self._made.cache), cold=cold)

    async def stop_guest(self, name: str) -> None:
        """Stop a guest in good order: writer, file systems, QEMU. Fine if it is off."""
        await guest_calls.stop(self._guest(name))

    async def kill_guest(self, name: str) -> None:
        """Kill a guest's QEMU, as a crash of its host would. Fine if it is off."""
        await guest_calls.kill(self._guest(name))

    async def start_writer(self, name: str, writes: Writes | None = None) -> None:
        """Start a guest's writer; returns when its first record is acknowledged.

        It goes on behind the last record that all disks of the guest hold.

        Parameters
        ----------
        writes:
            What it writes; None for what the spec says, or the defaults where it says nothing. The
            sizes of records and file are part of what is on the disks: keep them, or expect old
            records to be found bad.
        """
        chosen = writes or self.spec.writer or Writes()
        await guest_calls.start_writer(self._guest(name), chosen, self._ack_log(name))

    async def stop_writer(self, name: str) -> None:
        """Stop a guest's writer after a whole record. Fine if none runs."""
        await guest_calls.stop_writer(self._guest(name))

    async def run_in_guest(self, name: str, shell: str) -> tuple[int, str]:
        """Run a shell script in a guest, through its agent; its exit code and what it wrote."""
        return await guest_calls.run_shell(self._guest(name), shell)

    async def check_in_guest(self, name: str, writes: Writes | None = None) -> list[PatternReport]:
        """What a guest finds in the pattern file of each of its disks; its writer must not run."""
        chosen = writes or self.spec.writer or Writes()
        return await guest_calls.check(self._guest(name), chosen)

    async def kill_array(self) -> None:
        """End what serves the units as a crash would; StillframeError for an array of files."""
        await self.backend.kill()

    async def restart_array(self) -> None:
        """Bring a killed array up again, and its datastores with it; the guests are off then.

        A guest whose disks were on an array that is gone cannot go on: its QEMU still holds files
        of a file system that is no more. All guests are killed; start those that are wanted.
        """
        for name in self.guests:
            await self.kill_guest(name)
        await unmount_datastores(self._layout, self.spec, self.units)
        self.units = await self.backend.restart()
        self._made = replace(self._made, units=tuple(self.units))
        save_lab_file(self.folder, self._made)
        await mount_datastores(
            self._layout, self.spec, self.units, direct_io=self.backend.direct_io
        )

    def _guest(self, name: str) -> LabGuest:
        try:
            return self.guests[name]
        except KeyError:
            known = ", ".join(self.guests)
            raise StillframeError(f"the lab has no guest {name!r}", f"it has {known}") from None

    def _ack_log(self, name: str) -> Path:
        return self._layout.acks / f"{self._guest(name).name}.log"


@asynccontextmanager
async def lab_up(
    spec: LabSpec, folder: Path, cache: Path | None = None, tell: Tell = _silent
) -> AsyncIterator[Lab]:
    """A lab for as long as the context lasts; it is taken down whatever happens in it.

    Parameters and errors are those of :func:`bring_up`.
    """
    lab = await bring_up(spec, folder, cache, tell)
    try:
        yield lab
    finally:
        await _down_even_if_cancelled(lab.folder, tell)


async def bring_up(
    spec: LabSpec, folder: Path, cache: Path | None = None, tell: Tell = _silent
) -> Lab:
    """Make a lab that stays until :func:`take_down`.

    Parameters
    ----------
    folder:
        Where all of it goes: absent or empty, and with a short path, for sockets lie in it.
    cache:
        Where the guest's files and saved states are kept; None for the default.
    tell:
        Hears each step before it is done.

    Raises
    ------
    InputError
        The folder or the machine cannot be used; nothing was made.
    StillframeError
        A step failed; nothing is left, the folder included.
    """
    check_host(spec.array)
    folder = check_place(folder)
    folder.mkdir(parents=True, exist_ok=True)
    create_lab_file(folder, LabFile(spec, cache))
    try:
        return await _Making(spec, folder, cache, tell).make()
    except BaseException:
        await _down_even_if_cancelled(folder, tell)
        raise


async def _down_even_if_cancelled(folder: Path, tell: Tell) -> None:
    """A second cancellation waits for the teardown instead of breaking it off."""
    going = asyncio.ensure_future(take_down(folder, tell))
    cancelled = False
    while not going.done():
        try:
            await asyncio.shield(going)
        except asyncio.CancelledError:
            if going.cancelled():
                raise
            cancelled = True
    going.result()
    if cancelled:
        raise asyncio.CancelledError


class _Making:
    """The steps that make a lab."""

    def __init__(self, spec: LabSpec, folder: Path, cache: Path | None, tell: Tell) -> None:
        self._spec, self._folder, self._cache = spec, folder, cache
        self._tell: Callable[[str], None] = tell
        self._layout = Layout(folder)
        self._took_s: dict[str, float] = {}

    async def make(self) -> Lab:
        """Make it, step by step."""
        with self._step("guest image"):
            await self._prepare()
        backend = backend_of(self._spec, self._layout.array)
        with self._step("array"):
            units = await backend.up()
        self._made = LabFile(self._spec, self._cache, tuple(units))
        save_lab_file(self._folder, self._made)
        lab = Lab(self._folder, self._made)
        with self._step("datastores"):
            await make_datastores(self._layout, self._spec, units, direct_io=backend.direct_io)
        with self._step("disks"):
            await make_disks(list(lab.guests.values()))
        with self._step("recorder"):
            await self._start_recorder(list(lab.guests))
        with self._step("guests"):
            await self._start_guests(lab)
        if self._spec.writer is not None:
            with self._step("writers"):
                await all_of(lab.start_writer(name) for name in lab.guests)
        write_config(self._layout, self._spec, backend.driver, backend.settings())
        save_lab_file(self._folder, replace(self._made, ready=True, took_s=self._took_s))
        return Lab.open(self._folder)

    @contextmanager
    def _step(self, name: str) -> Iterator[None]:
        self._tell(name)
        begun_s = time.monotonic()
        yield
        self._took_s[name] = time.monotonic() - begun_s

    async def _prepare(self) -> None:
        """Have the guest's files and states in the cache: the first time that takes a while."""
        cache = Cache(self._cache)
        files = await guest_files(cache)
        guests = Counter(disk.guest for disk in self._spec.disks())
        for disks in sorted(set(guests.values())):
            await saved_state(cache, files, disks, self._spec.disk_bytes)

    async def _start_recorder(self, names: Sequence[str]) -> None:
        self._layout.acks.mkdir()
        await run(sys.executable, "-I", recorder.__file__, self._layout.acks, *names)

    async def _start_guests(self, lab: Lab) -> None:
        for guest in lab.guests.values():
            guest.folder.mkdir(parents=True)
            write_guest_file(guest)
        await all_of(lab.start_guest(name) for name in lab.guests)
