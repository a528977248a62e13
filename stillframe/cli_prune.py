"""``stillframe prune``: what retention does not keep, deleted or only shown."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .cli_catalogue import age, entries_counted, entry_json
from .cli_common import ExitCode, count, emit_json, notice, print_table, progress, say, table
from .drivers.contracts import ConsistencyLevel
from .errors import InputError
from .live_journal import open_journal, read_journal
from .live_recover import in_zone
from .orchestrator.journal import StoredEntry
from .orchestrator.retention import Retention, newest_first
from .quantity import parse_seconds
from .scenarios.live import LiveConfig, load_live

if TYPE_CHECKING:
    from .live_keep import Foreseen
    from .orchestrator.prune import Pruned

_MOST_ROWS = 50


def prune_command(
    config_path: Path,
    keep_last: int | None,
    keep_within: str | None,
    *,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Prune, or show what pruning would do; 1 when something that should go stays."""
    from .live_keep import foresee_pruning, prune_live

    config = load_live(config_path)
    retention = _retention(config, keep_last, keep_within)
    if dry_run:
        with contextlib.closing(read_journal(config.journal)) as store, progress("Asking") as show:
            foreseen = foresee_pruning(config, store, retention, show, notice)
        _tell_foreseen(foreseen, retention, as_json=as_json)
        return ExitCode.PARTLY if foreseen.pruned.left else ExitCode.PROTECTED
    with contextlib.closing(open_journal(config.journal)) as store, progress("Pruning") as show:
        pruned = prune_live(config, store, retention, show, notice)
    _tell(pruned, as_json=as_json)
    return ExitCode.PARTLY if pruned.left else ExitCode.PROTECTED


def _retention(config: LiveConfig, keep_last: int | None, keep_within: str | None) -> Retention:
    update: dict[str, Any] = {}
    if keep_last is not None:
        update["keep_last"] = keep_last
    if keep_within is not None:
        try:
            update["keep_within"] = parse_seconds(keep_within)
        except ValueError as error:
            raise InputError("--keep-within", "", str(error)) from None
    retention = config.retention.model_copy(update=update)
    if retention.keep_last is retention.keep_within is retention.snapshots_per_unit is None:
        raise InputError(
            config.source,
            "retention",
            "nothing says what to keep",
            "write keep_last, keep_within or snapshots_per_unit there, or give --keep-last N or "
            "--keep-within TIME",
        )
    return retention


def _tell(pruned: Pruned, *, as_json: bool) -> None:
    if as_json:
        emit_json({"dry_run": False} | _numbers(pruned))
        return
    out = pruned.withdrawn + pruned.lost
    say(
        f"{entries_counted(out)} left the catalogue"
        + (f", {pruned.lost} of them lost on the arrays before" if pruned.lost else "")
        + f"; {pruned.kept:,} stay."
    )
    for sentence in pruned.left:
        say(f"Left: {sentence}.")


def _numbers(pruned: Pruned) -> dict[str, Any]:
    return {
        "removed": list(pruned.removed),
        "left": list(pruned.left),
        "withdrawn": pruned.withdrawn,
        "lost": pruned.lost,
        "kept": pruned.kept,
    }


def _tell_foreseen(foreseen: Foreseen, retention: Retention, *, as_json: bool) -> None:
    now_s = time.time()
    why = _reasons(foreseen, retention, now_s)
    if as_json:
        rows = [(one, True) for one in foreseen.going]
        rows += [(one, False) for one in foreseen.staying]
        emit_json(
            {"dry_run": True}
            | _numbers(foreseen.pruned)
            | {
                "entries": [
                    entry_json(one, now_s) | {"goes": goes, "why": why(one)} for one, goes in rows
                ],
                "snapshots": [
                    {"array": ref.array_id, "snapshot": ref.snapshot_id, "tag": ref.tag}
                    for ref in foreseen.deleted
                ],
            }
        )
        return
    _print_entries("Would go", foreseen.going, now_s, why)
    _print_entries("Would stay", foreseen.staying, now_s, why)
    going, staying = len(foreseen.going), len(foreseen.staying)
    say(
        f"{entries_counted(going)} would go, and {count(len(foreseen.deleted), 'array snapshot')} "
        f"with them; {staying:,} would stay. Nothing was touched."
    )
    for sentence in foreseen.pruned.left:
        say(f"Would be left: {sentence}.")


def _print_entries(
    title: str,
    entries: Sequence[StoredEntry],
    now_s: float,
    why: Callable[[StoredEntry], str],
) -> None:
    columns = ("VM", "level", "point in time", "age", "job", "because")
    rows = table(title, columns, right=(3,))
    for one in newest_first(entries)[:_MOST_ROWS]:
        rows.add_row(
            one.vm_name or one.vm_id,
            one.level.value,
            in_zone(one.point_in_time_s),
            age(now_s - one.point_in_time_s),
            one.job_id,
            why(one),
        )
    print_table(rows, len(entries), _MOST_ROWS)


def _reasons(
    foreseen: Foreseen, retention: Retention, now_s: float
) -> Callable[[StoredEntry], str]:
    """Why an entry stays, or goes; of several reasons the one that people look for first."""
    place: dict[tuple[str, str], int] = {}
    seen: dict[str, int] = {}
    newest_good: dict[str, str] = {}
    for one in newest_first([*foreseen.going, *foreseen.staying]):
        if not foreseen.is_lost(one):
            seen[one.vm_id] = place[one.job_id, one.vm_id] = seen.get(one.vm_id, 0) + 1
        if foreseen.is_good(one) and one.level is not ConsistencyLevel.UNKNOWN:
            newest_good.setdefault(one.vm_id, one.job_id)
    going = {(one.job_id, one.vm_id) for one in foreseen.going}
    too_old = _too_old(retention)

    def why(one: StoredEntry) -> str:
        last, within = retention.keep_last, retention.keep_within
        if foreseen.is_lost(one):
            return "an array no longer lists a snapshot of it"
        among = last is not None and place[one.job_id, one.vm_id] <= last
        young = within is not None and now_s - one.point_in_time_s <= within
        ruled = last is not None or within is not None
        if (one.job_id, one.vm_id) in going:
            return too_old if ruled and not among and not young else "a unit carries too many"
        if among:
            return f"among the newest {last} of its VM"
        if young:
            return f"younger than {age(within or 0.0)}"
        if newest_good.get(one.vm_id) == one.job_id:
            return "the last good one of its VM"
        return "its job has not ended, or an array gave no answer" if ruled else "there is room"

    return why


def _too_old(retention: Retention) -> str:
    parts = []
    if retention.keep_last is not None:
        parts.append(f"not among the newest {retention.keep_last} of its VM")
    if retention.keep_within is not None:
        parts.append(f"older than {age(retention.keep_within)}")
    return ", ".join(parts)
