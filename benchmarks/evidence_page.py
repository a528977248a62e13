"""``make evidence-page``: docs/evidence.md from out/evidence, nothing typed by hand."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from .evidence import OUT

PAGE = Path(__file__).resolve().parents[1] / "docs" / "evidence.md"
TOPICS = {
    "determinism": """One seed is run in three processes with different PYTHONHASHSEED, and on the
other Pythons that were found. The jobs have jittered latencies, injected faults and, most of them,
a cancellation. The control uses asyncio's stock tasks, whose sets are ordered by address: it shows
that the comparison can fail.""",
    "trace": """The write profile that ships against a brute-force replay of the trace it was
measured from: 500 random phases, durations that are not on the profile's grid. Then, without an
aim, what a part of the trace predicts for the rest. This trace bursts, and the predictions show
what that means: a part without the burst knows nothing of it. See [write
profiles](write-profiles.md).""",
    "scale": """A run is everything from an estate in memory to a finished result: inventory through
the drivers, topology, plan, job. Costs are CPU times, also in units of a bare SimPy process timeout
(among 1,000 processes) measured in the same process.""",
    "vsphere": """Against the endpoint of docs/vsphere-endpoint.md on this machine, in one run: the
driver beside a plain pyvmomi script that creates and removes the same snapshots with 32 threads,
each looking at its own task every 100 ms; tasks take 1.5 s. And the inventory of `estate pull`
beside a full read of `config` for the same VMs.""",
    "ablation": """The whole is explored over all shipped scenarios. Then each safeguard of the
orchestrator is edited out of a copy of the source ([the edits](../benchmarks/safeguards.py)) and
the same scenarios are explored without it. The table below says what each is for, which invariants
break ([what they say](exploring.md)), and the seed that shows it first.""",
    "crash": """In the modelled world the job is killed at every step of its event loop and at every
event, and in pairs with a second death during recovery; then it is recovered and every invariant
judged, in both fidelities. For real, the process of a live run against the test endpoint is killed
with SIGKILL at random moments, and `stillframe recover` is run; the array is a modelled one that
keeps its snapshots in a file. See [recovery](recovery.md).""",
    "throughput": """A run is everything from drawn options to judged invariants, of all ten VMs of
`ten-vms` with faults, deaths and recoveries; CPU time of one process. The same seeds run in every
arm. A WAL file lies as in exploration: in memory where the machine has such a folder, and not
synchronised, because a process that is killed loses nothing by that.""",
    "journal": """A job of 1,000 VMs with its journal in memory and in a file that is synchronised
before every create. In the modelled world nothing else takes wall time, so the file's share is at
its largest there, and the job's own virtual makespan stands beside it; against the endpoint,
operations take 0.5 s. Then the journal of a killed job is cut off at every byte of its last
record.""",
    "fidelity": """Random small scenarios, run in flow and in block fidelity. The tolerance is in
standard deviations of the block model's own sampling, because a process of single writes scatters
around the mean that the flow model knows. See [fidelity](fidelity.md).""",
    "lab": """Real QEMU guests on the units of each open array, on this machine: whole jobs, then
every image in the unit snapshots read through a clone and judged by what is in it; the negative
controls that have to fail; and QEMU, array daemon or the job's own process killed in mid-operation,
then recovered. See [the lab](lab.md) and [verification](verification.md).""",
    "validation": """The model is fitted to live runs of some numbers of guests and write loads, and
predicts the others, of the same session. Errors are those of the predicted p50 and p95 against the
measured ones. Table and method: [validation](validation.md).""",
    "canaries": """For every requirement of the conformance kit there is a driver that is broken in
just that way. Each runs against all requirements on the modelled reference; [the
matrix](canaries.md) says what else fails with it, and [the kit's list](requirements.md) what each
asks. The reference drivers
themselves run twenty times, with other seeds. The other kits' numbers are those of their sources:
csi-sanity 95 checks, libstoragemgmt's plugin test 54, none of which writes data and compares
it.""",
    "certificates": """The kit on every driver that ships, each on a system of its own: modelled
arrays and hypervisor, the three open arrays, QEMU with real guests, and the vSphere driver against
the endpoint of docs/vsphere-endpoint.md. What is not tested is in each certificate by name; why is
in the pages of the drivers.""",
    "vendor": """The commands of docs/certify.md, typed by a program into an empty folder with
nothing but the wheel and the example's package, in a fresh virtual environment; then each file of
the certificate is edited and has to be refused.""",
}
HEAD = """# Evidence

Generated by `make evidence-page` from what `make evidence-TOPIC` measured. An aim that was missed
says so; nobody edits an aim. Machines differ and are noisy: trust ratios before times.
"""


def section(topic: str, about: str) -> str:
    """The figures of one topic with date and machine."""
    figures = json.loads((OUT / f"{topic}.json").read_text(encoding="utf-8"))
    where = json.loads((OUT / f"{topic}.machine.json").read_text(encoding="utf-8"))
    python = f"{where['implementation']} {where['python']}"
    machine = f"{where['cpus']} CPUs, {where['platform']}, {python}"
    lines = [
        f"\n## `make evidence-{topic}`\n",
        f"{about}\n",
        f"Measured {where['date']} on {machine}.\n",
        "| figure | value | aim | met |",
        "|---|---|---|---|",
    ]
    lines += [row(figure) for figure in figures]
    if "profile_at_10000" in where:
        lines += ["\nWhere the time goes, own time by function under the profiler at 10,000 VMs:\n"]
        lines += ["| function | calls | share |", "|---|---|---|"]
        lines += [
            f"| `{entry['function']}` | {entry['calls']:,} | {entry['own_share']:.1%} |"
            for entry in where["profile_at_10000"]
        ]
    if topic == "ablation":
        lines += ablation(where["table"])
    return "\n".join(lines) + "\n"


def ablation(table: list[dict[str, Any]]) -> list[str]:
    """What each safeguard is for, and what happens without it."""
    lines = ["\n| safeguard | without it | breaks | first seen | runs in 10,000 |"]
    lines += ["|---|---|---|---|---|"]
    for entry in table:
        breaks = ", ".join(name.partition(" ")[0] for name in entry["breaks"]) or "**nothing**"
        seen = "" if entry["first"] is None else f"`stillframe replay {entry['first']}`"
        lines.append(
            f"| {entry['safeguard']}: {entry['purpose']} | {entry['sentence'] or ''} | {breaks} "
            f"| {seen} | {entry['per_10000']:,.0f} |"
        )
    return lines


def row(figure: dict[str, Any]) -> str:
    """One line of a table."""
    value = figure["value"]
    number = "–" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"
    value = f"{number} {figure['unit'] if value is not None else ''}".strip()
    met = {True: "yes", False: "**no**", None: ""}[figure["met"]]
    return f"| {figure['name']} | {value} | {figure['aim'] or ''} | {met} |"


def main() -> None:
    """Write the page; every topic must have been measured."""
    missing = [topic for topic in TOPICS if not (OUT / f"{topic}.json").is_file()]
    if missing:
        sys.exit(f"measure first: {' '.join(f'make evidence-{topic}' for topic in missing)}")
    PAGE.write_text(HEAD + "".join(map(section, TOPICS, TOPICS.values())), encoding="utf-8")
    print(PAGE.relative_to(PAGE.parents[1]))


if __name__ == "__main__":
    main()
