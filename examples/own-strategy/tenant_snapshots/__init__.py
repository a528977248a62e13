"""Snapshots for a shared estate: what is ours, beside what Stillframe brings."""
