"""The task poller: one request per interval for all open tasks, and no task waited for in vain."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import pytest
from support_simloop import run
from support_vsim import PASSWORD, Vsim, small_inventory
from support_vsphere import TEST_PASSWORD_ENV, drive, request

from stillframe.drivers.errors import DidNotHappenError
from stillframe.drivers.vsphere import VsphereDriver
from stillframe.drivers.vsphere_tasks import TaskEnd, TaskLostError, TaskPoller, run_window

DONE = TaskEnd(None, "snapshot-1", 0.0, 1.0)


class Server:
    """Tasks that end at a time of the loop's clock; None for one that is forgotten then."""

    def __init__(self, ends_s: Mapping[str, float], *, outage: tuple[float, float] = (0, 0)):
        self.ends_s = dict(ends_s)
        self.outage = outage
        self.forgotten: set[str] = set()
        self.reads: list[tuple[float, int]] = []

    async def read(self, task_ids: Sequence[str]) -> Mapping[str, TaskEnd | None]:
        now_s = asyncio.get_running_loop().time()
        self.reads.append((now_s, len(task_ids)))
        if self.outage[0] <= now_s < self.outage[1]:
            raise DidNotHappenError("tasks", "vc", "it cannot be reached")
        return {
            one: DONE if now_s >= self.ends_s[one] else None
            for one in task_ids
            if one not in self.forgotten
        }


def test_many_tasks_cost_one_request_per_interval() -> None:
    server = Server({f"task-{n}": 1.0 + n / 100 for n in range(500)})

    async def main() -> None:
        poller = TaskPoller(server.read, 0.25, 60)
        ends = await asyncio.gather(*(poller.wait(one) for one in server.ends_s))
        assert ends == [DONE] * 500
        assert poller.open == 0
        await poller.close()

    run(lambda _: main())
    assert [at for at, _ in server.reads] == [0.25 * n for n in range(1, 25)]
    assert server.reads[0][1] == 500
    assert server.reads[-1][1] < 500  # what has ended is not asked for again


def test_nothing_open_costs_nothing() -> None:
    server = Server({"task-1": 0.1, "task-2": 100.1})

    async def main() -> None:
        poller = TaskPoller(server.read, 0.25, 60)
        await poller.wait("task-1")
        await asyncio.sleep(99.75)
        await poller.wait("task-2")
        await poller.close()

    run(lambda _: main())
    assert len(server.reads) == 2


def test_a_task_that_starts_while_others_run_is_seen_too() -> None:
    server = Server({"task-1": 10.0, "task-2": 3.0})

    async def main() -> None:
        poller = TaskPoller(server.read, 1.0, 60)
        first = asyncio.ensure_future(poller.wait("task-1"))
        await asyncio.sleep(2.5)
        await poller.wait("task-2")
        assert asyncio.get_running_loop().time() == 3.0
        await first
        await poller.close()

    run(lambda _: main())
    assert len(server.reads) == 10


def test_a_short_outage_is_waited_out() -> None:
    server = Server({"task-1": 5.0}, outage=(2.0, 30.0))

    async def main() -> None:
        poller = TaskPoller(server.read, 1.0, 60)
        assert await poller.wait("task-1") == DONE
        assert asyncio.get_running_loop().time() == 30.0
        await poller.close()

    run(lambda _: main())


def test_a_long_outage_ends_the_wait() -> None:
    server = Server({"task-1": 5.0, "task-2": 5.0}, outage=(2.0, 1e9))

    async def main() -> None:
        poller = TaskPoller(server.read, 1.0, 60)
        waits = [asyncio.ensure_future(poller.wait(one)) for one in server.ends_s]
        done, _ = await asyncio.wait(waits)
        for one in done:
            with pytest.raises(TaskLostError, match="cannot be reached"):
                one.result()
        assert asyncio.get_running_loop().time() == 61.0  # the last answer was at 1 s
        server.outage = (0.0, 0.0)
        assert await poller.wait("task-1") == DONE  # a later task is watched again
        await poller.close()

    run(lambda _: main())


def test_a_task_that_the_vcenter_forgot_is_lost_and_others_are_not() -> None:
    server = Server({"task-1": 5.0, "task-2": 5.0})
    server.forgotten.add("task-1")

    async def main() -> None:
        poller = TaskPoller(server.read, 1.0, 60)
        other = asyncio.ensure_future(poller.wait("task-2"))
        with pytest.raises(TaskLostError, match="no longer knows"):
            await poller.wait("task-1")
        assert await other == DONE
        await poller.close()

    run(lambda _: main())


def test_a_wait_that_is_cancelled_is_not_asked_for_any_more() -> None:
    server = Server({"task-1": 1e9, "task-2": 5.0})

    async def main() -> None:
        poller = TaskPoller(server.read, 1.0, 60)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2.5):
                await poller.wait("task-1")
        await poller.wait("task-2")
        await poller.close()

    run(lambda _: main())
    assert [count for _, count in server.reads] == [1, 1, 1, 1, 1]


def test_closing_tells_whoever_waits() -> None:
    server = Server({"task-1": 1e9})

    async def main() -> None:
        poller = TaskPoller(server.read, 1.0, 60)
        waiting = asyncio.ensure_future(poller.wait("task-1"))
        await asyncio.sleep(2.5)
        await poller.close()
        with pytest.raises(TaskLostError, match="closed"):
            await waiting

    run(lambda _: main())


def test_whoever_waits_is_told_when_the_poller_itself_breaks() -> None:
    async def read(_: Sequence[str]) -> Mapping[str, TaskEnd | None]:
        raise ZeroDivisionError

    async def main() -> None:
        with pytest.raises(TaskLostError, match="ZeroDivisionError"):
            await TaskPoller(read, 1.0, 60).wait("task-1")

    run(lambda _: main())


def test_the_run_time_comes_from_the_servers_clock() -> None:
    # Called at 10, answered at 10.2; the server started it 1 s after queueing and ran it for 2 s;
    # we saw it at 14.
    window = run_window(TaskEnd(None, "", 1.0, 3.0), 10.0, 10.2, 14.0)
    assert (window.start_s, window.end_s, window.exact) == (11.0, 13.2, False)


def test_the_run_time_is_what_we_saw_where_the_server_says_nothing() -> None:
    window = run_window(TaskEnd(None, "", None, None), 10.0, 10.2, 14.0)
    assert (window.start_s, window.end_s) == (10.0, 14.0)


def test_fifty_snapshots_take_fifty_calls_and_a_handful_of_reads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(TEST_PASSWORD_ENV, PASSWORD)

    async def main(driver: VsphereDriver) -> None:
        vms = (await driver.inventory()).vms
        assert len(vms) == 50
        await asyncio.to_thread(vsim.reset_calls)
        made = await asyncio.gather(*(driver.create_snapshot(request(one.id)) for one in vms))
        await asyncio.gather(*(driver.remove_snapshot(one.ref) for one in made))

    with Vsim(small_inventory(50)) as vsim:
        vsim.rules([{"method": "*", "delayMs": 0}])
        drive(vsim, main, poll_interval=0.25)
        calls = vsim.calls()
    assert calls["CreateSnapshotEx_Task"] == calls["RemoveSnapshot_Task"] == 50
    # Tools of all guests, the tasks at each interval, the places of all VMs. One read for each VM
    # would be 150.
    assert calls["RetrievePropertiesEx"] < 40
