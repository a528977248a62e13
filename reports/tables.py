"""The tables of a run: their columns and types, and how rows become frames of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import polars as pl

from ..errors import StillframeError

STRINGS = pl.List(pl.String)
TIME = pl.Float64()
TEXT = pl.String()
COUNT = pl.Int64()

VMS = pl.Schema(
    {
        "vm_id": TEXT,
        "name": TEXT,
        "group_id": TEXT,
        "status": TEXT,
        "reason": TEXT,
        "level": TEXT,
        "quiesce_start_s": TIME,
        "quiesce_s": TIME,
        "quiesce_exact": pl.Boolean(),
        "stun_create_start_s": TIME,
        "stun_create_s": TIME,
        "stun_remove_start_s": TIME,
        "stun_remove_s": TIME,
        "requested_s": TIME,
        "opened_s": TIME,
        "removal_s": TIME,
        "merged_s": TIME,
        "open_s": TIME,
        "merge_s": TIME,
        "delta_bytes": COUNT,
        "merged_bytes": COUNT,
        "passes": COUNT,
        "attempts": COUNT,
        "degraded": pl.Boolean(),
        "moved": pl.Boolean(),
        "wait_s": TIME,
        "units": STRINGS,
        "datastores": STRINGS,
        "disk_levels": pl.List(pl.Struct({"key": pl.Int64, "level": pl.String})),
        "excluded_disks": pl.List(pl.Int64),
        "left_behind": pl.Boolean(),
    }
)
"""One row per VM. ``open_s`` is ``removal_s - opened_s``, ``merge_s`` is ``merged_s - removal_s``;
``quiesce_exact`` is false where the window is only an upper bound."""

CALLS = pl.Schema(
    {
        "array_id": TEXT,
        "group_id": TEXT,
        "tag": TEXT,
        "units": STRINGS,
        "requested_s": TIME,
        "completed_s": TIME,
        "snapshot_s": TIME,
        "cut_s": TIME,
        "fence_start_s": TIME,
        "fence_s": TIME,
        "attempts": COUNT,
        "error": TEXT,
        "wait_s": TIME,
    }
)
"""One row per group call to an array; ``snapshot_s`` is ``completed_s - requested_s``."""

GROUPS = pl.Schema(
    {"group_id": TEXT, "vms": STRINGS, "started_s": TIME, "finished_s": TIME, "error": TEXT}
)
EVENTS = pl.Schema({"t_s": TIME, "kind": TEXT, "group": TEXT, "subject": TEXT, "detail": TEXT})
SERIES = pl.Schema({"t_s": TIME, "quantity": TEXT, "subject": TEXT, "value": TIME})
"""What changed over time in the world; a value holds until the next one of its subject."""

PLACEMENTS = pl.Schema(
    {
        "vm_id": TEXT,
        "vm_name": TEXT,
        "datastore_id": TEXT,
        "datastore_kind": TEXT,
        "unit_id": TEXT,
        "array_id": TEXT,
        "disk_key": COUNT,
        "component": COUNT,
        "role": TEXT,
    }
)
"""One row per disk (or VM home: ``disk_key`` null) and unit under it. ``datastore_id`` is null for
a raw device, ``unit_id`` and ``array_id`` where no unit is known. ``role`` is ``selected``,
``collateral`` (on a targeted unit, not selected) or
``other``; ``component`` is null where no unit is targeted."""

CATALOGUE = pl.Schema(
    {
        "vm_id": TEXT,
        "level": TEXT,
        "point_in_time_s": TIME,
        "arrays": STRINGS,
        "snapshots": STRINGS,
        "tags": STRINGS,
        "units": STRINGS,
    }
)

IMAGES = pl.Schema(
    {"vm_id": TEXT, "disk_key": COUNT, "path": TEXT, "datastore_id": TEXT, "role": TEXT}
)
"""One row per file of each image that can be restored, as the metadata of the VM's snapshot named
it; the files of one disk from its base up. ``role`` is ``base`` (stood still while the VM snapshot
was open) or ``live`` (as of the array's cut)."""

SCHEMAS: dict[str, pl.Schema] = {
    "vms": VMS,
    "calls": CALLS,
    "groups": GROUPS,
    "events": EVENTS,
    "series": SERIES,
    "placements": PLACEMENTS,
    "catalogue": CATALOGUE,
    "images": IMAGES,
}

Rows = pl.DataFrame | Iterable[Sequence[Any]]
"""A table as a frame with the schema's columns, or as rows in the order of the schema."""


def table(rows: Rows, schema: pl.Schema) -> pl.DataFrame:
    """A frame with exactly this schema.

    Parameters
    ----------
    rows:
        A frame that has at least the schema's columns, or rows of values in the schema's order.

    Raises
    ------
    StillframeError
        A column is missing, or a value has the wrong type.
    """
    try:
        if isinstance(rows, pl.DataFrame):
            return rows.select([pl.col(name).cast(kind) for name, kind in schema.items()])
        listed = list(rows)
        if not listed or STRINGS not in schema.values():
            return pl.DataFrame(listed, schema=schema, orient="row")
        columns = [list(values) for values in zip(*listed, strict=True)]
        return frame(dict(zip(schema, columns, strict=True)), schema)
    except (pl.exceptions.PolarsError, TypeError, ValueError) as error:
        raise StillframeError(f"a result table cannot be built from these rows: {error}") from error


def frame(columns: dict[str, list[Any]], schema: pl.Schema) -> pl.DataFrame:
    """A frame of columns of Python values, with the types of the schema."""
    return pl.DataFrame(
        {
            name: _texts(name, values)
            if schema[name] == STRINGS
            else pl.Series(name, values, dtype=schema[name])
            for name, values in columns.items()
        }
    )


_SEPARATOR = "\x1f"
"""ASCII's unit separator, which the event log's hash relies on too: no identifier has it."""


def _texts(name: str, values: list[list[str]]) -> pl.Series:
    """A column of lists of texts; joining and splitting is 20 times faster than a nested build."""
    joined = pl.Series(name, [_SEPARATOR.join(texts) for texts in values], dtype=TEXT)
    none = pl.lit([], dtype=STRINGS)
    split = pl.when(joined == "").then(none).otherwise(joined.str.split(_SEPARATOR))
    return pl.select(split.alias(name)).to_series()
