"""USB devices: from what sysfs and udev say of one to the Device that the rest speaks of."""
