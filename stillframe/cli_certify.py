"""``stillframe certify``: certificates issued, verified, and laid side by side."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .cli_common import (
    ExitCode,
    count,
    emit_json,
    may_write,
    notice,
    print_table,
    progress,
    say,
    table,
)
from .cli_options import ForceOption, JsonOption, whole_number
from .errors import InputError

if TYPE_CHECKING:
    from .certify.certificate import Body
    from .certify.folder import Certificate

EXIT_CODES = (
    "Exit codes: 0 conformant, 1 a requirement is broken or blocked (or none was met), 2 the input "
    "cannot be used, 3 the system cannot be reached or something failed, 130 interrupted with "
    "Ctrl-C."
)
VERIFY_EXIT_CODES = (
    "Exit codes: 0 signed and unchanged, 2 not (or it cannot be read), whatever its verdict."
)
_KINDS = ("array", "hypervisor")
_EFFORTS = ("quick", "standard", "thorough")

certify_app = typer.Typer(help="Whether a driver keeps its contract: run the kit, sign the result.")


def _effort(text: str) -> str:
    if text not in _EFFORTS:
        raise typer.BadParameter(f"{text!r} is none of {', '.join(_EFFORTS)}")
    return text


TargetArgument = Annotated[
    str, typer.Argument(metavar="TARGET", help="An installed target's name, or module:Class.")
]
VendorOption = Annotated[
    Path | None,
    typer.Option("--config", metavar="VENDOR.yaml", help="Settings, limits and effort."),
]
OutOption = Annotated[
    Path | None,
    typer.Option("--out", metavar="FOLDER", help="Where it goes; default: out/certificates/NAME."),
]
KitSeedOption = Annotated[
    int | None,
    # A parser gets the default too, and this one reads text.
    typer.Option(
        "--seed",
        metavar="N",
        parser=whole_number,
        help="Of the checks' random choices, and of a modelled target. [default: 1]",
    ),
]
EffortOption = Annotated[
    str | None,
    typer.Option(
        "--effort",
        metavar="|".join(_EFFORTS),
        parser=_effort,
        help="How often to repeat what only repeating shows. [default: standard]",
    ),
]
OnlyOption = Annotated[
    list[str] | None,
    typer.Option("--only", metavar="ID", help="A requirement, or a topic (ARR-GRP); repeatable."),
]
KeyOption = Annotated[
    Path | None,
    typer.Option(
        "--key",
        metavar="SIGNING.pem",
        help="Sign with this Ed25519 private key; default: $STILLFRAME_SIGNING_KEY.",
    ),
]


@certify_app.command(epilog=EXIT_CODES)
def array(
    target: TargetArgument,
    config: VendorOption = None,
    out: OutOption = None,
    seed: KitSeedOption = None,
    effort: EffortOption = None,
    only: OnlyOption = None,
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> int:
    """Certify an array driver on an array whose scratch units are overwritten."""
    return _certify("array", target, config, out, seed, effort, only, key, as_json=as_json)


@certify_app.command(epilog=EXIT_CODES)
def hypervisor(
    target: TargetArgument,
    config: VendorOption = None,
    out: OutOption = None,
    seed: KitSeedOption = None,
    effort: EffortOption = None,
    only: OnlyOption = None,
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> int:
    """Certify a hypervisor driver on VMs that may be snapshotted and written in."""
    return _certify("hypervisor", target, config, out, seed, effort, only, key, as_json=as_json)


def _certify(
    kind: str,
    target: str,
    config: Path | None,
    out: Path | None,
    seed: int | None,
    effort: str | None,
    only: list[str] | None,
    key: Path | None,
    *,
    as_json: bool,
) -> int:
    from .certify.config import VendorConfig, load_vendor
    from .certify.folder import check_out
    from .certify.issue import Order, certify, save
    from .certify.loading import load_target
    from .certify.signing import fingerprint, signer_from

    vendor = VendorConfig() if config is None else load_vendor(config)
    signer = signer_from(key)
    chosen = load_target(target, kind)
    folder = out or Path("out/certificates") / _slug(vendor.name or target)
    check_out(folder)
    number = 1 if seed is None else seed
    order = Order(kind, target, chosen, vendor, number, effort, tuple(only or ()))
    with progress("Certifying") as show, _ended_like_ctrl_c():
        body = certify(order, show)
        show("writing", None)
        mark = None if signer is None else fingerprint(signer.public)
        file = save(body, folder, signer)
    if as_json:
        emit_json({"folder": str(folder), "signed_by": mark, **body.plain()})
    else:
        _tell(body, file, mark)
    if mark is None:
        notice(
            "THE CERTIFICATE IS NOT SIGNED, and `stillframe certify verify` refuses it; "
            "sign with --key SIGNING.pem or $STILLFRAME_SIGNING_KEY"
        )
    return ExitCode.PROTECTED if body.conformant else ExitCode.PARTLY


@contextmanager
def _ended_like_ctrl_c() -> Iterator[None]:
    """Let SIGTERM do what Ctrl-C does: cancel the check, clean up, take the target down."""

    def end(*_: object) -> None:
        # A shell has what runs in the background ignore Ctrl-C; SIGTERM has to end that too.
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            raise KeyboardInterrupt
        signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _slug(name: str) -> str:
    """A name as a folder: of `module:Class` the class."""
    return re.sub(r"[^a-z0-9._-]+", "-", name.rpartition(":")[2].lower()).strip("-.") or "target"


def _tell(body: Body, file: Path, mark: str | None) -> None:
    from .certify.outcome import Verdict
    from .certify.page import MARKS, reasons, sentence
    from .quantity import format_seconds

    say(f"{body.target}: {body.verdict.upper()} – {sentence(body)}")
    if body.only:
        say(
            f"Only {count(len(body.only), 'requirement')} asked for (--only): a partial certificate"
        )
    _tell_levels(body)
    for result in body.of(Verdict.FAIL, Verdict.BLOCKED):
        say(f"{MARKS[result.verdict]} {result.id} {result.verdict.value}: {result.reason}")
        say(f"    {result.sentence}")
    for verdict in (Verdict.NOT_TESTED, Verdict.ABSENT):
        for reason, results in reasons(body, verdict):
            say(f"{MARKS[verdict]} {verdict.value}, {reason}:")
            say(f"    {', '.join(result.id for result in results)}")
    took = f"{format_seconds(body.duration_s)} on the suite's clock, seed {body.seed}"
    say(f"Took {format_seconds(body.made.wall_s)} ({took}, effort {body.effort})")
    say(f"Certificate: {file.parent / 'certificate.html'}")
    if mark is not None:
        say(f"Signed by {mark}")


def _tell_levels(body: Body) -> None:
    verdicts = list(body.summary)
    heads = ["level", *(verdict.value for verdict in verdicts)]
    rows = table("By level", heads, range(1, len(heads)))
    for level, counts in body.levels.items():
        rows.add_row(level.value, *(str(counts[verdict]) for verdict in verdicts))
    rows.add_row("all", *(str(body.summary[verdict]) for verdict in verdicts))
    print_table(rows)


@certify_app.command(epilog=VERIFY_EXIT_CODES)
def verify(
    certificate: Annotated[
        Path, typer.Argument(metavar="CERTIFICATE", help="Its folder, or certificate.json.")
    ],
    key: Annotated[
        Path | None,
        typer.Option(
            "--key", metavar="PUBLIC.pem", help="The public key that it has to be signed by."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check that a certificate is signed and unchanged, and say by which key and what it says.

    The kit is held against the one installed here, if that is of the same version.
    """
    from .certify.folder import check_kit, read_certificate
    from .certify.signing import public_key_from

    wanted = None if key is None else public_key_from(key)
    found = read_certificate(certificate, wanted)
    if found.fingerprint is None:
        advice = "anyone may have written it; ask for one that is signed"
        raise InputError(str(found.path), "signature", "the certificate is not signed", advice)
    same_kit = check_kit(found)
    if as_json:
        emit_json(_verified(found, pinned=key is not None, same_kit=same_kit))
        return
    body = found.body
    say(f"{found.path}: signed and unchanged")
    say(f"Signed by {found.fingerprint}")
    if key is None:
        say("  whose key that is was not checked: give --key PUBLIC.pem of the one you trust")
    else:
        say(f"  which is the key in {key}")
    say(f"It says that {body.target} ({body.driver_package}) is {body.verdict}, {body.made.at}")
    counts = (f"{number} {verdict.value}" for verdict, number in body.summary.items() if number)
    say(f"  {', '.join(counts)}")
    if body.only:
        asked = count(len(body.only), "requirement")
        say(f"  of the {asked} asked for only: a partial certificate")
    kit = f"The kit was that of stillframe {body.kit.version}"
    say(f"{kit}, unchanged" if same_kit else f"{kit}, which is not the one here: not compared")


def _verified(found: Certificate, *, pinned: bool, same_kit: bool) -> dict[str, Any]:
    body = found.body
    return {
        "certificate": str(found.path),
        "signed_by": found.fingerprint,
        "key_checked": pinned,
        "kit_checked": same_kit,
        "target": body.target,
        "driver": body.driver,
        "driver_package": body.driver_package,
        "made": body.made.at,
        "verdict": body.verdict,
        "only": list(body.only),
        "summary": {verdict.value: number for verdict, number in body.summary.items()},
        "kit": body.kit.model_dump(),
    }


@certify_app.command("list")
def list_requirements(
    kind: Annotated[
        str | None, typer.Argument(metavar="[array|hypervisor]", help="Of which drivers.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List what drivers are held to: requirements, and the limits that a vendor may state."""
    from .certify.issue import LIMITS, REQUIREMENTS

    if kind is not None and kind not in _KINDS:
        raise InputError(
            "KIND", "", f"{kind!r} is no kind of driver", f"one of {', '.join(_KINDS)}"
        )
    kinds = _KINDS if kind is None else (kind,)
    if as_json:
        emit_json({one: _listed(REQUIREMENTS[one], LIMITS[one]) for one in kinds})
        return
    for one in kinds:
        _tell_requirements(one)


def _tell_requirements(kind: str) -> None:
    """A line for each, not a table: sentences are long, and whoever looks for one greps."""
    from itertools import groupby

    from .certify.issue import LIMITS, REQUIREMENTS

    for topic, requirements in groupby(REQUIREMENTS[kind], key=lambda one: one.topic):
        say(f"{topic[:1].upper()}{topic[1:]}")
        for requirement in requirements:
            takes = _takes(requirement)
            line = f"  {requirement.id}  {requirement.level.value:11}  {requirement.sentence}"
            say(f"{line} [{takes}]" if takes else line)
    if LIMITS[kind]:
        say("Limits that a vendor may state")
    for name, meaning in LIMITS[kind].items():
        say(f"  {name.removesuffix('_s')}: {meaning}")
    say(f"{count(len(REQUIREMENTS[kind]), 'requirement')} of {kind} drivers")


def _takes(requirement: Any) -> str:
    parts = [requirement.capability or "", *requirement.hooks, *requirement.roles]
    if requirement.units > 1:
        parts.append(f"{requirement.units} units")
    return ", ".join(part for part in parts if part)


def _listed(requirements: Any, limits: Any) -> dict[str, Any]:
    return {
        "requirements": [
            {
                "id": one.id,
                "sentence": one.sentence,
                "topic": one.topic,
                "level": one.level.value,
                "capability": one.capability,
                "hooks": list(one.hooks),
                "units": one.units,
                "roles": list(one.roles),
            }
            for one in requirements
        ],
        "limits": {name.removesuffix("_s"): meaning for name, meaning in limits.items()},
    }


@certify_app.command()
def matrix(
    certificates: Annotated[
        list[Path], typer.Argument(metavar="CERTIFICATE...", help="Folders of certificates.")
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE.html", help="Write the page into this file.")
    ],
    force: ForceOption = False,
) -> None:
    """Lay several certificates side by side on one page: what each driver can do, and was shown."""
    from .certify.folder import read_certificate
    from .certify.matrix import render_matrix

    may_write(out, force=force, suffix=".html")
    found = [read_certificate(one) for one in certificates]
    out.write_text(render_matrix(found), encoding="utf-8")
    say(f"Matrix: {out}")
