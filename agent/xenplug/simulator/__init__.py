"""The simulated host: implements core/protocols.py without a real Xen host."""
