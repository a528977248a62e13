"""The conformance kit: requirements of drivers, checks, canaries and certificates."""
