"""What a check works with, whatever the driver is for."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Generic, TypeVar, cast

from ..drivers.errors import DriverError
from .effort import Effort
from .outcome import Sample
from .recording import CallLog, recorded, short
from .requirement import Blocked, Violation
from .target import Target

T = TypeVar("T")
D = TypeVar("D")
G = TypeVar("G", bound=Target[Any])

TAG_PREFIX = "sf-certify-"
"""All that the kit makes bears a tag that begins so."""


class Bench(Generic[D, G]):
    """One check's view of driver and target.

    Parameters
    ----------
    driver:
        The connection that checks share (recorded).
    target:
        The target; never None.
    effort:
        How often to repeat.
    limits:
        What the vendor states, in seconds by name; what is not stated is reported, not judged.
    run:
        A word that no other run of the kit uses, for tags.
    seed:
        Of the suite; a check's random choices depend on it and on the requirement alone.

    Attributes
    ----------
    rng:
        For the check's choices.
    evidence, samples:
        What it saw and measured; see :meth:`note` and :meth:`measure`.
    written_bytes, compared_bytes:
        Counted by the helpers of the kinds of benches.
    left:
        What could not be cleaned up after the checks so far, one sentence each.
    """

    def __init__(
        self,
        driver: D,
        target: G,
        effort: Effort,
        limits: Mapping[str, float],
        run: str,
        seed: int,
        log: CallLog,
    ) -> None:
        self.driver = driver
        self.target = target
        self.effort = effort
        self.limits = dict(limits)
        self.log = log
        self._run = run
        self._seed = seed
        self._tags = 0
        self.left: list[str] = []
        self.begin("")

    def begin(self, requirement_id: str) -> None:
        """Begin the check of a requirement: nothing noted, choices from its own seed."""
        self.seed = f"{self._seed}/{requirement_id}"
        self.rng = random.Random(self.seed)
        self.evidence: dict[str, Any] = {}
        self.samples: list[Sample] = []
        self.written_bytes = 0
        self.compared_bytes = 0

    @staticmethod
    def now_s() -> float:
        """The loop's clock, on which drivers tell times."""
        return asyncio.get_running_loop().time()

    @property
    def tag_prefix(self) -> str:
        """What every tag of this run begins with."""
        return f"{TAG_PREFIX}{self._run}-"

    def tag(self, word: str = "") -> str:
        """A tag that was never used."""
        self._tags += 1
        return f"{self.tag_prefix}{self._tags}{'-' if word else ''}{word}"

    @asynccontextmanager
    async def another_driver(self) -> AsyncIterator[D]:
        """A second connection to the same system. Raises Blocked when it cannot be opened."""
        context = self.target.connect()
        driver = await self.setup(context.__aenter__(), "a second connection")
        try:
            yield cast("D", recorded(driver, self.log, self.effort.call_timeout_s))
        finally:
            await context.__aexit__(None, None, None)

    # -- judging ---------------------------------------------------------------------------------

    def expect(self, met: object, what: str, **evidence: Any) -> None:
        """The driver breaks the requirement unless ``met``.

        Raises
        ------
        Violation
            It does; ``what`` is the sentence of the certificate.
        """
        if not met:
            raise Violation(what, **evidence)

    async def refused(
        self, call: Awaitable[object], *wanted: type[DriverError], doing: str
    ) -> DriverError:
        """The error with which a call is refused, which has to be one of these classes.

        Raises
        ------
        Violation
            The call succeeded, or failed with another error.
        """
        names = " or ".join(one.__name__ for one in wanted)
        try:
            answer = await call
        except wanted as error:
            return error
        except DriverError as error:
            said = f"{type(error).__name__} ({error})"
            raise Violation(f"{doing} raised {said} instead of {names}") from error
        raise Violation(f"{doing} succeeded instead of raising {names}", answer=short(answer))

    async def setup(self, call: Awaitable[T], doing: str) -> T:
        """The answer of a call that the requirement is not about.

        Raises
        ------
        Blocked
            It failed.
        """
        try:
            return await call
        except DriverError as error:
            raise Blocked(f"{doing} failed: {error}") from error

    @staticmethod
    async def together(*calls: Awaitable[T]) -> list[T]:
        """The answers of calls that run at the same time.

        Raises
        ------
        BaseException
            The first that one of them has raised, once all of them have ended.
        """
        came = await asyncio.gather(*calls, return_exceptions=True)
        for one in came:
            if isinstance(one, BaseException):
                raise one
        return [cast("T", one) for one in came]

    async def until(
        self, condition: Callable[[], Awaitable[bool]], limit_s: float, step_s: float = 0.02
    ) -> bool:
        """Look again and again, for so long on the loop's clock; whether it came about."""
        end_s = self.now_s() + limit_s
        while not await condition():
            if self.now_s() >= end_s:
                return False
            await asyncio.sleep(step_s)
        return True

    async def clean(self) -> list[str]:
        """Take away what a check made; what could not be, one sentence each."""
        raise NotImplementedError

    def note(self, **evidence: Any) -> None:
        """Keep something that was seen, ready for JSON, for the certificate."""
        self.evidence |= evidence

    def measure(self, name: str, values_s: list[float], **labels: Any) -> None:
        """Keep durations of one kind of operation under these circumstances."""
        self.samples.append(Sample(name, labels, tuple(values_s)))
