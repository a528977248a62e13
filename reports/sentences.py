"""What a run says, in whole sentences: the titles of the figures and the words of the report.

Every number in a sentence is computed from the run's tables; where nobody could see a quantity,
the sentence says so.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from ..quantity import format_bytes, format_seconds
from .rundata import RunData
from .stats import GUEST_LIMITS, over_limits, percentile, values_of

STATUS_WORDS = {
    "protected": "Every selected VM is protected",
    "partly-protected": "Some selected VMs are not protected",
    "failed": "The job failed",
    "cancelled": "The job was cancelled",
    "nothing-selected": "The selection matched no VM",
}


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the job: its name and what it did in this run."""

    name: str
    text: str


def count_of(count: int, singular: str, plural: str = "") -> str:
    """``1 VM``, ``2 VMs``, ``10,000 VMs``."""
    return f"{count:,} {singular if count == 1 else plural or singular + 's'}"


def share(part: int, whole: int, singular: str) -> str:
    """``all 12 VMs``, ``3 of 12 VMs``, ``none of 12 VMs``."""
    noun = singular if whole == 1 else singular + "s"
    if whole and part == whole:
        return f"all {whole:,} {noun}" if whole > 1 else f"the one {noun}"
    return f"{part or 'none':,} of {whole:,} {noun}" if part else f"none of {whole:,} {noun}"


def _some(count: int, singular: str) -> str:
    return count_of(count, singular) if count else f"no {singular}"


def upper_first(text: str) -> str:
    """The text with its first letter in upper case and the rest as it is."""
    return text[:1].upper() + text[1:]


def verdict(run: RunData) -> str:
    """How the job ended, how long it took and how little it touched."""
    job = run.job
    if run.meta["status"] == "nothing-selected":
        return "The selection matched no VM, so nothing was touched."
    return (
        f"{upper_first(share(job['protected'], job['selected'], 'selected VM'))} "
        f"{'is' if job['selected'] == 1 else 'are'} protected after "
        f"{format_seconds(job['makespan_s'])}; {job['targeted_units']:,} of "
        f"{count_of(job['estate_units'], 'storage unit')} "
        f"{'was' if job['targeted_units'] == 1 else 'were'} snapshotted."
    )


def frozen(run: RunData) -> str:
    """How many guests stayed below a time that says something, and the longest freeze."""
    values = values_of(run.vms, "quiesce_s")
    if len(values) == 0:
        return "No quiesce window was seen in this run"
    longest = float(values[-1])
    if len(values) == 1:
        return f"The one quiesced guest was frozen for {_no_longer(run, longest)}"
    # With nobody over a limit the spread says more than the limit does.
    limit = GUEST_LIMITS[0].limit_s
    below = limit if longest > limit else percentile(values, 95) or 0.0
    near = int(np.count_nonzero(values <= below))
    text = f"{upper_first(share(near, len(values), 'guest'))} were frozen for "
    text += _no_longer(run, below)
    if near == len(values):
        return f"{text}, half of them for {_no_longer(run, percentile(values, 50))}"
    bound = "at most " if has_bounds(run) else ""
    link = "but" if longest > limit else "and"
    return f"{text}, {link} the longest freeze took {bound}{format_seconds(longest)}"


def _no_longer(run: RunData, time_s: float | None) -> str:
    text = format_seconds(time_s)
    return f"at most {text}" if has_bounds(run) else f"{text} or less"


def has_bounds(run: RunData) -> bool:
    """Whether any quiesce window is only an upper bound."""
    return bool((~run.vms["quiesce_exact"].fill_null(True)).any())


def opened(run: RunData) -> str:
    """How long the job took, and how long its VM snapshots were open."""
    values = values_of(run.vms, "open_s")
    took = f"The job took {format_seconds(run.job['makespan_s'])}"
    if len(values) == 0:
        return f"{took}; no VM snapshot was opened and released"
    return (
        f"{took}; half of its VM snapshots were open for {format_seconds(percentile(values, 50))} "
        f"or less, the longest for {format_seconds(float(values[-1]))}"
    )


def deltas(run: RunData) -> str:
    """How much the guests wrote into open deltas, and what merging it took."""
    sizes, merges = values_of(run.vms, "delta_bytes"), values_of(run.vms, "merge_s")
    if len(merges) == 0:
        return "No delta was merged in this run"
    longest = f"the longest merge took {format_seconds(float(merges[-1]))}"
    if len(sizes) == 0:
        return f"Nobody saw how large the deltas grew; {longest}"
    return (
        f"Half of the deltas grew to {format_bytes(percentile(sizes, 50))} or less, "
        f"the largest to {format_bytes(float(sizes[-1]))}; {longest}"
    )


def array_calls(run: RunData) -> str:
    """How fast arrays answered, and for how long they held writes."""
    latencies, fences = values_of(run.calls, "snapshot_s"), values_of(run.calls, "fence_s")
    if len(latencies) == 0:
        return "No array snapshot was completed"
    text = f"{count_of(len(latencies), 'array snapshot')} took "
    if len(latencies) > 1:
        text += f"{format_seconds(percentile(latencies, 50))} in the median and at most "
    text += format_seconds(float(latencies[-1]))
    if len(fences):
        text += f"; no write was held for more than {format_seconds(float(fences[-1]))}"
    return text


def blast_radius(run: RunData) -> str:
    """How little of the estate was snapshotted, and who came along uninvited."""
    job = run.job
    return (
        f"{job['targeted_units']:,} of {count_of(job['estate_units'], 'storage unit')} "
        f"{'is' if job['targeted_units'] == 1 else 'are'} snapshotted for "
        f"{count_of(job['selected'], 'selected VM')}; "
        f"{_some(job['collateral'], 'collateral VM')} "
        f"{'come' if job['collateral'] > 1 else 'comes'} along"
    )


def waiting(run: RunData) -> str:
    """Which limit cost the most waiting."""
    rows = [row for row in run.meta["limiters"] if row["total_s"] > 0]
    if not rows:
        return "No call waited for a limit"
    first = max(rows, key=lambda row: float(row["total_s"]))
    return (
        f"The limit “{first['name']}” cost the most: {first['waited']:,} of "
        f"{count_of(first['calls'], 'call')} waited, the longest for "
        f"{format_seconds(first['longest_s'])}"
    )


def caution(run: RunData) -> str:
    """What a reader of the verdict must not overlook: arrays that were models; "" if none was."""
    live = run.meta.get("live")
    models = live.get("models") if isinstance(live, dict) else None
    if not models:
        return ""
    what = "is a model" if len(models) == 1 else "are models"
    return (
        f"{', '.join(models)} {what} beside live systems: nothing can be restored from what "
        f"this run calls protected there."
    )


def clearing(run: RunData) -> str:
    """The command that removes what a live run left behind; "" where nothing is, or none is known.

    A clause without capital letter or full stop.
    """
    live = run.meta.get("live")
    command = live.get("clearing_command") if isinstance(live, dict) else None
    if not run.meta["orphans"] or not command:
        return ""
    return (
        "the next run of this configuration recovers it from the journal; should the journal be "
        f"lost, this removes it first: {command}"
    )


def steps(run: RunData) -> list[Step]:
    """The five steps of a targeted array snapshot, with this run's numbers.

    A selection that matches nothing ends after the first.
    """
    if run.meta["status"] == "nothing-selected":
        return [Step("Find the storage units of the selected VMs", verdict(run))]
    return [_select(run), _snapshot_vms(run), _map(run), _snapshot_units(run), _release(run)]


def _select(run: RunData) -> Step:
    job = run.job
    return Step(
        "Find the storage units of the selected VMs",
        f"{upper_first(count_of(job['selected'], 'VM'))} were selected. Their disks lie on "
        f"{job['targeted_units']:,} of the estate's {count_of(job['estate_units'], 'storage unit')}"
        f" ({format_bytes(job['targeted_bytes'])} of {format_bytes(job['estate_bytes'])}), in "
        f"{count_of(run.groups.height, 'group')} by the strategy {run.meta['strategy']}. "
        f"{upper_first(_some(job['collateral'], 'further VM'))} that nobody selected "
        f"{'share' if job['collateral'] > 1 else 'shares'} these units.",
    )


def _snapshot_vms(run: RunData) -> Step:
    vms = run.vms
    made = vms["opened_s"].count()
    text = f"A VM snapshot was made of {share(made, vms.height, 'VM')}. {frozen(run)}."
    over = [row for row in over_limits(run) if row.over]
    if over:
        parts = [f"{row.over:,} over {row.limit.limit_s:.0f} s ({row.limit.name})" for row in over]
        text += f" Frozen for too long: {', '.join(parts)}."
    degraded = int(vms["degraded"].sum())
    if degraded:
        text += (
            f" {upper_first(count_of(degraded, 'guest'))} did not freeze and "
            f"{'was' if degraded == 1 else 'were'} taken crash-consistent instead."
        )
    return Step("Snapshot the VMs, with their guests quiesced", text)


def _map(run: RunData) -> Step:
    located = int((run.vms["units"].list.len() > 0).sum())
    spanning = int((run.vms["units"].list.len() > 1).sum())
    moved = int(run.vms["moved"].sum())
    text = (
        f"Where each VM lies was read from the metadata of its own snapshot, for "
        f"{share(located, run.vms.height, 'VM')}. {upper_first(_some(spanning, 'VM'))} "
        f"{'span' if spanning > 1 else 'spans'} more than one storage unit. "
    )
    text += (
        "No VM had moved since the plan was made."
        if moved == 0
        else f"{upper_first(count_of(moved, 'VM'))} had moved since the plan was made and "
        f"{'was' if moved == 1 else 'were'} protected where "
        f"{'it is' if moved == 1 else 'they are'} now."
    )
    return Step("Map them to storage units, as they lie now", text)


def _snapshot_units(run: RunData) -> Step:
    failed = run.calls.filter(pl.col("completed_s").is_null()).height
    text = f"{array_calls(run)}."
    if failed:
        text += f" {upper_first(count_of(failed, 'call'))} did not complete."
    skew = run.job["skew_s"]
    if skew is not None and run.calls.height > 1:
        text += f" Between the first and the last point in time lie {format_seconds(skew)}."
    return Step("Snapshot these units, those of a group on one array at one point in time", text)


def _release(run: RunData) -> Step:
    made, merged = run.vms["opened_s"].count(), run.vms["merged_s"].count()
    text = (
        f"The VM snapshots of {share(merged, made, 'VM')} were removed and merged. {deltas(run)}. "
        f"{upper_first(count_of(run.catalogue.height, 'VM'))} can be restored from the catalogue."
    )
    orphans = len(run.meta["orphans"])
    if orphans:
        text += f" {upper_first(count_of(orphans, 'object'))} of ours could not be removed."
        # Without a full stop, which a reader would copy with the command.
        text += f" {upper_first(clearing(run))}" if clearing(run) else ""
    return Step("Release the VM snapshots and catalogue what can be restored", text)
