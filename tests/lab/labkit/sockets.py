"""Where a scenario's ports are in the lab. A scenario's host has one xHCI at 0000:00:14.0, bus 1 with eight ports, bus
2 the SuperSpeed side of the first four. Socket N of it is here the one port of dom0's dummy_hcd controller N-1 (any
device can be made there), or port N of the machine's first xHCI if a hub is plugged in there (only QEMU has hubs).
"""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

EMULATED = "0000:00:08.0"
EMULATED_PORTS = 4
GADGETS = 8
PORT = re.compile(r"([12])-([0-9]+)((?:\.[0-9*]+)*)\Z")
PATH = re.compile(r"pci-0000:00:14\.0-usb-0:([0-9]+)((?:\.[0-9*]+)*)\Z")

LIST_BUSES = """
gadget.sh prepare
cd /sys/bus/usb/devices
for bus in usb*; do
  cd -P $bus/..; read -r speed < $bus/speed; echo "${PWD##*/} ${bus#usb} $speed"; cd /sys/bus/usb/devices; done
"""
Buses = Mapping[str, tuple[int, int]]
"""Controller -> numbers of its USB 2 and SuperSpeed bus."""


def find_buses(must: Callable[[str], str]) -> Buses:
    """Makes dom0's gadget controllers and reads the numbers of all buses there."""
    buses: dict[str, tuple[int, int]] = {}
    for line in sorted(must(LIST_BUSES).splitlines(), key=lambda line: float(line.split()[2])):
        name, number, _speed = line.split()
        buses[name] = (buses.get(name, (int(number), 0))[0], int(number))
    return buses


@dataclass(frozen=True, slots=True)
class Sockets:
    """`emulated`: the sockets that QEMU serves."""

    buses: Buses
    emulated: Collection[int]

    def controller(self, socket: int) -> str:
        """The host controller of that socket; "" if there is no such socket."""
        if socket in self.emulated:
            return EMULATED if socket <= EMULATED_PORTS else ""
        return f"dummy_hcd.{socket - 1}" if 1 <= socket <= GADGETS else ""

    def port(self, text: str) -> str:
        """The lab's port (or pattern) for a scenario's ("1-4.*"). A port that the lab lacks stays as it is."""
        found = PORT.match(text)
        name = self.controller(int(found[2])) if found else ""
        if not (found and name):
            return text
        root = found[2] if name == EMULATED else "1"
        return f"{self.buses[name][int(found[1]) - 1]}-{root}{found[3]}"

    def path(self, text: str) -> str:
        """The lab's path, or pattern, for a scenario's."""
        found = PATH.match(text)
        name = self.controller(int(found[1])) if found else ""
        if not (found and name):
            return text
        if name == EMULATED:
            return f"pci-{name}-usb-0:{found[1]}{found[2]}"
        return f"platform-{name}-usb-0:1{found[2]}"

    def back(self, port: str) -> str:
        """The scenario's port for a lab's."""
        bus, _, rest = port.partition("-")
        for name, numbers in self.buses.items():
            if int(bus) in numbers and (name == EMULATED or name.startswith("dummy_hcd")):
                root, dot, below = rest.partition(".")
                socket = root if name == EMULATED else str(int(name.rpartition(".")[2]) + 1)
                return f"{numbers.index(int(bus)) + 1}-{socket}{dot}{below}"
        return port
