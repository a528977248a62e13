"""Fixtures that pytest has to find by name."""

from support_lab import lab_is_lacking

__all__ = ["lab_is_lacking"]
