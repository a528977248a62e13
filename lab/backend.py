"""What the lab asks of an array that it brings up: a protocol, one module per array behind it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol


class Backend(Protocol):
    """One array of a lab, with all its files in one folder.

    It keeps nothing in memory that :meth:`up` does not also leave in its folder, so that another
    process can make a second object for the same folder and end what this one began.
    """

    @property
    def driver(self) -> str:
        """The name of the driver for this array, as a configuration gives it."""
        ...

    @property
    def direct_io(self) -> bool:
        """Whether a loop device on one of its units may bypass the host's page cache."""
        ...

    async def up(self) -> list[Path]:
        """Bring it up; the files that stand for its units, in order.

        Returns when all of them can be read and written. When it fails, nothing is left running.
        """
        ...

    def settings(self) -> dict[str, Any]:
        """What a live configuration says of it, beside the driver's name."""
        ...

    async def kill(self) -> None:
        """End what serves the units as a crash would, and wait for the end.

        Raises StillframeError for an array that is no process.
        """
        ...

    async def restart(self) -> list[Path]:
        """After :meth:`kill`: bring it up again on the same data, under the same names."""
        ...

    async def down(self) -> None:
        """End everything, also after a crash or half way through :meth:`up`; repeating is fine."""
        ...
