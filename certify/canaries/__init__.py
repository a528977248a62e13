"""Drivers that are broken on purpose: one at least for every requirement."""
