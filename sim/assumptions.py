"""What a reader of a modelled result has to know: which numbers went in, and how good they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..drivers.records import Estate
from ..orchestrator.spec import Timeouts
from ..quantity import format_seconds
from .array_profiles import ArrayProfile
from .config import WorldConfig
from .faults import Site
from .guest_rules import GuestRule, GuestRules

INFERENCE = "inference"
CONFIGURED = "set in the configuration"


def assumptions(config: WorldConfig, estate: Estate, timeouts: Timeouts) -> list[str]:
    """Sentences on the profiles in use, their sources, and what the model leaves out.

    Parameters
    ----------
    config, estate:
        The world and what is in it.
    timeouts:
        Those of the job, against which faults are held that take effect late.
    """
    hypervisor = config.hypervisor
    origins = _origins(hypervisor.sources)
    said = [f"Hypervisors follow profile {hypervisor.profile}: {origins} (docs/model-numbers.md)."]
    profiles: dict[str, list[str]] = {}
    for array in estate.arrays:
        sentence = _array_sentence(config.array_profile(array.id, array.name))
        profiles.setdefault(sentence, []).append(array.name)
    said += [f"Array {' and '.join(names)}: {text}" for text, names in profiles.items()]
    rules = (
        config.guests
        if any(rule.match == "*" for rule in config.guests)
        else (
            *config.guests,
            GuestRule(),
        )
    )
    said += [_guest_sentence(rule) for rule in rules]
    if config.faults.sites:
        named = ", ".join(site.value for site in Site if site in config.faults.sites)
        said.append(f"Faults are injected: {named} (docs/faults.md).")
        said += config.faults.beyond_claims(timeouts)
    said.append(_fidelity_sentence(config))
    return said


def _fidelity_sentence(config: WorldConfig) -> str:
    spread = "a VM's writes spread over its disks by capacity."
    if config.fidelity == "flow":
        return (
            "Flow fidelity: no event per I/O. Delta sizes and overwrites follow write profiles; "
            f"{spread}"
        )
    block = config.block
    return (
        "Block fidelity: every write is followed, and snapshots can be read back. Guests are "
        f"steady writers without the bursts of a trace, {block.durable_share:.0%} of their blocks "
        f"written durably, at most {block.most_writes_per_s:g} writes/s each in larger pieces "
        f"(docs/fidelity.md); {spread}"
    )


def _array_sentence(profile: ArrayProfile) -> str:
    sources = {
        field: profile.source_of(field)
        for field in type(profile).model_fields
        if field not in ("profile", "sources")
    }
    return f"profile {profile.profile}, {profile.method.value}, {_origins(sources)}."


def _origins(sources: Mapping[str, str]) -> str:
    inferred = _count(sources.values(), INFERENCE)
    configured = _count(sources.values(), CONFIGURED)
    text = f"{len(sources) - inferred - configured} numbers with a source, {inferred} by inference"
    return f"{text}, {configured} set in the scenario" if configured else text


def _count(sources: Iterable[str], kind: str) -> int:
    return sum(source.startswith(kind) for source in sources)


def _guest_sentence(rule: GuestRule) -> str:
    _, profile = GuestRules((rule,)).of(rule.match)
    name = rule.profile if isinstance(rule.profile, str) else "a steady writer"
    who = "All guests" if rule.match == "*" else f"Guests named {rule.match}"
    return (
        f"{who} write like {name} ({profile.source}), each from a phase of its own in a cycle of "
        f"{format_seconds(profile.period_s)}, times a lognormal factor of median "
        f"{rule.scale_median:g} (sigma {rule.scale_sigma:g})."
    )
