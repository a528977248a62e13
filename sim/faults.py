"""What may go wrong in the modelled systems, and how often: the ``faults`` section of a world.

Every fault is a named site. A site is active in a run or it is not (``activate``), and an active
site fires at some of its visits (``fire``). Both are drawn from the run's seed. Two levels, since
one probability for everything gives runs that all look alike: with them, runs differ in *which*
faults they have.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, GetJsonSchemaHandler, WithJsonSchema
from pydantic.json_schema import JsonSchemaValue

from ..orchestrator.spec import Count, Section, Timeouts
from ..quantity import Seconds, format_seconds

_PERCENT = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*%\s*")


def _share(value: object) -> object:
    """A probability as a number of 0 to 1, or in per cent."""
    match = _PERCENT.fullmatch(value) if isinstance(value, str) else None
    return float(match[1]) / 100.0 if match is not None else value


_BARE: list[dict[str, Any]] = [
    {"type": "number", "minimum": 0, "maximum": 1},
    {"type": "string", "pattern": rf"^{_PERCENT.pattern}$"},
]
Probability = Annotated[
    float,
    Field(ge=0, le=1),
    BeforeValidator(_share),
    WithJsonSchema({"anyOf": _BARE, "description": "from 0 to 1, or in per cent"}),
]


class Site(StrEnum):
    """A place where something can go wrong, and what a real system does there."""

    QUIESCE_FAILS = "quiesce-fails"
    """The guest refuses to freeze (vSphere: FilesystemQuiesceFault)."""
    QUIESCE_HANGS = "quiesce-hangs"
    """The freeze call does not return; the quiesce timeout ends it and thaws the guest."""
    THAW_LOST = "thaw-lost"
    """The host fails after the freeze and sends no thaw; the guest's own limit thaws it."""
    LATE_CREATE = "late-create"
    """A create waits for `slow_task` before it touches the VM: its caller may be gone by then."""
    LATE_REMOVE = "late-remove"
    """A remove or consolidation waits for `slow_task` before it touches the VM."""
    LOST_ANSWER_CREATE = "lost-answer-create"
    """A create ends, and the connection breaks before its answer arrives."""
    LOST_ANSWER_REMOVE = "lost-answer-remove"
    """A remove or consolidation ends, and the connection breaks before its answer arrives."""
    HYPERVISOR_BUSY = "hypervisor-busy"
    """A task that nobody sees holds the VM: create, remove or consolidation is refused as busy."""
    SESSION_EXPIRED = "session-expired"
    """The vCenter ends the session: answers under way are lost, calls refused until it is back."""
    QUERY_LOST = "query-lost"
    """An inventory or a list of VM snapshots is not answered: an error, or a long silence."""
    REMOVAL_REFUSED = "removal-refused"
    """A file of the chain is locked: a remove or consolidation ends with nothing done."""
    CONSOLIDATION_NEEDED = "consolidation-needed"
    """A remove takes the snapshot away and leaves its delta: the VM needs consolidation."""
    DELTA_DATASTORE_FULL = "delta-datastore-full"
    """The datastore has no space for the delta: the create fails and the guest is thawed."""
    ARRAY_BUSY = "array-busy"
    """The array refuses a group snapshot or a deletion as busy."""
    LOST_ANSWER_GROUP = "lost-answer-group"
    """The connection to the array breaks while it takes a group snapshot, which goes on."""
    LATE_GROUP = "late-group"
    """A group snapshot waits for `late_group` in the array before it holds any writes."""
    PARTIAL_GROUP = "partial-group"
    """The array leaves a unit out of a group of several, and reports the snapshot as complete."""
    FENCE_TIMEOUT = "fence-timeout"
    """Writes in flight do not drain: the array lets the group go at the fence's limit, uncut."""
    DELETE_REFUSED = "delete-refused"
    """A snapshot is in use (a clone, a replication): its deletion is refused during `in_use`."""
    LOST_ANSWER_DELETE = "lost-answer-delete"
    """The connection to the array breaks while it deletes a snapshot, which goes on."""
    SNAPSHOT_LIMIT = "snapshot-limit"
    """A unit carries as many snapshots as it can: the group snapshot is refused for good."""
    POOL_FULL = "pool-full"
    """The array has no snapshot space left: the group snapshot is refused."""
    ARRAY_QUERY_LOST = "array-query-lost"
    """A list of snapshots or of units is not answered: an error, or a long silence."""

    # Enum's own is a call in Python, and every visit of a site looks it up.
    __hash__ = str.__hash__


class ActiveSite(Section):
    """How often a site fires; in a file also just the probability per visit.

    Attributes
    ----------
    fire:
        Probability at each visit, in a run in which the site is active.
    activate:
        Probability per run that the site is active at all.
    most:
        Most fires in a run; None for no limit of its own.
    """

    fire: Probability
    activate: Probability = 1.0
    most: Count | None = None


def _from_probability(value: object) -> object:
    bare = isinstance(value, int | float | str) and not isinstance(value, bool)
    return {"fire": value} if bare else value


class _OrProbability:
    """Says in the JSON Schema that a probability stands for a site that is always active."""

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: Any, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {"anyOf": [handler(schema), *_BARE]}


class Faults(Section):
    """What goes wrong in a world; nothing by default.

    Attributes
    ----------
    sites:
        How often each site fires; those that are not named never do.
    budget:
        Most fires of all sites together in a run; None for no limit.
    since, until:
        Faults happen from ``since`` on and no more from ``until`` on, on the world's clock.
    slow_task:
        For how long a late create or remove waits. To be the late success that recovery is for,
        longer than ``timeouts.create`` (plus ``quiesce.timeout`` if the guest is to be frozen).
    late_group:
        For how long a late group snapshot waits.
    session:
        Time from the end of a session to the next one.
    silence:
        After how long a query fails that is not answered; half of the lost ones fail at once.
    in_use:
        For how long the deletion of a snapshot is refused, once it has been.
    """

    sites: dict[Site, Annotated[ActiveSite, BeforeValidator(_from_probability), _OrProbability]] = (
        Field(default_factory=dict)
    )
    budget: Annotated[int, Field(ge=0)] | None = None
    since: Seconds = 0.0
    until: Seconds | None = None
    slow_task: Seconds = 720.0
    late_group: Seconds = 720.0
    session: Seconds = 10.0
    silence: Seconds = 600.0
    in_use: Seconds = 30.0

    def beyond_claims(self, timeouts: Timeouts) -> list[str]:
        """What these faults do that a job with these timeouts does not claim to survive.

        A job looks for what it gave up on for ``timeouts.settle`` at its end, and its end may come
        at once, by a cancellation. What takes effect later than that, nobody is there to remove;
        only a later recovery finds it.

        Returns
        -------
        list of str
            One sentence for each; empty when the faults stay within the claims.
        """
        late = (
            (Site.LATE_CREATE, "slow_task", self.slow_task),
            (Site.LATE_REMOVE, "slow_task", self.slow_task),
            (Site.LATE_GROUP, "late_group", self.late_group),
        )
        return [
            f"Site {site} is beyond what a job claims to survive: {field} "
            f"({format_seconds(late_s)}) is not less than timeouts.settle "
            f"({format_seconds(timeouts.settle)})."
            for site, field, late_s in late
            if site in self.sites and late_s >= timeouts.settle
        ]
