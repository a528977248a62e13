"""The orchestrator: plain asyncio over driver contracts; it knows no model and no vendor."""
