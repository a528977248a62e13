"""Write profiles on disk: one small ``.npz`` whose bytes depend on its content alone.

The file is a ZIP of NumPy arrays and ``metadata.json``, so ``numpy.load`` opens it as well. Unit
counts rise with duration and change little from phase to phase; their differences along both are
stored, which makes the file several times smaller. Entries carry no date and bzip2 has one
encoder, so building a profile again from the same trace gives the same file.
"""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, StillframeError
from .traceprofile import TraceProfile, TraceTotals, UnitCounts

FORMAT = "stillframe-write-profile"
FORMAT_VERSION = 1
DEFAULT_PROFILE = "cloudphysics-hour1"

_SHIPPED = Path(__file__).with_name("data")
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest date that a ZIP entry can have


@lru_cache(maxsize=1)
def shipped_profiles() -> tuple[str, ...]:
    """The names that :func:`load_profile` knows without a path."""
    return tuple(sorted(path.stem for path in _SHIPPED.glob("*.npz")))


def save_profile(profile: TraceProfile, path: str | Path) -> None:
    """Write a profile; the same profile always gives the same bytes.

    Raises
    ------
    InputError
        The file cannot be written.
    """
    metadata = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "name": profile.name,
        "source": profile.source,
        "period_s": profile.period_s,
        "duration_steps": profile.duration_steps,
        "granularities_bytes": profile.granularities_bytes,
        "totals": asdict(profile.totals),
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        text = json.dumps(metadata, indent=1, sort_keys=True, ensure_ascii=False)
        _add(archive, "metadata.json", text.encode())
        _add(archive, "step_bytes.npy", _npy(profile.step_bytes))
        for unit in profile.granularities_bytes:
            given = profile.units[unit]
            _add(archive, f"distinct_{unit}.npy", _npy(_packed(given.distinct)))
            _add(archive, f"touches_{unit}.npy", _npy(given.touches))
    try:
        Path(path).write_bytes(buffer.getvalue())
    except OSError as error:
        raise InputError(str(path), "", f"cannot be written: {error.strerror or error}") from error


def load_profile(name_or_path: str | Path = DEFAULT_PROFILE) -> TraceProfile:
    """A shipped profile by its name, or one from a file ending in ``.npz``.

    A shipped profile is read once and shared; profiles do not change.

    Raises
    ------
    InputError
        There is no such profile or file, or the file is not a whole write profile.
    """
    path = Path(name_or_path)
    if path.suffix == ".npz":
        return _load(path)
    if str(name_or_path) not in shipped_profiles():
        raise InputError(
            "write profile",
            "",
            f"{str(name_or_path)!r} is not known",
            f"shipped are {', '.join(shipped_profiles())}; a file's name ends in .npz",
        )
    return _load_shipped(str(name_or_path))


@lru_cache(maxsize=8)
def _load_shipped(name: str) -> TraceProfile:
    return _load(_SHIPPED / f"{name}.npz")


def _load(path: Path) -> TraceProfile:
    try:
        with zipfile.ZipFile(path) as archive:
            return _read(archive)
    except FileNotFoundError as error:
        raise InputError(str(path), "", "does not exist") from error
    except (OSError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(str(path), "", f"cannot be read as a write profile: {error}") from error
    except KeyError as error:
        raise InputError(str(path), "", f"is not a write profile: {error} is missing") from error
    except (ValueError, TypeError, StillframeError) as error:
        raise InputError(str(path), "", f"is not a write profile: {error}") from error


def _read(archive: zipfile.ZipFile) -> TraceProfile:
    metadata: dict[str, Any] = json.loads(archive.read("metadata.json"))
    if metadata["format"] != FORMAT or metadata["version"] != FORMAT_VERSION:
        raise ValueError(
            f"it says {metadata['format']} version {metadata['version']}, "
            f"known is {FORMAT} version {FORMAT_VERSION}"
        )
    return TraceProfile(
        name=metadata["name"],
        source=metadata["source"],
        period_s=float(metadata["period_s"]),
        duration_steps=[int(steps) for steps in metadata["duration_steps"]],
        units={
            int(unit): UnitCounts(
                _unpacked(_array(archive, f"distinct_{unit}.npy")),
                _array(archive, f"touches_{unit}.npy"),
            )
            for unit in metadata["granularities_bytes"]
        },
        step_bytes=_array(archive, "step_bytes.npy").astype(np.uint64),
        totals=TraceTotals(**metadata["totals"]),
    )


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    entry = zipfile.ZipInfo(name, date_time=_EPOCH)
    entry.create_system = 3  # the same on every platform
    archive.writestr(entry, content, compress_type=zipfile.ZIP_BZIP2, compresslevel=9)


def _npy(values: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, values, version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def _array(archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
    return np.lib.format.read_array(io.BytesIO(archive.read(name)), allow_pickle=False)


def _packed(counts: NDArray[np.uint32]) -> NDArray[np.int32]:
    """Differences along duration, then along phase, durations in rows."""
    rises = np.diff(counts.astype(np.int64), axis=1, prepend=0)
    return np.ascontiguousarray(np.diff(rises, axis=0, prepend=0).T, dtype="<i4")


def _unpacked(packed: NDArray[Any]) -> NDArray[np.uint32]:
    counts = packed.T.astype(np.int64).cumsum(axis=0).cumsum(axis=1)
    if counts.size and not 0 <= counts.min() <= counts.max() < 2**32:
        raise ValueError("a table holds counts outside 32 bits")
    return counts.astype(np.uint32)
