"""`xenplug doctor`: checks for known problems of a Xen host, each with its remedy.

facts.py describes a host (adapters/doctor_facts.py reads it), findings.py the result of a check. The checks are in
toolstack.py, configs.py, usbctrl.py, running.py, usbhost.py, holders.py and host.py; checks.py lists them all. Pure: a
host is a value.
"""
