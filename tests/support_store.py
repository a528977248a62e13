"""What tests of stores have in common: records to put in, and a clock to turn."""

from __future__ import annotations

from collections.abc import Sequence

from stillframe.drivers.contracts import ConsistencyLevel, GroupSnapshotRef
from stillframe.orchestrator.journal import Intent, IntentKind, Journal, Store
from stillframe.orchestrator.result import CatalogueEntry


class Clock:
    """Stands still until a test turns it."""

    def __init__(self, now_s: float = 100.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


def intent(tag: str, kind: IntentKind = IntentKind.VM_SNAPSHOT) -> Intent:
    """An intent with this tag, begun on a clock that is not the store's."""
    system_id = "vc" if kind is IntentKind.VM_SNAPSHOT else "a1"
    return Intent(tag, kind, system_id, f"{system_id}/object", 3.5)


def cut(tag: str, array_id: str = "a1") -> GroupSnapshotRef:
    """A group snapshot with this tag."""
    return GroupSnapshotRef(array_id, f"id of {tag}", tag)


def entry(
    vm_id: str,
    tags: Sequence[str],
    level: ConsistencyLevel = ConsistencyLevel.CRASH,
    point_in_time_s: float = 2.0,
) -> CatalogueEntry:
    """A VM that these cuts hold."""
    cuts = tuple(cut(tag) for tag in tags)
    return CatalogueEntry(vm_id, level, point_in_time_s, cuts, ("a1/lun0",), f"name of {vm_id}")


def begin(store: Store, job_id: str = "job", holder: str = "me", lease_s: float = 60.0) -> Journal:
    """A new job with a lease of a minute."""
    return store.begin(job_id, name=f"nightly {job_id}", spec="{}", holder=holder, lease_s=lease_s)


def tags_of(journal: Journal) -> list[str]:
    """Tags of the open intents."""
    return [one.tag for one in journal.open_intents()]
