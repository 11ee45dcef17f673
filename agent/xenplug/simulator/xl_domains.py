"""list, domid, domname, info, qemu-monitor-command and the domain commands of the simulated xl (xen-facts 1.6, 1.8)."""

from __future__ import annotations

import json
from collections.abc import Callable

from xenplug.simulator.answers import Answer, XlRefusal
from xenplug.simulator.domain import SimGuest
from xenplug.simulator.guests import Guests
from xenplug.simulator.toolstack import SimulatedToolstack, XlCall

LIST_HEADER = f"{'Name':<40} {'ID':>5} {'Mem':>5} VCPUs\tState\tTime(s)\n"
CAPS = "pv hvm"
WITH_IOMMU = "pv hvm hvm_directio pv_directio hap iommu_hap_pt_share vmtrace"
ACTS: dict[str, Callable[[Guests, str], None]] = {
    "destroy": Guests.destroy,
    "shutdown": Guests.stop,
    "reboot": Guests.reboot,
    "pause": Guests.pause,
    "unpause": Guests.unpause,
    "suspend": Guests.suspend,
    "resume": Guests.resume,
}


async def list_domains(host: SimulatedToolstack, call: XlCall, words: list[str]) -> Answer:
    names = [word for word in words if not word.startswith("-")]
    only = host.find(names[0]) if names else None
    await host.turn()
    if "-l" in words:
        return _long(host, only)
    rows = {0: _row("Domain-0", 0, "r-----")}
    rows |= {guest.domid or 0: _row(guest.name, guest.domid or 0, _letters(guest)) for guest in host.guests.domains()}
    if only is None:
        return Answer(stdout=LIST_HEADER + "".join(rows.values()))
    if only not in rows:
        raise XlRefusal(f"Error: Domain '{names[0]}' does not exist.\n")
    return Answer(stdout=LIST_HEADER + rows[only])


def _long(host: SimulatedToolstack, only: int | None) -> Answer:
    """The configurations as JSON; a domain without one (yet) is omitted, with exit 0 (xen-facts 1.6)."""
    found = [guest for guest in host.guests.domains() if guest.ready and only in (None, guest.domid)]
    configs = [{"domid": guest.domid, "config": _config(guest)} for guest in found]
    return Answer(stdout=json.dumps(configs, indent=4) + "\n")


def _config(guest: SimGuest) -> dict[str, object]:
    allowed = "enabled" if guest.config.passthrough else "disabled"
    return {"c_info": {"type": str(guest.config.type), "name": guest.name, "passthrough": allowed}}


def _row(name: str, domid: int, letters: str) -> str:
    return f"{name:<40} {domid:>5} {256:>5} {1:>5}     {letters}  {0:>8.1f}\n"


def _letters(guest: SimGuest) -> str:
    if guest.ending:
        return f"---s{guest.ending}-"
    return "--p---" if guest.paused else "-b----"


async def domid(host: SimulatedToolstack, call: XlCall, words: list[str]) -> Answer:
    await host.turn()
    for number, name in host.names().items():
        if name == words[0]:
            return Answer(stdout=f"{number}\n")
    raise XlRefusal(f"Can't get domid of domain name '{words[0]}', maybe this domain does not exist.\n")


async def domname(host: SimulatedToolstack, call: XlCall, words: list[str]) -> Answer:
    await host.turn()
    if not words[0].isdigit():
        raise XlRefusal(f"Invalid domain id.\n\n{words[0]}\n")
    name = host.names().get(int(words[0]))
    if name is None:
        raise XlRefusal(f"Can't get domain name of domain id '{words[0]}', maybe this domain does not exist.\n")
    return Answer(stdout=f"{name}\n")


async def info(host: SimulatedToolstack, call: XlCall, words: list[str]) -> Answer:
    await host.turn()
    major, minor, patch = [*host.facts.xen.split("."), "0", "0"][:3]
    facts = {
        "host": "simulated",
        "release": "6.1.0-56-amd64",
        "machine": "x86_64",
        "nr_cpus": "4",
        "virt_caps": WITH_IOMMU if host.facts.iommu else CAPS,
        "total_memory": "16384",
        "xen_major": major,
        "xen_minor": minor,
        "xen_extra": f".{patch}",
        "xen_version": f"{major}.{minor}.{patch}",
        "xen_scheduler": "credit2",
    }
    return Answer(stdout="".join(f"{name:<23}: {value}\n" for name, value in facts.items()))


async def monitor_command(host: SimulatedToolstack, call: XlCall, words: list[str]) -> Answer:
    number = host.find(words[0])
    await host.turn()
    return Answer(stdout=host.monitor(number).human(words[1]) + "\n")


async def act(host: SimulatedToolstack, call: XlCall, words: list[str]) -> Answer:
    """destroy, shutdown, reboot, pause, unpause, suspend and resume: only people use them, not the agent."""
    number = host.find(next((word for word in words if not word.startswith("-")), ""))
    await host.turn()
    guest = host.guests.of(number)
    if guest is None:
        raise XlRefusal(
            f"libxl: error: libxl_domain.c:1165:libxl_domain_destroy: Domain {number}:Non-existant domain\n"
        )
    ACTS[call.command](host.guests, guest.name)
    return Answer()
