"""``make evidence-lab``: real guests on real arrays, and what is in the snapshots of their units.

On each of the three arrays a lab with four guests (one of them with two disks on two units), two
datastores on a unit each, and a third unit that carries nothing. Jobs run in processes of their
own, through the command line; every image that they report is judged by what is in it. Then the
controls that have to fail: jobs without quiescing, and cuts unit by unit. At last jobs in which the
job's process, a guest's QEMU or the array's daemon is killed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from rich.console import Console

from .evidence import Figure, write_evidence
from .evidence_lab_runs import OnArray, killed, on_array

ARRAYS = ("qsd", "xfs", "ceph")
CONSOLE = Console(stderr=True)


def figures_of(found: OnArray) -> list[Figure]:
    """The figures of one array."""
    name = found.array
    images, crash = found.quiesced, found.unquiesced
    clean = [one for one in images if one.level_found == "filesystem"]
    exact = [one for one in clean if all(0 <= end <= 1 for end in one.ends)]

    def all_of(what: str, count: int, total: int, unit: str) -> Figure:
        return Figure(f"{name}: {what}", count, unit, f"== {total} {unit}")

    return [
        Figure(f"{name}: jobs with quiescing, four guests each", found.jobs, "jobs"),
        all_of("of these, jobs that protected every guest", found.protected, found.jobs, "jobs"),
        all_of("images clean without replay", len(clean), len(images), "images"),
        Figure(
            f"{name}: bad or missing records in them",
            sum(one.bad + one.missing for one in images),
            "records",
            "== 0 records",
        ),
        all_of(
            "images that end at the last write acknowledged before the freeze",
            len(exact),
            len(images),
            "images",
        ),
        Figure(
            f"{name}: units in snapshots that carry no selected guest",
            found.strays,
            "units",
            "== 0 units",
        ),
        all_of(
            "control without quiescing: images reported as crash, and found to be that",
            sum(one.reported == "crash" and one.level_found == "crash" for one in crash),
            len(crash),
            "images",
        ),
        all_of(
            "control with units cut one by one, writes between: wide guest found torn",
            found.split_torn,
            found.split_tries,
            "cuts",
        ),
        Figure(
            f"{name}: units cut one by one at once: wide guest found torn",
            found.hasty_torn,
            f"of {found.hasty_tries} cuts",
        ),
        Figure(
            f"{name}: units cut by one group call: wide guest found torn, in "
            f"{found.group_tries} tries",
            found.group_torn,
            "cuts",
            "== 0 cuts",
        ),
        Figure(
            f"{name}: disks that lost an acknowledged write, guests off and on after the merges",
            found.lost_disks,
            "disks",
            "== 0 disks",
        ),
        Figure(f"{name}: files, markers and mounts left", found.left, "things", "== 0 things"),
        Figure(f"{name}: quiesce window of a guest, median", found.quiesce_ms, "ms"),
        Figure(f"{name}: array call, median", found.array_ms, "ms"),
        Figure(f"{name}: merge of a guest's delta, median", found.merge_ms, "ms"),
    ]


def figures_of_kills(array: str, found: list[dict[str, Any]]) -> list[Figure]:
    """What is left of jobs on one array in which somebody was killed."""

    def total(what: str) -> int:
        return sum(one[what] for one in found)

    figures = [
        Figure(
            f"{array}: kills of {who} in mid-job", sum(one["who"] == who for one in found), "kills"
        )
        for who in dict.fromkeys(one["who"] for one in found)
    ]
    for what, unit in (
        ("guests left frozen", "guests"),
        ("recoveries that did not end well", "recoveries"),
        ("overlays, markers and mounts left", "things"),
        ("array snapshots without entry, or the reverse", "snapshots"),
        ("disks that lost an acknowledged write", "disks"),
        ("images worth less than their entry says", "images"),
    ):
        figures.append(Figure(f"{array}, killed: {what}", total(what), unit, f"== 0 {unit}"))
    return figures


def main() -> None:
    """Run everything, and write the figures."""
    tell: Callable[[str], None] = lambda line: CONSOLE.print(line, highlight=False)  # noqa: E731
    chosen = sys.argv[1:] or ARRAYS
    figures: list[Figure] = []
    for array in chosen:
        figures += figures_of(on_array(array, tell))
    for array in chosen:
        figures += figures_of_kills(array, killed(array, tell))
    write_evidence("lab", figures)


if __name__ == "__main__":
    main()
