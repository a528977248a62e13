"""The conformance kit: requirements of drivers, checks, canaries and certificates.

What a vendor needs is here: the classes of which a target is made. docs/certify.md has the rest.
"""

from __future__ import annotations

from .array_target import ArrayTarget, ScratchUnit
from .hypervisor_target import HypervisorTarget, ScratchVm

__all__ = ["ArrayTarget", "HypervisorTarget", "ScratchUnit", "ScratchVm"]
