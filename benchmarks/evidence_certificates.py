"""``make evidence-certificates``: a signed certificate of every driver that ships.

Each is made by the command that a vendor uses, on the target that ships with the driver (for
vSphere: on the test endpoint), and verified. They go to ``out/certificates``, with a page that lays
them side by side. The key lives as long as this program; its public half is kept beside them.

Arguments are names of certificates (all, if none), and ``--effort``. Those of qsd and Ceph are made
at effort quick unless another is asked for: on two cores a standard run of qsd, with its five times
100 snapshots of a unit, had not ended after 20 minutes, and a quick one of Ceph takes nine.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from rich.console import Console

from .evidence import Figure, write_evidence

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "out" / "certificates"
CONSOLE = Console(stderr=True)
SEED = "1"
LIMIT_S = 3 * 3600.0
_KEY_ENV = "STILLFRAME_SIGNING_KEY"


class Shipped(NamedTuple):
    """A driver that ships: what its certificate is called, its kind, and its target."""

    name: str
    kind: str
    target: str
    effort: str = "standard"


SHIPPED = (
    Shipped("modelled-row", "array", "modelled-row"),
    Shipped("modelled-cow", "array", "modelled-cow"),
    Shipped("qsd", "array", "qsd", "quick"),
    Shipped("xfs-reflink", "array", "xfs-reflink"),
    Shipped("ceph-rbd", "array", "ceph-rbd", "quick"),
    Shipped("modelled", "hypervisor", "modelled"),
    Shipped("qemu", "hypervisor", "qemu"),
    Shipped("vsphere-endpoint", "hypervisor", "support_certify_vsim:VsphereEndpoint"),
)
VERDICTS = ("pass", "fail", "blocked", "absent as declared", "not tested")


def stillframe(*words: str, key: str = "", ok: tuple[int, ...] = (0,)) -> None:
    """Run the command line as a user does.

    Raises
    ------
    RuntimeError
        It ends with another exit code than these.
    """
    tests = os.pathsep.join([str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "PYTHONPATH": tests.rstrip(os.pathsep)} | ({_KEY_ENV: key} if key else {})
    command = [sys.executable, "-m", "stillframe", *words]
    done = subprocess.run(
        command, cwd=ROOT, env=env, check=False, stdout=subprocess.DEVNULL, timeout=LIMIT_S
    )
    if done.returncode not in ok:
        raise RuntimeError(f"`{' '.join(words)}` ended with {done.returncode}")


def certified(one: Shipped, effort: str, private: str, public: Path) -> dict[str, Any]:
    """Make and verify one certificate; its body."""
    CONSOLE.print(f"certifying {one.name} ({effort})", highlight=False)
    folder = OUT / one.name
    shutil.rmtree(folder, ignore_errors=True)
    words = ("certify", one.kind, one.target, "--seed", SEED, "--effort", effort)
    # A driver that breaks a requirement is a result, and written down.
    stillframe(*words, "--out", str(folder), key=private, ok=(0, 1))
    stillframe("certify", "verify", str(folder), "--key", str(public))
    envelope = json.loads((folder / "certificate.json").read_text(encoding="utf-8"))
    body: dict[str, Any] = envelope["body"]
    return body


def figures_of(one: Shipped, body: dict[str, Any]) -> list[Figure]:
    """How often each verdict came up, and what the data were."""
    results = body["requirements"]
    counts = Counter(result["verdict"] for result in results)
    aims = {"fail": "== 0 requirements", "blocked": "== 0 requirements"}
    figures = [
        Figure(f"{one.name}: {verdict}", counts[verdict], "requirements", aims.get(verdict))
        for verdict in VERDICTS
    ]
    compared = sum(result["compared_bytes"] for result in results)
    holding = sum(result["compared_bytes"] > 0 for result in results)
    return [
        *figures,
        Figure(f"{one.name}: requirements that compared data", holding, "requirements"),
        Figure(f"{one.name}: data compared", compared / 2**20, "MiB"),
        Figure(f"{one.name}: time taken", body["made"]["wall_s"], "s"),
    ]


def main() -> None:
    """Certify, verify, lay side by side, write the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--effort", help="default: the one of each certificate")
    chosen = parser.parse_args()
    unknown = set(chosen.names) - {one.name for one in SHIPPED}
    if unknown:
        parser.error(f"no certificate is called {', '.join(sorted(unknown))}")
    wanted = [one for one in SHIPPED if not chosen.names or one.name in chosen.names]
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    OUT.mkdir(parents=True, exist_ok=True)
    public = OUT / "public.pem"
    public.write_bytes(
        key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    bodies = {one: certified(one, chosen.effort or one.effort, private, public) for one in wanted}
    folders = [str(OUT / one.name) for one in wanted]
    stillframe("certify", "matrix", *folders, "--out", str(OUT / "matrix.html"), "--force")
    figures = [figure for one, body in bodies.items() for figure in figures_of(one, body)]
    efforts = {one.name: chosen.effort or one.effort for one in wanted}
    write_evidence("certificates", figures, {"efforts": efforts, "seed": SEED})


if __name__ == "__main__":
    main()
