"""Listing: all complete snapshots whose tag begins so, each once, and no other."""

from __future__ import annotations

from collections.abc import Mapping

from ...drivers.contracts import GroupSnapshotRef
from ..array_bench import ArrayBench
from ..requirement import Level, NotTested, Topic
from .array_common import group_of, room_for

TOPIC: Topic[ArrayBench] = Topic("listing", "ARR-LST")

FEWEST = 10
"""Fewer snapshots than this say nothing of a listing that comes in pages."""


@TOPIC.shall(
    1,
    Level.CORE,
    "A driver shall list a snapshot as the call that made it answered: under the same handle, with "
    "the same units.",
    units=2,
)
async def as_it_was_made(bench: ArrayBench) -> None:
    room_for(bench, 2)
    made = [await bench.cut(*group_of(bench, size)) for size in (1, 2)]
    held = await bench.listed()
    for one in made:
        tag = one.ref.tag
        bench.expect(tag in held, "a snapshot that was made is not listed", tags=sorted(held))
        bench.expect(held[tag].ref == one.ref, "it is listed under another handle")
        same = sorted(held[tag].unit_ids) == sorted(one.unit_ids)
        units = {"made": list(one.unit_ids), "listed": list(held[tag].unit_ids)}
        bench.expect(same, "it is listed with other units", **units)
    bench.expect(len(held) == len(made), "snapshots are listed that nobody made", tags=sorted(held))


@TOPIC.shall(
    2,
    Level.CORE,
    "A driver shall tell the time of a cut in a listing as when it was made, or not at all.",
)
async def same_time(bench: ArrayBench) -> None:
    made = await bench.cut(bench.units[0])
    if made.cut_s is None and made.fence is None:
        raise NotTested("the driver tells no times")
    held = (await bench.listed()).get(made.ref.tag)
    bench.expect(held is not None, "a snapshot that was made is not listed")
    if held is not None:
        cut, fence = (made.cut_s, held.cut_s), (made.fence, held.fence)
        bench.expect(held.cut_s in (None, made.cut_s), "it is listed with another cut", told_s=cut)
        same = held.fence in (None, made.fence)
        bench.expect(same, "it is listed with another fence", told=repr(fence))


@TOPIC.shall(
    3, Level.CORE, "A driver shall list snapshots by the beginning of their tag, and nothing else."
)
async def by_prefix(bench: ArrayBench) -> None:
    start = bench.tag()
    # One tag holds another, but not at its beginning.
    inner = f"of-{start}-job-1"
    tags = await _cut_under(bench, start, "job-1", "job-12", "job-2", inner)
    asked = {"job-1": {"job-1", "job-12"}, "job-12": {"job-12"}, "of-": {inner}}
    asked |= {"job-": {"job-1", "job-12", "job-2"}, "ob-1": set(), "job-3": set(), "job-123": set()}
    await _expect_listed(bench, start, tags, asked)


@TOPIC.shall(
    4,
    Level.CORE,
    "A driver shall list all snapshots when the beginning that is asked for is empty.",
)
async def all_of_them(bench: ArrayBench) -> None:
    made = [await bench.cut(unit) for unit in bench.units]
    held = await bench.listed("")
    lacking = sorted(one.ref.tag for one in made if one.ref.tag not in held)
    bench.expect(not lacking, "snapshots are missing from the listing of all", tags=lacking)


@TOPIC.shall(
    5,
    Level.CORE,
    "A driver shall take the characters of a tag literally: letters, digits and - _ . : are no "
    "patterns.",
)
async def literal_characters(bench: ArrayBench) -> None:
    start = bench.tag()
    tags = await _cut_under(bench, start, "a_b", "a.b", "a:b", "axb")
    asked = {word: {word} for word in tags.values()} | {
        "a": set(tags.values()),
        "a_": {"a_b"},
        "a.": {"a.b"},
    }
    await _expect_listed(bench, start, tags, asked)


@TOPIC.shall(6, Level.CORE, "A driver shall tell tags apart that differ in the case of letters.")
async def case_of_tags(bench: ArrayBench) -> None:
    start = bench.tag()
    tags = await _cut_under(bench, start, "case", "Case", "CASE-2")
    asked = {"case": {"case"}, "Case": {"Case"}, "CASE": {"CASE-2"}, "cASE": set()}
    await _expect_listed(bench, start, tags, asked)


async def _cut_under(bench: ArrayBench, start: str, *words: str) -> dict[str, str]:
    """Snapshots of single units under tags that begin alike; by tag, its word."""
    tags = {f"{start}-{word}": word for word in words}
    for number, tag in enumerate(tags):
        await bench.cut(bench.units[number % len(bench.units)], tag=tag)
    return tags


async def _expect_listed(
    bench: ArrayBench, start: str, tags: dict[str, str], asked: dict[str, set[str]]
) -> None:
    """For the beginning of a word, the snapshots with these words have to be listed."""
    for beginning, wanted in asked.items():
        held = await bench.listed(f"{start}-{beginning}")
        found = {tags.get(tag, tag) for tag in held}
        seen = {"listed": sorted(found), "tags": sorted(tags.values())}
        bench.expect(found == wanted, f"asked for {beginning!r}, it lists others", **seen)


@TOPIC.shall(
    7,
    Level.CORE,
    "A driver shall list every snapshot once, however many there are.",
)
async def many(bench: ArrayBench) -> None:
    limit = bench.capabilities.snapshots_per_unit
    count = bench.effort.many
    if limit is not None:
        count = min(count, limit * len(bench.units))
    if count < FEWEST:
        raise NotTested(f"the scratch units take {count} snapshots, too few for a second page")
    wanted = {}
    for number in range(count):
        made = await bench.cut(bench.units[number % len(bench.units)])
        wanted[made.ref.tag] = made.ref
    await _expect_all(bench, wanted)
    for tag in bench.rng.sample(sorted(wanted), count // 2):
        await bench.delete(wanted.pop(tag))
    await _expect_all(bench, wanted)
    bench.note(snapshots=count)


async def _expect_all(bench: ArrayBench, wanted: Mapping[str, GroupSnapshotRef]) -> None:
    held = await bench.listed()
    lacking, more = sorted(set(wanted) - set(held)), sorted(set(held) - set(wanted))
    right = not lacking and not more
    sentence = f"of {len(wanted)} snapshots {len(lacking)} are not listed, and {len(more)} others"
    bench.expect(right, sentence, lacking=lacking, more=more)
    other = [tag for tag, one in held.items() if one.ref != wanted[tag]]
    bench.expect(not other, "snapshots are listed under another handle", tags=other)
