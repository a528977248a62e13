"""One run of the kit, from a target's class to what its certificate says."""

from __future__ import annotations

import asyncio
import difflib
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..errors import InputError, StillframeError
from .array_requirements import ARRAY_REQUIREMENTS
from .array_suite import certify_array
from .certificate import Body, body_of
from .checks.array_performance import LIMITS as ARRAY_LIMITS
from .checks.hypervisor_performance import LIMITS as HYPERVISOR_LIMITS
from .config import VendorConfig
from .effort import EFFORTS
from .folder import JUNIT, PAGE, write_certificate
from .hypervisor_requirements import HYPERVISOR_REQUIREMENTS
from .hypervisor_suite import certify_hypervisor
from .junit import junit
from .loading import make_target, told
from .outcome import SuiteResult
from .page import render
from .requirement import Requirement
from .running import SuiteOptions, Tell, silent
from .signing import Signer, fingerprint
from .target import Target

REQUIREMENTS: Mapping[str, Sequence[Requirement[Any]]] = {
    "array": ARRAY_REQUIREMENTS,
    "hypervisor": HYPERVISOR_REQUIREMENTS,
}
LIMITS: Mapping[str, Mapping[str, str]] = {
    "array": ARRAY_LIMITS,
    "hypervisor": HYPERVISOR_LIMITS,
}
_SUITES: Mapping[str, Callable[..., Any]] = {
    "array": certify_array,
    "hypervisor": certify_hypervisor,
}
DEFAULT_EFFORT = "standard"
_SCRATCH = Path("/var/tmp")  # noqa: S108  on a disk, where direct writes work, and short


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be certified, and how.

    Attributes
    ----------
    kind:
        ``array`` or ``hypervisor``.
    word:
        What the command line calls the target.
    effort:
        Of the command line; that of the configuration counts where it is None.
    only:
        Identifiers of requirements, or what some begin with (``ARR-GRP``); all, if empty.
    """

    kind: str
    word: str
    target_class: type[Target[Any]]
    config: VendorConfig
    seed: int = 1
    effort: str | None = None
    only: tuple[str, ...] = ()

    @property
    def effort_name(self) -> str:
        """How much is tried."""
        return self.effort or self.config.effort or DEFAULT_EFFORT

    def options(self, tell: Tell = silent) -> SuiteOptions:
        """Of the suite.

        Raises
        ------
        InputError
            A limit or a requirement is asked for that there is not.
        """
        modelled = self.target_class.modelled
        return SuiteOptions(
            seed=self.seed,
            run=str(self.seed) if modelled else secrets.token_hex(4),
            effort=EFFORTS[self.effort_name],
            only=chosen(self.only, [one.id for one in REQUIREMENTS[self.kind]]),
            limits=self.config.limits_s(LIMITS[self.kind]),
            tell=tell,
        )


def chosen(words: Collection[str], known: Sequence[str]) -> frozenset[str]:
    """The requirements that words name, each by its identifier or by what it begins with.

    Raises
    ------
    InputError
        A word names none.
    """
    found: set[str] = set()
    for word in words:
        named = [one for one in known if one == word or one.startswith(f"{word}-")]
        if not named:
            near = difflib.get_close_matches(word, known, n=1)
            advice = f"did you mean {near[0]}?" if near else "`stillframe certify list` has them"
            raise InputError("--only", "", f"there is no requirement {word!r}", advice)
        found.update(named)
    return frozenset(found)


def certify(order: Order, tell: Tell = silent) -> Body:
    """Run the suite on the target, and take the target down again.

    Raises
    ------
    InputError
        What was asked for cannot be done: settings, limits, the target's class, its driver.
    StillframeError
        The system cannot be reached, or the target fails.
    KeyboardInterrupt
        Ctrl-C; what the check under way had made has been taken away.
    """
    began_s = time.monotonic()
    made_at = datetime.now(UTC).isoformat(timespec="seconds")
    options = order.options(tell)
    result = run_suite(order, options)
    return body_of(
        result,
        REQUIREMENTS[order.kind],
        run=options.run,
        only=options.only,
        made_at=made_at,
        wall_s=time.monotonic() - began_s,
    )


def save(body: Body, out: Path, key: Signer | None) -> Path:
    """Write a certificate with its page and its XML, signed if there is a key.

    Raises
    ------
    InputError
        The folder cannot be written.
    """
    from .figures import pictures  # matplotlib takes its time, and only this needs it

    signed_by = None if key is None else fingerprint(key.public)
    page = render(body, pictures(body), signed_by)
    return write_certificate(out, body, {PAGE: page.encode(), JUNIT: junit(body)}, key)


def run_suite(order: Order, options: SuiteOptions | None = None) -> SuiteResult:
    """The same without a certificate; raises alike.

    Parameters
    ----------
    options:
        Of the suite; those of the order unless given.
    """
    options = order.options() if options is None else options
    home = _SCRATCH if _SCRATCH.is_dir() else None
    folder = Path(tempfile.mkdtemp(prefix="sfc-", dir=home))
    try:
        target = make_target(order.target_class, order.word, order.config, folder, order.seed)
        suite = _SUITES[order.kind](target, options, REQUIREMENTS[order.kind])
        return _on_its_loop(target, suite, order.word)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _on_its_loop(target: Target[Any], suite: Any, word: str) -> SuiteResult:
    try:
        with asyncio.Runner(loop_factory=target.new_loop) as runner:
            result: SuiteResult = runner.run(suite)
            return result
    except StillframeError:
        raise
    except Exception as error:  # a vendor's class or driver, outside of any check
        raise StillframeError(f"{word} failed: {told(error)}") from error
    finally:
        suite.close()
