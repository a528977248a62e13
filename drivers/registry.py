"""Finding drivers by name: the entry point group ``stillframe.drivers``.

A package that brings a driver names a factory in that group. The factory is called with the
identifier under which the job knows the system and with the system's settings, and answers with an
asynchronous context manager: entering it connects and gives the driver, leaving it disconnects.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from ..errors import StillframeError
from .contracts import ArrayDriver, HypervisorDriver

GROUP = "stillframe.drivers"

DriverFactory = Callable[
    [str, Mapping[str, Any]], AbstractAsyncContextManager[HypervisorDriver | ArrayDriver]
]
"""Called as ``factory(system_id, settings)``; what is wrong with the settings is an InputError."""


def driver_names() -> tuple[str, ...]:
    """The names of all installed drivers, in alphabetical order."""
    return tuple(sorted(_installed()))


def driver_factory(name: str) -> DriverFactory:
    """The factory that an entry point of the group names.

    Parameters
    ----------
    name:
        The entry point's name, as a configuration gives it: ``vsphere``.

    Raises
    ------
    StillframeError
        No installed package brings such a driver (the error lists those that there are), or its
        module cannot be imported (the error says which package is missing).
    """
    entry = _installed().get(name)
    if entry is None:
        known = ", ".join(driver_names()) or "none"
        raise StillframeError(f"there is no driver {name!r}", f"installed are {known}")
    try:
        factory = entry.load()
    except ModuleNotFoundError as error:
        raise StillframeError(
            f"driver {name!r} needs {error.name!r}, which is not installed", _install_advice(entry)
        ) from error
    except (ImportError, AttributeError) as error:
        raise StillframeError(
            f"driver {name!r} ({entry.value}) cannot be loaded: {error}"
        ) from error
    if not callable(factory):
        raise StillframeError(f"driver {name!r} ({entry.value}) is not a factory but {factory!r}")
    made: DriverFactory = factory
    return made


def _install_advice(entry: EntryPoint) -> str:
    """The extra that brings what a driver needs; by convention it has the driver's name."""
    brought_by = entry.dist
    if brought_by is None:
        return ""
    extras = brought_by.metadata.get_all("Provides-Extra") or []
    return f"install {brought_by.name}[{entry.name}]" if entry.name in extras else ""


def _installed() -> dict[str, EntryPoint]:
    # An installation from before a driver was added has stale metadata; a path listed twice gives
    # an entry point twice.
    importlib.invalidate_caches()
    return {entry.name: entry for entry in entry_points(group=GROUP)}
