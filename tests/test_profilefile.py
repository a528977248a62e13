"""Profile files: the same bytes every time, and one clear line for every damaged one."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from support_traces import EXTENT, GRAIN, REAL, ROOT, synthetic

from stillframe.errors import InputError, StillframeError
from stillframe.sim.calibrate import build_profile, calibrate_trace
from stillframe.sim.profilefile import load_profile, save_profile, shipped_profiles
from stillframe.sim.traceprofile import TraceProfile, UnitCounts


@pytest.fixture(scope="module")
def shipped() -> TraceProfile:
    return load_profile()


@pytest.fixture(scope="module")
def small() -> TraceProfile:
    return build_profile(synthetic(1), granularities=(GRAIN, EXTENT))


def test_saving_is_repeatable_and_loading_gives_it_back(
    tmp_path: Path, small: TraceProfile
) -> None:
    first, second = tmp_path / "a.npz", tmp_path / "b.npz"
    save_profile(small, first)
    save_profile(build_profile(synthetic(1), granularities=(EXTENT, GRAIN)), second)
    assert first.read_bytes() == second.read_bytes()
    again = load_profile(first)
    assert again.granularities_bytes == small.granularities_bytes
    for unit, given_units in small.units.items():
        assert np.array_equal(again.units[unit].distinct, given_units.distinct)
        assert np.array_equal(again.units[unit].touches, given_units.touches)
    assert again.totals == small.totals
    assert again.durations_s == small.durations_s
    assert again.delta_bytes(4.2, 13.0) == small.delta_bytes(4.2, 13.0)
    assert again.written_bytes(4.2, 13.0) == small.written_bytes(4.2, 13.0)
    third = tmp_path / "c.npz"
    save_profile(again, third)
    assert third.read_bytes() == first.read_bytes()
    with np.load(first) as arrays:  # the promise that NumPy opens it too
        assert "distinct_4096" in arrays.files


def test_shipped_profile_holds_the_known_totals(shipped: TraceProfile) -> None:
    assert "cloudphysics-hour1" in shipped_profiles()
    assert shipped.totals.records == 55_918
    assert shipped.totals.writes == 33_591
    assert shipped.totals.written_bytes == 1_209_739_776
    assert shipped.distinct_bytes(GRAIN) == 790_102_016
    assert shipped.granularities_bytes == (4096, 65536, 262144, 1048576)
    assert "libCacheSim" in shipped.source
    sizes = [shipped.delta_bytes(1700.0, 300.0, unit) for unit in shipped.granularities_bytes]
    assert sizes == sorted(sizes)
    assert load_profile() is shipped


@pytest.mark.skipif(not REAL.is_file(), reason=f"the trace {REAL.name} is not here")
def test_shipped_profile_is_what_the_trace_gives(tmp_path: Path, shipped: TraceProfile) -> None:
    source, _, _ = shipped.source.rpartition(" (SHA-256 ")
    profile, _ = calibrate_trace(REAL, name=shipped.name, source=source)
    fresh = tmp_path / "fresh.npz"
    save_profile(profile, fresh)
    data = ROOT / "sim" / "data" / "cloudphysics-hour1.npz"
    assert fresh.read_bytes() == data.read_bytes()


def test_unknown_profile_names_the_shipped_ones() -> None:
    with pytest.raises(InputError, match=r"'nobody' is not known \(shipped are cloudphysics"):
        load_profile("nobody")


def test_files_that_are_no_profile(tmp_path: Path, small: TraceProfile) -> None:
    path = tmp_path / "p.npz"
    with pytest.raises(InputError, match=r"p\.npz: does not exist"):
        load_profile(path)
    path.write_bytes(b"not a zip")
    with pytest.raises(InputError, match=r"p\.npz: cannot be read as a write profile"):
        load_profile(path)
    np.savez(path, a=np.zeros(3))
    with pytest.raises(InputError, match=r"p\.npz: is not a write profile.*metadata\.json"):
        load_profile(path)
    with pytest.raises(InputError, match="cannot be written"):
        save_profile(small, tmp_path / "no" / "folder.npz")


def rewrite(path: Path, name: str, content: bytes) -> None:
    """Replace one entry of a profile file."""
    with zipfile.ZipFile(path) as archive:
        entries = {entry: archive.read(entry) for entry in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for entry, old in entries.items():
            archive.writestr(entry, content if entry == name else old)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"version": 99}, "version 99, known is"),
        ({"period_s": -1.0}, "its period is -1.0 s"),
        ({"duration_steps": [3, 2]}, "its durations do not rise"),
        ({"duration_steps": [2, 3]}, "its last duration is 3 of"),
        ({"granularities_bytes": []}, "it has no table"),
        ({"granularities_bytes": [512]}, "distinct_512.npy"),
        ({"totals": {"records": 1}}, "missing"),
        ({"period_s": None}, "is not a write profile"),
    ],
)
def test_damaged_metadata_is_one_clear_line(
    tmp_path: Path, small: TraceProfile, change: dict[str, object], says: str
) -> None:
    path = tmp_path / "p.npz"
    save_profile(small, path)
    with zipfile.ZipFile(path) as archive:
        metadata = json.loads(archive.read("metadata.json"))
    rewrite(path, "metadata.json", json.dumps(metadata | change).encode())
    with pytest.raises(InputError, match=says) as caught:
        load_profile(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("table", "says"),
    [
        (np.full((17, 320), -1, dtype="<i4"), "counts outside 32 bits"),
        (np.zeros(7, dtype="<i4"), "is not a write profile"),
        (np.zeros((1, 1), dtype="<i4"), "of shape"),
        (np.array([{}], dtype=object), "Object arrays cannot be loaded"),
    ],
)
def test_damaged_tables_are_one_clear_line(
    tmp_path: Path, small: TraceProfile, table: np.ndarray, says: str
) -> None:
    path = tmp_path / "p.npz"
    save_profile(small, path)
    buffer = io.BytesIO()
    np.save(buffer, table)
    rewrite(path, "distinct_4096.npy", buffer.getvalue())
    with pytest.raises(InputError, match=says) as caught:
        load_profile(path)
    assert "\n" not in str(caught.value)


def test_damaged_bytes_are_refused(tmp_path: Path, small: TraceProfile) -> None:
    path = tmp_path / "p.npz"
    save_profile(small, path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"p\.npz"):
        load_profile(path)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda d, t: (d[:, ::-1].copy(), t), "falls with duration"),
        (lambda d, t: (d.astype(np.int64), t), "is int64 of shape"),
        (lambda d, t: (d[1:], t), "of shape"),
        (lambda d, t: (d, t[1:]), "touches at 4096 bytes are uint32 of shape"),
        (lambda d, t: (d, t + np.uint32(2**28)), "more than 31 bits"),
        (lambda d, t: (d + (np.arange(len(d)) == 3)[:, None].astype("u4"), t), "on the phase"),
    ],
)
def test_inconsistent_tables_are_refused(small: TraceProfile, damage: object, says: str) -> None:
    given_units = small.units[GRAIN]
    damaged = UnitCounts(*damage(given_units.distinct, given_units.touches))  # type: ignore[operator]
    with pytest.raises(StillframeError, match=says):
        TraceProfile(
            "x", "x", small.period_s, small.duration_steps, {GRAIN: damaged}, small.step_bytes,
            small.totals,
        )  # fmt: skip
