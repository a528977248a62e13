"""The job's own search, at its end, for creates whose outcome nobody knows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..drivers.records import VmId
from .context import Context, VmWork
from .events import Kind
from .journal import Intent, IntentKind
from .reconcile import Manner, Reconciliation

SWEEP = "sweep"


async def sweep(
    context: Context,
    works: Mapping[VmId, VmWork],
    *,
    kept_tags: Iterable[str],
    completed: Iterable[str],
) -> list[str]:
    """Remove late completions; returns a sentence for each thing that may still be left behind.

    The search for a tag ends ``timeouts.settle`` seconds after the sweep began; what has not been
    found by then may exist all the same, and its intent stays open.

    Parameters
    ----------
    works:
        The VMs of the job, by identifier.
    kept_tags:
        Tags of array snapshots that are in the catalogue.
    completed:
        Tags of array snapshots whose create is known to be over.
    """
    over = frozenset(completed)
    search = Reconciliation(context, Manner(SWEEP), works.get, kept_tags=kept_tags, completed=over)
    left = await search.run()
    return [_orphan(context, intent, exists=intent.tag in over) for intent in left]


def _orphan(context: Context, intent: Intent, *, exists: bool) -> str:
    context.emit(Kind.ORPHAN, SWEEP, intent.object_id, intent.tag)
    what = "VM snapshot" if intent.kind is IntentKind.VM_SNAPSHOT else "array snapshot"
    doubt = "is not deleted" if exists else "may exist or may yet appear"
    return f"{what} {intent.tag} on {intent.object_id} {doubt}"
