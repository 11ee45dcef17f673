"""`xenplug doctor`: what is known to go wrong on a Xen host, each trap a check over facts, with its remedy.

facts.py says what is known of a host (read by adapters/doctor_facts.py), findings.py what a check reports; the checks
are in toolstack.py, configs.py, running.py and host.py, and checks.py lists them all. Pure: a host is a value.
"""
