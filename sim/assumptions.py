"""What a reader of a modelled result has to know: which numbers went in, and how good they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..drivers.records import Estate
from ..quantity import format_seconds
from .array_profiles import ArrayProfile
from .config import WorldConfig
from .faults import NO_FAULTS
from .guest_rules import GuestRule, GuestRules

INFERENCE = "inference"
CONFIGURED = "set in the configuration"


def assumptions(config: WorldConfig, estate: Estate) -> list[str]:
    """Sentences on the profiles in use, their sources, and what the model leaves out."""
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
    if config.faults != NO_FAULTS:
        given = config.faults.model_dump(exclude_defaults=True)
        said.append(f"Faults are injected: {', '.join(f'{k} {v}' for k, v in given.items())}.")
    said.append(
        "Flow fidelity: no event per I/O. Delta sizes and overwrites follow write profiles; a VM's "
        "writes spread over its disks by capacity."
    )
    return said


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
