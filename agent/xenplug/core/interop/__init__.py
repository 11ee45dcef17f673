"""Policies from and to what other tools are configured by: xl.cfg, XCP-ng's usb-policy.conf, udev rules."""
