"""Reads the output of the guests (image/guest-init) from their console logs in dom0
(/var/log/xen/console/guest-NAME.log, which xenconsoled appends to across reboots).
"""

import re
from dataclasses import dataclass

LOG = "/var/log/xen/console/guest-{}.log"


@dataclass(frozen=True, slots=True)
class Seen:
    """A USB device as the guest sees it: tag "0627:0001", speed in Mb/s ("480"), the count of its interfaces that the
    guest configured, product text, and the guest's own port ("1-1")."""

    tag: str
    speed: str
    product: str
    interfaces: int
    port: str


def boots(text: str) -> int:
    """How often the guest has booted."""
    return text.count("XPLAB boot")


def last_report(text: str) -> tuple[Seen, ...] | None:
    """The guest's last complete report, or None when it has not made one since it last booted."""
    since_boot = text.rpartition("XPLAB boot")[2]
    reports = re.findall(r"XPLAB begin\s*\n(.*?)XPLAB end", since_boot.replace("\r", ""), re.DOTALL)
    if not reports:
        return None
    lines = re.findall(r"XPLAB dev (\S+) (\S+) (\S*) (\d+) ?(.*)", reports[-1])
    return tuple(Seen(tag, speed, product.strip(), int(count), port) for port, tag, speed, count, product in lines)
