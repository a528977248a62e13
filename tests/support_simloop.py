"""What the tests of SimLoop share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from typing import Any

from stillframe.sim.env import SimEnv
from stillframe.sim.loop import SimLoop

Process = Generator[Any, Any, Any]


def run(
    main: Callable[[SimEnv], Awaitable[Any]],
    env: SimEnv | None = None,
    **loop_options: Any,
) -> Any:
    world = env if env is not None else SimEnv()
    with asyncio.Runner(loop_factory=lambda: SimLoop(world, **loop_options)) as runner:
        return runner.run(main(world))  # type: ignore[arg-type]


class DriverTrouble(Exception):  # noqa: N818
    """An exception that cannot be rebuilt from its args, as real ones often cannot."""

    def __init__(self, *, vm: str) -> None:
        super().__init__(f"trouble with {vm}")
        self.vm = vm
