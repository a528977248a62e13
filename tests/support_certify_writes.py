"""Chains of writes that nobody made, and images of them as arrays of all kinds would show them."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any, cast

from stillframe.certify.stamps import Held, Plan
from stillframe.certify.writers import Chain, Writers


@dataclass
class MadeUp:
    """Writes on paper: each takes effect at some moment between its beginning and its end."""

    rng: random.Random
    units: int
    chains: list[Chain] = field(default_factory=list)
    effects_s: list[list[float]] = field(default_factory=list)

    def write(self, chains: int, writes: int, spacing_s: float = 0.001, slots: int = 4) -> None:
        """Chains over all units; each write takes about ``spacing_s``."""
        order = list(range(self.units))
        self.rng.shuffle(order)
        for number in range(chains):
            plan = Plan(self.rng.getrandbits(64), tuple(order), number * slots * 4096, 4096, slots)
            chain, effects = Chain(plan), []
            at_s = self.rng.uniform(0, spacing_s)
            for _ in range(writes):
                end_s = at_s + spacing_s * self.rng.uniform(0.5, 1.5)
                chain.issued_s.append(at_s)
                chain.acknowledged_s.append(end_s)
                effects.append(self.rng.uniform(at_s, end_s))
                at_s = end_s + spacing_s * self.rng.uniform(0, 0.01)
            self.chains.append(chain)
            self.effects_s.append(effects)
            order = order[::-1]

    @property
    def writers(self) -> Writers:
        """What judges images, as far as it needs to be writers."""
        return cast("Writers", _Paper(self.chains))

    @property
    def end_s(self) -> float:
        """When the first chain ends."""
        return min(chain.acknowledged_s[-1] for chain in self.chains)

    def image(self, cut_s: dict[int, float]) -> list[dict[tuple[int, int], Held | None]]:
        """What is held of units that are cut at these times."""
        return [
            {
                (unit, slot): self._slot(chain.plan, effects, unit, slot, at_s)
                for unit, at_s in cut_s.items()
                for slot in range(chain.plan.slots)
            }
            for chain, effects in zip(self.chains, self.effects_s, strict=True)
        ]

    @staticmethod
    def _slot(plan: Plan, effects: list[float], unit: int, slot: int, at_s: float) -> Held:
        numbers = [
            number
            for number, effect_s in enumerate(effects, 1)
            if effect_s <= at_s and plan.place(number) == (unit, slot)
        ]
        last = max(numbers, default=0)
        return Held(last, last)


@dataclass
class _Paper:
    chains: list[Any]
