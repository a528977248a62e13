"""``stillframe catalog list``, ``show`` and ``verify``: what can be restored, and from what."""

from __future__ import annotations

import contextlib
import difflib
import fnmatch
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .cli_common import ExitCode, count, emit_json, notice, print_table, progress, say, table
from .errors import InputError
from .live_journal import read_journal
from .live_recover import in_utc, in_zone
from .orchestrator.journal import StoredEntry
from .quantity import format_seconds
from .scenarios.live import LiveConfig, load_live

if TYPE_CHECKING:
    from .live_keep import Verified

DAY_S = 86_400.0
_MOST_ROWS = 50


def list_command(
    config_path: Path | None, journal: Path | None, pattern: str | None, *, as_json: bool
) -> int:
    """The catalogue of a configuration, or of everything in a journal."""
    config = None if config_path is None else load_live(config_path)
    path = journal if config is None else config.journal
    assert path is not None  # noqa: S101  the command line has seen to it
    entries = _entries(path, None if config is None else config.name)
    if pattern is not None:
        matches = re.compile(fnmatch.translate(pattern), re.IGNORECASE).match
        entries = [one for one in entries if matches(one.vm_name) or matches(one.vm_id)]
    now_s = time.time()
    if as_json:
        emit_json([entry_json(one, now_s) for one in entries])
        return ExitCode.PROTECTED
    if not entries:
        say(f"The catalogue in {path} has no entry" + (" of such a VM." if pattern else "."))
        return ExitCode.PROTECTED
    vms = len({one.vm_id for one in entries})
    rows = table(
        f"{entries_counted(len(entries))} of {count(vms, 'VM')}, newest first",
        ("VM", "level", "point in time", "age", "units", "snapshots", "job"),
        right=(3, 4, 5),
    )
    for one in entries[:_MOST_ROWS]:
        rows.add_row(
            one.vm_name or one.vm_id,
            one.level.value,
            in_zone(one.point_in_time_s),
            age(now_s - one.point_in_time_s),
            str(len(one.unit_ids)),
            str(len(one.cuts)),
            one.job_id,
        )
    print_table(rows, len(entries), _MOST_ROWS)
    return ExitCode.PROTECTED


def show_command(config_path: Path, vm: str, *, as_json: bool) -> int:
    """Everything that one VM can be restored from."""
    config = load_live(config_path)
    known = _entries(config.journal, config.name)
    entries = [one for one in known if vm in (one.vm_id, one.vm_name)]
    if not entries:
        raise _unknown_vm(config, vm, known)
    now_s = time.time()
    if as_json:
        emit_json([entry_json(one, now_s) for one in entries])
        return ExitCode.PROTECTED
    for one in entries:
        _print_entry(one, now_s)
    return ExitCode.PROTECTED


def _unknown_vm(config: LiveConfig, vm: str, known: Sequence[StoredEntry]) -> InputError:
    names = sorted({name for one in known for name in (one.vm_name, one.vm_id)})
    near = difflib.get_close_matches(vm, names, n=1)
    advice = f"did you mean {near[0]!r}?" if near else "see `stillframe catalog list`"
    return InputError("VM", "", f"{config.journal} has no entry of a VM {vm!r}", advice)


def _print_entry(one: StoredEntry, now_s: float) -> None:
    say(f"{one.vm_name or one.vm_id} ({one.vm_id}), job {one.job_id}")
    say(f"  level          {one.level.value}")
    ago = age(now_s - one.point_in_time_s)
    say(f"  point in time  {in_zone(one.point_in_time_s)}, {ago} ago")
    say(f"  to restore     all {count(len(one.unit_ids), 'unit')}: {', '.join(one.unit_ids)}")
    for cut in one.cuts:
        say(f"                 as array {cut.array_id} holds them in snapshot {cut.snapshot_id}")
        say(f"                 (tag {cut.tag})")
    say("")


def verify_command(config_path: Path, *, as_json: bool) -> int:
    """Ask the arrays; 1 when they do not hold what the catalogue names, or more of ours."""
    from .live_keep import verify_live

    config = load_live(config_path)
    with contextlib.closing(read_journal(config.journal)) as store, progress("Verifying") as show:
        verified = verify_live(config, store, show, notice)
    if as_json:
        emit_json(_verified_json(verified))
    else:
        _print_verified(config, verified)
    return ExitCode.PROTECTED if verified.agrees else ExitCode.PARTLY


def _verified_json(verified: Verified) -> dict[str, Any]:
    found, now_s = verified.found, time.time()
    return {
        "agrees": verified.agrees,
        "good": len(found.good),
        "lost": [
            entry_json(one.entry, now_s) | {"gone": [cut.tag for cut in one.cuts]}
            for one in found.lost
        ],
        "unknown": [entry_json(one, now_s) for one in found.unknown],
        "unnamed": [
            {"array": ref.array_id, "snapshot": ref.snapshot_id, "tag": ref.tag}
            for ref in found.unnamed
        ],
        "silent": list(found.silent),
        "unfinished": [job.job_id for job in verified.unfinished],
        "models": verified.models,
    }


def _print_verified(config: LiveConfig, verified: Verified) -> None:
    found = verified.found
    lost = table("Entries that cannot be restored", ("VM", "point in time", "job", "gone"))
    for one in found.lost:
        entry = one.entry
        gone = ", ".join(f"{cut.tag} on {cut.array_id}" for cut in one.cuts)
        name = entry.vm_name or entry.vm_id
        lost.add_row(name, in_zone(entry.point_in_time_s), entry.job_id, gone)
    print_table(lost)
    unnamed = table("Array snapshots of ours in no entry", ("array", "snapshot", "tag"))
    for ref in found.unnamed:
        unnamed.add_row(ref.array_id, ref.snapshot_id, ref.tag)
    print_table(unnamed)
    for array_id in found.silent:
        say(f"Array {array_id} gave no answer; nobody can say what it holds.")
    for job in verified.unfinished:
        say(f"Job {job.job_id} is not finished: stillframe recover {config.source}")
    good = entries_counted(len(found.good))
    say(f"{good} can be restored: the arrays list every snapshot of each.")
    if found.unknown:
        say(f"{entries_counted(len(found.unknown))} may be: an array gave no answer.")
    for array_id in verified.models:
        say(f"But {array_id} is a model: it holds no data, nothing can be restored from it.")


def _entries(path: Path, name: str | None) -> list[StoredEntry]:
    """Entries of the jobs of one configuration (of all, if None), newest first."""
    with contextlib.closing(read_journal(path)) as store:
        jobs = {job.job_id for job in store.jobs() if name is None or job.name == name}
        entries = [one for one in store.entries() if one.job_id in jobs]
    return sorted(entries, key=lambda one: (-one.point_in_time_s, one.vm_name, one.vm_id))


def entry_json(one: StoredEntry, now_s: float) -> dict[str, Any]:
    """An entry for JSON; times in UTC."""
    return {
        "vm_id": one.vm_id,
        "vm_name": one.vm_name,
        "level": one.level.value,
        "point_in_time": in_utc(one.point_in_time_s),
        "age_s": round(now_s - one.point_in_time_s, 3),
        "units": list(one.unit_ids),
        "snapshots": [
            {"array": cut.array_id, "snapshot": cut.snapshot_id, "tag": cut.tag} for cut in one.cuts
        ],
        "job_id": one.job_id,
    }


def entries_counted(number: int) -> str:
    """``1 entry``, ``2 entries``."""
    return "1 entry" if number == 1 else f"{number:,} entries"


def age(span_s: float) -> str:
    """How long ago, in days from two days on."""
    span_s = max(0.0, span_s)
    return f"{span_s / DAY_S:.3g} d" if span_s >= 2 * DAY_S else format_seconds(span_s)
