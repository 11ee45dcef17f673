"""The simulated host: what stands below the faces of core/protocols.py when no real Xen host does."""
