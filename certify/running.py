"""Runs checks one after the other, whatever kind of driver they are for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from typing import Any

from ..drivers.errors import DriverError
from ..errors import InputError, StillframeError
from .bench import Bench
from .effort import EFFORTS, Effort
from .outcome import Outcome, SuiteResult, Verdict
from .recording import CallLog, recorded
from .requirement import Blocked, NotTested, Requirement, Violation
from .target import Target

Tell = Callable[[str, float | None], None]
"""Takes what is being done, and the share of it that is done (None: not known)."""

AnyBench = Bench[Any, Any]
CONNECT_TIMEOUT_S = 60.0


def silent(_doing: str, _share: float | None) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True)
class SuiteOptions:
    """How to run a suite.

    Attributes
    ----------
    run:
        A word for tags that no earlier run on this system has used.
    only:
        Identifiers of the requirements to try; all, if empty.
    limits:
        What the vendor states, in seconds by name.
    """

    seed: int = 1
    run: str = "1"
    effort: Effort = EFFORTS["standard"]
    only: frozenset[str] = frozenset()
    limits: Mapping[str, float] = field(default_factory=dict)
    tell: Tell = silent


class Connection:
    """The connection that checks share; opened again when a check has broken it."""

    def __init__(
        self,
        target: Target[Any],
        log: CallLog,
        effort: Effort,
        methods: Collection[str],
        capabilities: type[Any],
    ) -> None:
        self._target = target
        self._log = log
        self._effort = effort
        self._methods = methods
        self._capabilities = capabilities
        self._stack = AsyncExitStack()
        self.raw: Any = None

    async def open(self) -> Any:
        """Connect; the recorded driver.

        Raises
        ------
        InputError
            What ``connect`` gives is no driver: a method of the contract is missing, or its
            capabilities are none.
        StillframeError
            The system does not answer.
        """
        where = _name_of(type(self._target))
        context = self._target.connect()
        if not hasattr(context, "__aenter__"):
            problem = f"gives {type(context).__name__}, not an asynchronous context manager"
            raise InputError(where, "connect", problem)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                self.raw = await self._stack.enter_async_context(context)
        except TimeoutError:
            what = f"{where} did not connect within {CONNECT_TIMEOUT_S:g} s"
            raise StillframeError(what, "is the system up, and its address right?") from None
        missing = [name for name in self._methods if not hasattr(self.raw, name)]
        if missing:
            problem = f"{_name_of(type(self.raw))} lacks {', '.join(missing)}"
            raise InputError(where, "driver", problem, "docs/certify.md lists what a driver has")
        if not isinstance(self.raw.capabilities, self._capabilities):
            problem = f"{_name_of(type(self.raw))}.capabilities is {self.raw.capabilities!r}"
            advice = f"it has to be a property that gives {self._capabilities.__name__}"
            raise InputError(where, "driver", problem, advice)
        return recorded(self.raw, self._log, self._effort.call_timeout_s)

    async def close(self) -> None:
        """Disconnect; a connection that the system has ended may fail to end again."""
        stack, self._stack = self._stack, AsyncExitStack()
        await stack.aclose()


async def try_all(
    bench: AnyBench,
    requirements: Sequence[Requirement[Any]],
    ready: Callable[[Requirement[Any]], str],
    heal: Callable[[], Awaitable[None]],
    options: SuiteOptions,
) -> list[Outcome]:
    """The outcome of every requirement that was asked for, in order.

    Parameters
    ----------
    ready:
        Why a requirement cannot be tried on this target; empty when it can.
    heal:
        Makes the bench's connection usable again; called after every check.
    """
    wanted = [one for one in requirements if not options.only or one.id in options.only]
    outcomes = []
    gone = ""
    for number, requirement in enumerate(wanted):
        options.tell(requirement.id, number / len(wanted))
        bench.begin(requirement.id)
        reason = ready(requirement)
        absent = _absent(bench, requirement)
        if absent:
            outcome = Outcome(requirement.id, Verdict.ABSENT, absent)
        elif reason:
            outcome = Outcome(requirement.id, Verdict.NOT_TESTED, reason)
        elif gone:
            outcome = Outcome(requirement.id, Verdict.BLOCKED, gone)
        else:
            try:
                outcome = await _try_one(bench, requirement)
            finally:  # at Ctrl-C too
                left = await _cleaned(bench)
            gone = await _gone(heal)
            if left and not gone:  # perhaps only because the connection was of no use any more
                left = await _cleaned(bench)
            bench.left += [one for one in left if one not in bench.left]
        outcomes.append(outcome)
    return outcomes


async def _cleaned(bench: AnyBench) -> list[str]:
    try:
        return await bench.clean()
    except Exception as error:  # noqa: BLE001  # whatever a driver raises, the suite goes on
        return [f"cleaning up failed: {type(error).__name__}: {error}"]


async def _gone(heal: Callable[[], Awaitable[None]]) -> str:
    """Why nothing more can be tried, after one last try to connect; empty when it can."""
    try:
        await heal()
    except Exception as error:  # noqa: BLE001  # what was seen so far is worth a certificate
        return f"the system no longer answers: {error}"
    return ""


def _absent(bench: AnyBench, requirement: Requirement[Any]) -> str:
    name = requirement.capability
    if name is None:
        return ""
    declared = getattr(bench.driver.capabilities, name)
    return f"the driver declares {name}: {declared}" if declared in (False, None) else ""


async def _try_one(bench: AnyBench, requirement: Requirement[Any]) -> Outcome:
    bench.log.begin()
    start_s = bench.now_s()
    verdict, reason = Verdict.PASS, ""
    seen: dict[str, Any] = {}
    limit_s = bench.effort.check_timeout_s
    try:
        async with asyncio.timeout(limit_s) as limit:
            await requirement.check(bench)
    except Violation as found:
        verdict, reason, seen = Verdict.FAIL, found.what, found.evidence
    except NotTested as found:
        verdict, reason = Verdict.NOT_TESTED, found.what
    except Blocked as found:
        verdict, reason = Verdict.BLOCKED, found.what
    except TimeoutError:
        verdict, reason = Verdict.FAIL, "the driver raised TimeoutError, which is no DriverError"
        if limit.expired():
            reason = f"the check did not end within {limit_s:g} s"
    except DriverError as error:
        verdict = Verdict.FAIL
        reason = f"a call failed that has to succeed: {type(error).__name__}: {error}"
    except Exception as error:  # noqa: BLE001  # whatever a driver raises, the suite goes on
        verdict = Verdict.FAIL
        reason = f"{type(error).__name__} is no DriverError: {error}"
    return Outcome(
        requirement.id,
        verdict,
        reason,
        bench.evidence | seen,
        tuple(bench.log.calls) if verdict in (Verdict.FAIL, Verdict.BLOCKED) else (),
        tuple(bench.samples),
        bench.seed,
        bench.now_s() - start_s,
        bench.written_bytes,
        bench.compared_bytes,
    )


def lacking(requirement: Requirement[Any], target: Target[Any]) -> str:
    """Which hooks of a requirement the target does not have, as a reason; empty if none."""
    missing = [hook for hook in requirement.hooks if not target.offers(hook)]
    return f"the target does not offer {', '.join(missing)}" if missing else ""


def result_of(
    kind: str,
    target: Target[Any],
    driver: Any,
    options: SuiteOptions,
    environment: dict[str, str],
    hooks: Sequence[str],
    outcomes: Sequence[Outcome],
    duration_s: float,
) -> SuiteResult:
    """Outcomes and what they are about."""
    capabilities = {
        name: str(value) if not isinstance(value, bool | int | None) else value
        for name, value in asdict(driver.capabilities).items()
    }
    return SuiteResult(
        kind,
        target.name or type(target).__name__,
        _name_of(type(target)),
        _name_of(type(driver)),
        _package_of(type(driver)),
        capabilities,
        tuple(sorted(hook for hook in hooks if target.offers(hook))),
        dict(options.limits),
        environment,
        options.seed,
        options.effort.name,
        tuple(outcomes),
        duration_s,
    )


def _name_of(kind: type[Any]) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _package_of(kind: type[Any]) -> str:
    """``distribution version`` of the code of a class; the top module where there is none."""
    top = kind.__module__.split(".")[0]
    for name in sorted(set(packages_distributions().get(top, ()))):
        try:
            return f"{name} {version(name)}"
        except PackageNotFoundError:
            continue
    return top
