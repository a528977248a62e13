"""The safeguards of leases, the catalogue and pruning, and the edit that takes each of them out."""

from __future__ import annotations

from .ablate import Edit, Removal

KEEPING = (
    Removal(
        "lease fencing",
        "a job that was taken over refuses its earlier holder everything",
        (
            Edit(
                "orchestrator/memory_store.py",
                "        if job.token != self._token:\n",
                "        if job.token < 0:\n",
            ),
            Edit(
                "orchestrator/sqlite_journal.py",
                "        if row is None or row[0] != self._job.token:\n",
                "        if row is None:\n",
            ),
            Edit(
                "orchestrator/sqlite_journal.py",
                '" WHERE id = ? AND token = ?",',
                '" WHERE id = ? AND 0 < ?",',
            ),
        ),
    ),
    Removal(
        "lease held by the living",
        "nobody takes a job over whose holder renews its lease",
        (
            Edit(
                "orchestrator/memory_store.py",
                '        if job.holder not in ("", breaking) and left_s > 0:',
                '        if job.holder not in ("", breaking) and left_s > 1e9:',
            ),
        ),
    ),
    Removal(
        "catalogue before release",
        "entries are durable before the VMs are released, so that no finished cut is lost",
        (
            Edit(
                "orchestrator/group.py",
                "            self._context.journal.keep(entries, self._context.now_s())\n",
                "            pass\n",
            ),
        ),
    ),
    Removal(
        "catalogue checks the arrays",
        "an entry whose snapshot an array no longer lists is withdrawn at the job's end",
        (
            Edit(
                "orchestrator/job.py",
                "            if ref.tag not in listed:\n                outcome.status",
                "            if ref.tag not in listed and not ref:\n                outcome.status",
            ),
        ),
    ),
    Removal(
        "recovery checks the catalogue",
        "recovery withdraws entries whose snapshot an array no longer lists",
        (
            Edit(
                "orchestrator/recover.py",
                "        if lost:\n            context.journal.withdraw(",
                "        if lost and not entries:\n            context.journal.withdraw(",
            ),
        ),
    ),
    Removal(
        "unneeded cuts are deleted",
        "array snapshots that no entry names go, at the job's end or by recovery (both removed)",
        (
            Edit(
                "orchestrator/job.py",
                "            if call.ref is not None and call.tag not in kept:\n",
                "            if call.ref is not None and call.tag in kept and not call.tag:\n",
            ),
            Edit(
                "orchestrator/reconcile.py",
                "            if tag not in self._kept:\n",
                "            if tag not in self._kept and not tag:\n",
            ),
        ),
    ),
    Removal(
        "kept snapshots stay",
        "reconciliation leaves the array snapshots that entries name alone",
        (
            Edit(
                "orchestrator/reconcile.py",
                "            if tag not in self._kept:\n",
                "            if tag:\n",
            ),
        ),
    ),
    Removal(
        "retention floor",
        "pruning never takes the last good entry of a VM",
        (
            Edit(
                "orchestrator/prune.py",
                "        floor = last_good(entries, listed) | {\n",
                "        floor = set() | {\n",
            ),
        ),
    ),
    Removal(
        "shared cuts stay",
        "an array snapshot goes only when no entry names it any more (journal's check removed too)",
        (
            Edit(
                "orchestrator/prune.py",
                "            if intent.kind is IntentKind.ARRAY_SNAPSHOT and intent.tag not in needed:\n",  # noqa: E501
                "            if intent.kind is IntentKind.ARRAY_SNAPSHOT:\n",
            ),
            Edit(
                "orchestrator/memory_store.py",
                "        still = {cut.tag for entry in job.entries.values() for cut in entry.cuts}\n",  # noqa: E501
                "        still: set[str] = set()\n",
            ),
        ),
    ),
    Removal(
        "moves are counted",
        "a VM that moved away and back between the cut and the look is cut again",
        (
            Edit(
                "orchestrator/group.py",
                "        if now.moves == then.moves and places_of(now) == places_of(then):\n",
                "        if places_of(now) == places_of(then):\n",
            ),
        ),
    ),
    Removal(
        "each disk is compared",
        "a VM whose disks changed places between its cuts is cut again (on top of the removal above)",  # noqa: E501
        (
            Edit(
                "orchestrator/mapping.py",
                "        (file.disk_key, file.datastore_id)\n",
                "        (None, file.datastore_id)\n",
            ),
            Edit(
                "orchestrator/group.py",
                "        if now.moves == then.moves and places_of(now) == places_of(then):\n",
                "        if places_of(now) == places_of(then):\n",
            ),
        ),
    ),
)
