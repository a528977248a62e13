"""The targets that ship: the systems that our own drivers are certified on."""
