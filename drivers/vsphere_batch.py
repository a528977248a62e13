"""Many questions about single objects, answered with few requests.

A hundred creates end within the same look at the tasks, and each then asks where its VM lies. The
questions that come while a request is under way wait for the next one, which takes them all; none
is answered from before it was asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


class BatchReader(Generic[T]):
    """Gathers questions and asks them together.

    Parameters
    ----------
    fetch:
        Answers for several keys at once; keys without an answer are left out.
    largest:
        The most keys in one request.
    """

    def __init__(
        self, fetch: Callable[[Sequence[str]], Awaitable[Mapping[str, T]]], largest: int
    ) -> None:
        self._fetch = fetch
        self._largest = largest
        self._waiting: dict[str, list[asyncio.Future[T | None]]] = {}
        self._worker: asyncio.Task[None] | None = None

    async def get(self, key: str) -> T | None:
        """The answer for this key, None if there is none; raises what ``fetch`` raises."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T | None] = loop.create_future()
        self._waiting.setdefault(key, []).append(future)
        if self._worker is None or self._worker.done():
            self._worker = loop.create_task(self._work())
        return await future

    async def close(self) -> None:
        """Wait for the request that is under way, if any."""
        if self._worker is not None:
            await asyncio.wait([self._worker])

    async def _work(self) -> None:
        while self._waiting:
            keys = list(self._waiting)[: self._largest]
            asked = {key: self._waiting.pop(key) for key in keys}
            try:
                answers = await self._fetch(keys)
            except Exception as error:  # noqa: BLE001  it is the askers' to judge
                for future in _open(asked):
                    future.set_exception(error)
                continue
            for key, futures in asked.items():
                for future in _open({key: futures}):
                    future.set_result(answers.get(key))


def _open(asked: Mapping[str, list[asyncio.Future[T | None]]]) -> list[asyncio.Future[T | None]]:
    """The questions that somebody still waits for."""
    return [future for futures in asked.values() for future in futures if not future.done()]
