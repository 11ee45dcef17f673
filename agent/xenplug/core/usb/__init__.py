"""USB devices: the data of sysfs and udev becomes the Device values that all other modules use."""
