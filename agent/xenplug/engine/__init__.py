"""The loop: it observes, plans, acts and reports. It uses the backends through core/protocols only."""
