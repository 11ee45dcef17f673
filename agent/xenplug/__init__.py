"""xenplug: a udev-driven USB hotplug policy agent for Xen's dom0."""

__version__ = "0.1.0"
