"""Every day of the last week, then one of each week for four weeks.

A policy of our own beside those that Stillframe brings (the newest n, those younger than a time).
It only proposes: the newest good entry of each VM stays whatever it says.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from stillframe.orchestrator.journal import StoredEntry
from stillframe.orchestrator.retention import RetentionPolicy

DAYS = 7
WEEKS = 4


def daily_then_weekly(day_s: float = 86_400.0) -> RetentionPolicy:
    """The policy: says which entries may go.

    Parameters
    ----------
    day_s:
        How long a day is, in seconds; shorter ones let a test see years go by.
    """
    week_s = DAYS * day_s

    def policy(entries: Sequence[StoredEntry], now_s: float) -> Collection[StoredEntry]:
        first_of: dict[tuple[str, int], StoredEntry] = {}
        for entry in sorted(entries, key=lambda entry: entry.point_in_time_s):
            week = int(entry.point_in_time_s // week_s)
            first_of.setdefault((entry.vm_id, week), entry)
        weekly = list(first_of.values())
        return [
            entry
            for entry in entries
            if now_s - entry.point_in_time_s > week_s
            and (entry not in weekly or now_s - entry.point_in_time_s > WEEKS * week_s)
        ]

    return policy
