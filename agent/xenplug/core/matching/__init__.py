"""Which rule a device falls under, and whose it is."""
