"""Stillframe: array-assisted VM snapshots, orchestrated for real and measured in a model."""

__version__ = "0.1.0"
