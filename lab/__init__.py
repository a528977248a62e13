"""The live lab: real QEMU guests with file systems on datastores on the units of an open array."""
