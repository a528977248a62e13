"""The requirements and their checks: one module per topic."""
