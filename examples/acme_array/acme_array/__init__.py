"""An array, a driver for it, and its certification: what a vendor writes."""
