"""The lab: a real Xen host under QEMU's software emulation, driven from Python. `Lab` is what tests use;
docs/dev/lab.md says how to build and boot it."""

from labkit.lab import Lab, LabDownError
from labkit.waiting import wait_until

__all__ = ["Lab", "LabDownError", "wait_until"]
