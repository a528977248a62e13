"""Every requirement that Stillframe has of an array driver, one test each."""

from __future__ import annotations

from pathlib import Path

from stillframe.pytest_certify import conformance

from acme_array.certification import AcmeTarget

test_conformance = conformance(AcmeTarget, Path(__file__).parents[1] / "vendor.yaml")
