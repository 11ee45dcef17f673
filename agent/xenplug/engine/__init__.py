"""The loop: observes, plans, acts and reports. Knows backends only by core/protocols."""
