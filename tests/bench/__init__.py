"""The bench: xenplug over real libudev, real xl and real xenstored, with no hypervisor and no USB hardware.

shims.py builds the C parts once (shim/). toolstack.py: the real xenstored and xl, domains (domains.py, xswire.py).
usb.py: a umockdev testbed to plug devices into (usbspec.py, records.py, tree.py, kernel.py), and its uevents
(uevents.py). player.py: what qemu and the guests' frontends do, with a process per device model (qemu.py, qusb.py,
qmp.py). catalogue.py: real devices; writes the recordings in ../data/umockdev.
"""
