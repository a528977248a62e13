"""Single values of an RVTools export: numbers, paths, devices, NFS exports."""

from __future__ import annotations

import math
import re

from ..drivers.records import DeviceIdentity, DeviceKind, DiskMode, PowerState
from ..errors import StillframeError
from .rvtools_read import Cell, Row

MIB = 1024**2

_GROUPED = re.compile(r"^\d{1,3}(?:([.,' \u00a0\u202f])\d{3})(?:\1\d{3})*$")
_DATASTORE_PATH = re.compile(r"^\s*\[([^\]]+)\]")
_DELTA = re.compile(r"-\d{6}\.vmdk\s*$", re.IGNORECASE)
_VERSION = re.compile(r"\d+(?:\.\d+)+")
_VML = re.compile(r"^(?:vml\.)?02[0-9a-f]{8}([0-9a-f]{16,})$", re.IGNORECASE)
_URL_EXPORT = re.compile(r"^(?:netfs|nfs)://([^/]+)/+(.*)$", re.IGNORECASE)
_EXPORT = re.compile(r"^(\[[^\]]+\]|[^\s/:\[\]]+)\s*(?::\s*|\s+|(?=/))(/(?!/).*)$")

POWER_STATES = {
    "poweredon": PowerState.ON,
    "poweredoff": PowerState.OFF,
    "suspended": PowerState.SUSPENDED,
}
DISK_MODES = {
    "persistent": DiskMode.PERSISTENT,
    "independentpersistent": DiskMode.INDEPENDENT_PERSISTENT,
    "independentnonpersistent": DiskMode.INDEPENDENT_NONPERSISTENT,
}


def text(row: Row, column: str) -> str:
    """A cell as text; empty when there is none."""
    cell = row.get(column)
    return "" if cell is None else str(cell)


def word(row: Row, column: str) -> str:
    """A cell's letters in lower case, for comparing enumeration values."""
    return re.sub(r"[^a-z]", "", text(row, column).casefold())


def flag(row: Row, column: str) -> bool | None:
    """A cell as yes or no; None when it says neither."""
    value = text(row, column).casefold()
    if value in ("true", "yes", "1"):
        return True
    return False if value in ("false", "no", "0") else None


def number(cell: Cell) -> float | None:
    """A cell as a number that is finite and not negative; digits may be grouped in threes."""
    if cell is None or isinstance(cell, bool):
        return None
    if isinstance(cell, str):
        grouped = _GROUPED.match(cell)
        try:
            value = float(cell.replace(grouped[1], "") if grouped else cell)
        except ValueError:
            return None
    else:
        value = float(cell)
    return value if math.isfinite(value) and value >= 0 else None


def mebibytes(row: Row, column: str) -> int | None:
    """A cell in MiB as bytes; columns named MB hold MiB too."""
    value = number(row.get(column))
    return None if value is None else round(value * MIB)


def datastore_of(path: str) -> str | None:
    """The datastore of a path such as ``[ds] dir/x.vmdk``; None when it names none."""
    match = _DATASTORE_PATH.match(path)
    return (match[1].strip() or None) if match else None


def is_delta(path: str) -> bool:
    """Whether a disk's file is the delta of a VM snapshot (``-000001.vmdk``)."""
    return _DELTA.search(path) is not None


def dotted_version(release: str) -> str:
    """``8.0.2`` out of ``VMware ESXi 8.0.2 build-22380479``; empty when there is none."""
    match = _VERSION.search(release)
    return match[0] if match else ""


def device(name: str) -> DeviceIdentity | None:
    """A block device by its canonical name; None when the text is no such name."""
    try:
        found = DeviceIdentity.parse(name)
    except StillframeError:
        return None
    return None if found.kind is DeviceKind.NFS else found


def device_in_vml(name: str) -> DeviceIdentity | None:
    """The NAA identifier inside a ``vml.`` name, the form in which an RDM refers to its device.

    The form is ``02``, four bytes with the LUN number, the identifier, then the model as text. An
    NAA identifier of type 6 has 16 bytes, of types 2, 3 and 5 eight (SPC-4, 7.8.6.6). The form as
    a whole is not documented, so what is found here needs a confirmation from another column.
    """
    match = _VML.match(name.strip())
    if match is None:
        return None
    digits = {"6": 32, "2": 16, "3": 16, "5": 16}.get(match[1][0], 0)
    if not digits or len(match[1]) < digits:
        return None
    return DeviceIdentity(DeviceKind.NAA, match[1][:digits].lower())


def export(address: str) -> DeviceIdentity | None:
    """An NFS export in the forms seen in exports; None when server or path is missing.

    ``server:/path``, ``server /path``, ``server/path`` and ``netfs://server//path/``. Of several
    servers (NFS 4.1) the first counts.
    """
    match = _URL_EXPORT.match(address.strip()) or _EXPORT.match(address.strip())
    if match is None:
        return None
    server = match[1].split(",")[0].strip()
    path = match[2].strip().strip("/")
    if not server or not path:
        return None
    return DeviceIdentity.parse(f"{server}:/{path}")
