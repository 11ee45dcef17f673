"""Converts policies from and to the configuration of other tools: xl.cfg, XCP-ng's usb-policy.conf, udev rules."""
