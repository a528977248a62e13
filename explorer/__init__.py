"""Exploration: the same job under many seeds, faults and crashes, and what must hold in each."""
