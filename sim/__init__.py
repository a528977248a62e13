"""The modelled world: an asyncio loop on SimPy, and a hypervisor, guests and arrays on it."""
