"""Scenario files: their schema, the ones that ship, and the estate generator."""
