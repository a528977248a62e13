"""The line to a qemu-storage-daemon's monitor: standing in it, losing it, and what is told then."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from support_lab import needs_lab, short_folder
from support_qsd import NEEDS, qsd_array

from stillframe.certify.targets.qmp_proxy import QmpProxy
from stillframe.drivers.errors import DidNotHappenError

pytestmark = needs_lab(*NEEDS)


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_folder("qsd") as made:
        yield made


def test_a_place_in_the_line_for_a_monitor_is_waited_for(folder: Path) -> None:
    """The kernel lets one client wait; to more it says that they should try again."""

    async def main() -> None:
        async with qsd_array(folder) as array:

            async def ask(tag: str) -> str:
                async with array.driver(connect_timeout=30.0) as driver:
                    return (await array.cut(driver, tag)).ref.tag

            tags = [f"t{number}" for number in range(6)]
            assert await asyncio.gather(*map(ask, tags)) == tags

    asyncio.run(main())


def test_a_question_is_asked_again_of_a_daemon_that_hung_up(folder: Path) -> None:
    async def main() -> None:
        async with qsd_array(folder) as array:
            line = folder / "line.sock"
            proxy = QmpProxy(line, [array.pool.qmp_socket])
            async with proxy.serving(), array.driver(qmp_socket=str(line)) as driver:
                await array.cut(driver, "before")
                proxy.hang_up()
                assert [one.ref.tag for one in await driver.list_snapshots("")] == ["before"]

    asyncio.run(main())


def test_an_error_of_the_monitor_is_told_of_what_the_call_was_about(folder: Path) -> None:
    async def main() -> None:
        async with (
            qsd_array(folder) as array,
            array.driver(connect_timeout=0.3, call_timeout=0.3) as driver,
        ):
            array.signal(signal.SIGSTOP)
            try:
                with pytest.raises(DidNotHappenError) as failed:
                    await array.cut(driver, "about-this")
            finally:
                array.signal(signal.SIGCONT)
            assert failed.value.subject == "about-this"

    asyncio.run(main())
