"""The retention policy: by hand on a calendar, and in the lab where it prunes for real."""

from pathlib import Path

import pytest
from stillframe.drivers.contracts import ConsistencyLevel
from stillframe.orchestrator.journal import StoredEntry

from tenant_snapshots.grouping import per_tenant
from tenant_snapshots.retention import daily_then_weekly

ESTATE = Path(__file__).parents[1] / "estate.yaml"
DAY_S = 86_400.0


def nightly(days):
    """One entry of one VM for each day, at one in the morning."""
    return [
        StoredEntry(
            f"job-{day}", "vm", "vm", ConsistencyLevel.CRASH, (day + 1 / 24) * DAY_S, (), ()
        )
        for day in range(days)
    ]


def test_a_week_of_days_and_a_month_of_weeks_stay():
    entries = nightly(60)
    gone = daily_then_weekly()(entries, 60 * DAY_S)
    stay = [entry.job_id for entry in entries if entry not in gone]
    assert stay == ["job-35", "job-42", "job-49"] + [f"job-{day}" for day in range(53, 60)]


def test_nothing_goes_in_the_first_week():
    assert not daily_then_weekly()(nightly(7), 7 * DAY_S)


@pytest.mark.stillframe_seeds(10)
def test_what_is_pruned_leaves_nothing_behind_and_the_rest_restorable(stillframe_lab):
    stillframe_lab(
        ESTATE,
        strategy=per_tenant,
        retention=daily_then_weekly(day_s=1.0),
        options={"prune": {"keep_last": 1}, "second_job": True},
    ).run()
