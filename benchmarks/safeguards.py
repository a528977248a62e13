"""The orchestrator's safeguards, and the edit that takes each of them out.

Where a second line of defence would do the work of a safeguard that is gone, the removal takes
both out, and says so: what is to be seen is what the safeguard is for.
"""

from __future__ import annotations

from .ablate import Edit, Removal
from .safeguards_keeping import KEEPING

_NO_SWEEP_OF_VMS = Edit(
    "orchestrator/reconcile.py",
    "            if intent.kind is IntentKind.VM_SNAPSHOT:\n                vms.setdefault(",
    '            if intent.kind is IntentKind.VM_SNAPSHOT and self._manner.label == "sweep":\n'
    "                context = self._context\n"
    "                context.journal.settle(intent.tag)\n"
    "            elif intent.kind is IntentKind.VM_SNAPSHOT:\n                vms.setdefault(",
)

REMOVALS = (
    Removal(
        "release on failure",
        "a group whose cut fails releases its VMs all the same (sweep of VMs removed too)",
        (
            Edit(
                "orchestrator/group.py",
                "        opened = [work for work in self.works if work.snapshot is not None]\n"
                "        works = [(work, work.remove_scopes) for work in opened]",
                "        opened = [work for work in self.works if work.verified]\n"
                "        works = [(work, work.remove_scopes) for work in opened]",
            ),
            _NO_SWEEP_OF_VMS,
        ),
    ),
    Removal(
        "release on cancellation",
        "a cancelled group releases its VMs before it lets the cancellation on",
        (
            Edit(
                "orchestrator/group.py",
                "        finally:\n            await to_the_end(self._end(), context.journal)\n",
                "        except asyncio.CancelledError:\n            raise\n"
                "        else:\n            await to_the_end(self._end(), context.journal)\n"
                "        finally:\n",
            ),
            _NO_SWEEP_OF_VMS,
        ),
    ),
    Removal(
        "the end is not cancelled",
        "releases and the job's end run to their end although the job is cancelled meanwhile",
        (
            Edit(
                "orchestrator/group.py",
                "                await asyncio.shield(task)\n",
                "                await task\n",
            ),
        ),
    ),
    Removal(
        "intent before create (VM)",
        "a VM snapshot's tag is in the journal before its create is sent",
        (
            Edit(
                "orchestrator/vmcalls.py",
                "    context.journal.intend(\n"
                "        Intent(tag, IntentKind.VM_SNAPSHOT, work.vm.vcenter_id, work.vm.id, now_s)\n"  # noqa: E501
                "    )\n",
                "",
            ),
        ),
    ),
    Removal(
        "intent before create (array)",
        "an array snapshot's tag is in the journal before its create is sent",
        (
            Edit(
                "orchestrator/arraycalls.py",
                "        context.journal.intend(\n"
                "            Intent(call.tag, IntentKind.ARRAY_SNAPSHOT, array_id, array_id, now_s)\n"  # noqa: E501
                "        )\n",
                "",
            ),
        ),
    ),
    Removal(
        "reconcile by tag",
        "recovery looks for what a dead job may have left (VM side)",
        (
            Edit(
                "orchestrator/reconcile.py",
                "        return [ref for ref in state.snapshots if self._context.owns(ref.tag)]",
                "        return []",
            ),
        ),
    ),
    Removal(
        "late completions are waited for",
        "an operation that still runs on a VM may yet bring the tag to light",
        (
            Edit(
                "orchestrator/reconcile.py",
                "        return not state.operation_running\n",
                "        return True\n",
            ),
        ),
    ),
    Removal(
        "settle time on arrays",
        "a tag that an array does not list yet is looked for until the settle time is over",
        (
            Edit(
                "orchestrator/reconcile.py",
                "        return self._over and self._manner.settle_unseen",
                "        return True",
            ),
        ),
    ),
    Removal(
        "lost answer stays in doubt",
        "a create that timed out keeps its intent, because it may still happen",
        (
            Edit(
                "orchestrator/vmcalls.py",
                "    state = await _look_for(context, work, request.tag, patience_s)\n"
                "    ref = tagged(state, request.tag)\n",
                "    state = await _look_for(context, work, request.tag, patience_s)\n"
                "    ref = tagged(state, request.tag)\n"
                "    if ref is None:\n"
                "        context.journal.settle(request.tag)\n",
            ),
        ),
    ),
    Removal(
        "map from snapshot metadata",
        "units come from where the snapshot says the VM lies now, not from the plan",
        (
            Edit(
                "orchestrator/group.py",
                "        context, outcome = self._context, work.outcome\n"
                "        work.needs = needs\n",
                "        context, outcome = self._context, work.outcome\n"
                "        needs = needs._replace(unit_ids=context.topology.units_of_vm(work.vm.id))\n"  # noqa: E501
                "        work.needs = needs\n",
            ),
        ),
    ),
    Removal(
        "look after the cut",
        "after the cut each VM is looked up again; one that moved meanwhile is cut again",
        (
            Edit(
                "orchestrator/group.py",
                "            if self._stayed(work, snapshot, state.location):",
                "            if self._stayed(work, snapshot, snapshot.location):",
            ),
        ),
    ),
    Removal(
        "snapshot still there after the cut",
        "a VM whose snapshot is gone when the array has cut is not protected",
        (
            Edit(
                "orchestrator/group.py",
                "            if state is None or tagged(state, snapshot.ref.tag) is None:",
                "            if state is None:",
            ),
        ),
    ),
    Removal(
        "group atomicity",
        "units of one VM's live disks cut by several calls are not called consistent",
        (
            Edit(
                "orchestrator/group.py",
                "        return atomic and all(call_of[unit] is first for unit in units)",
                "        return True",
            ),
        ),
    ),
    Removal(
        "whole group or nothing",
        "an array's snapshot that lacks units of the call does not count",
        (
            Edit(
                "orchestrator/arraycalls.py",
                "    if missing:\n        reason = (",
                "    if missing and not call:\n        reason = (",
            ),
        ),
    ),
    Removal(
        "quiesce timeout",
        "the hypervisor is told how long a guest may stay frozen",
        (
            Edit(
                "orchestrator/vmcalls.py",
                "VmSnapshotRequest(work.vm.id, tag, quiesce, context.spec.quiesce.timeout)",
                "VmSnapshotRequest(work.vm.id, tag, quiesce, 86400.0)",
            ),
        ),
    ),
    Removal(
        "an adopted snapshot claims no freeze",
        "a snapshot whose answer was lost counts as crash-consistent",
        (
            Edit(
                "orchestrator/vmcalls.py",
                "VmSnapshot(ref, ConsistencyLevel.CRASH, state.location, context.now_s())",
                "VmSnapshot(ref, ConsistencyLevel.FILESYSTEM, state.location, context.now_s())",
            ),
        ),
    ),
    Removal(
        "mixed disks claim nothing",
        "a VM that mixes held and live disks shows two points in time: level unknown",
        (
            Edit(
                "orchestrator/mapping.py",
                "    return (ConsistencyLevel.UNKNOWN if needs.held else live_level), per_disk",
                "    return live_level, per_disk",
            ),
        ),
    ),
    Removal(
        "foreign-snapshot guard",
        "only what carries a tag of this very job is removed",
        (
            Edit(
                "orchestrator/context.py",
                "        return number != tag and number.isascii() and number.isdecimal()",
                "        return number != tag",
            ),
        ),
    ),
    Removal(
        "foreign loose deltas stay",
        "a delta that was loose before the job released the VM is not merged",
        (
            Edit(
                "orchestrator/group.py",
                "        if work.loose_before and not work.outcome.left_behind:\n            return\n",  # noqa: E501
                "",
            ),
        ),
    ),
    Removal(
        "limiter",
        "no more operations at once than the job's limits allow",
        (
            Edit(
                "orchestrator/limits.py",
                "            if scope.free <= 0:\n                return False\n",
                "            if scope.free <= -scope.capacity:\n                return False\n",
            ),
        ),
    ),
    Removal(
        "consolidation after a failed merge",
        "a delta that lost its snapshot is merged before the job ends (sweep of VMs removed too)",
        (
            Edit(
                "orchestrator/vmcalls.py",
                "    except HappenedError:\n        return await _consolidate(context, work), None\n",  # noqa: E501
                '    except HappenedError:\n        return "", None\n',
            ),
            Edit(
                "orchestrator/group.py",
                "                if state is not None and state.needs_consolidation:",
                "                if state is not None and not opened:",
            ),
            _NO_SWEEP_OF_VMS,
        ),
    ),
    *KEEPING,
)
