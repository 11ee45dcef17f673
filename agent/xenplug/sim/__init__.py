"""The simulated host: what stands below the faces of core/faces.py when no real Xen host does."""
