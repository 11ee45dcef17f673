"""Short constructors of values for tests of the core: a device, a guest, a ledger, and the plan for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from xenplug.core.ledger.ledger import Ledger
from xenplug.core.ledger.records import (
    DRIVER_START_TIME,
    SET_UP_WITHIN,
    DeviceRecord,
    DomainRecord,
    Entry,
    OrderAction,
    Orders,
    Override,
)
from xenplug.core.ledger.update import update
from xenplug.core.matching.match import Matcher
from xenplug.core.model import (
    Bdf,
    BusId,
    Claim,
    ControllerType,
    Device,
    Guest,
    GuestController,
    GuestPort,
    GuestState,
    GuestType,
    Interface,
    Snapshot,
    Speed,
    Tag,
)
from xenplug.core.planning.plan import make_plan
from xenplug.core.planning.plan_input import PlanInput, WaitTimes
from xenplug.core.planning.protection import protect_all, wanted_guests
from xenplug.core.planning.steps import Plan, Verdict
from xenplug.core.policy.load import load
from xenplug.core.policy.rules import Policy

NOW = 1000.0


def device(port: str = "1-1", number: int = 5, **more: Any) -> Device:
    """A low speed mouse in dom0 by default."""
    usual: dict[str, Any] = {
        "tag": Tag("046d:c016"),
        "path": f"pci-0000:00:14.0-usb-0:{port.partition('-')[2]}",
        "controller": Bdf("0000:00:14.0"),
        "interfaces": (Interface(3, 1, 2),),
        "kinds": frozenset({"mouse"}),
        "speed": Speed.LOW,
        "drivers": ("usbhid",),
    }
    return Device(BusId(port), int(port.partition("-")[0]), number, **{"plain_path": usual["path"]} | usual | more)


def controller(
    id_: int = 0, kind: str = "qusb", version: int = 2, ports: int = 4, *, connected: bool = True, **held: str
) -> GuestController:
    """A guest controller; `p1="1-4"` puts a busid on port 1."""
    there = {n: BusId(held[f"p{n}"]) if f"p{n}" in held else None for n in range(1, ports + 1)}
    return GuestController(id_, ControllerType(kind), version, MappingProxyType(there), connected)


def guest(name: str = "kiosk", domid: int = 1, *controllers: GuestController, **more: Any) -> Guest:
    """By default a running pv guest with a device model."""
    usual = {"type": GuestType.PV, "state": GuestState.RUNNING, "device_model": 4000 + domid, "uuid": name}
    return Guest(name, domid, controllers=controllers, **usual | more)


def snapshot(*things: Device | Guest, claims: Mapping[str, Claim] | None = None) -> Snapshot:
    return Snapshot(
        {d.port: d for d in things if isinstance(d, Device)},
        {g.name: g for g in things if isinstance(g, Guest)},
        {BusId(port): claim for port, claim in (claims or {}).items()},
    )


def policy(text: str) -> Policy:
    """A policy from its YAML, without the first line."""
    loaded = load({"policy.yaml": f"version: 1\n{text}".encode()})
    assert loaded.policy, loaded.problems
    return loaded.policy


def guest_port(domid: int = 1, port: int = 1, controller_: int = 0) -> GuestPort:
    return GuestPort(domid, controller_, port)


def entry(here: Device, name: str = "kiosk", **more: Any) -> Entry:
    """The ledger's record of an occupied port, by default delivered, set up and ours."""
    usual = Entry(name, here.port, here.bus, here.number, here.tag, ours=True, delivered=True)
    return replace(usual, **{"waited": SET_UP_WITHIN, "used_for": DRIVER_START_TIME} | more)


TO_HOST_BY_HAND = Override(OrderAction.DETACH)


def to_guest_by_hand(guest_name: str) -> Override:
    """The manual override of `xenplug attach`."""
    return Override(OrderAction.ATTACH, guest_name)


def overridden(here: Device, override: Override, **more: Any) -> Ledger:
    """A ledger with a manual override for one device."""
    return Ledger(orders=Orders({here.key: override}), **{"at": NOW} | more)


def remembered(here: Device, **fields: Any) -> Ledger:
    """A ledger that has a record of one device."""
    return Ledger(devices={here.key: DeviceRecord(**fields)}, at=NOW)


def running_since(*domids: int, at: float = 0.0) -> dict[int, DomainRecord]:
    """Records of domains that have been running since then."""
    return {domid: DomainRecord(first_running=at) for domid in domids}


def absorbed(
    seen: Snapshot, rules: Policy | None = None, before: Ledger | None = None, now: float = NOW, grace: float = 5.0
) -> Ledger:
    """The ledger after a round."""
    ledger = before if before is not None else Ledger(at=now)
    return update(ledger, seen, now, wanted_guests(Matcher(rules or Policy()), ledger), grace)


def planned(
    seen: Snapshot,
    rules: Policy | None,
    ledger: Ledger | None = None,
    now: float = NOW,
    times: WaitTimes | None = None,
) -> Plan:
    """The plan of one round: ledger updated, devices decided, steps planned. `rules` None: the policy did not load."""
    matcher = Matcher(rules or Policy())
    known = absorbed(seen, rules, ledger, now, (times or WaitTimes()).reboot_grace)
    decisions = {port: matcher.decide(here) for port, here in seen.devices.items()}
    protected = protect_all(matcher, seen.devices, known)
    return make_plan(PlanInput(seen, known, now, decisions, protected, rules, times or WaitTimes()))


def verdict(plan: Plan, port: str = "1-1") -> Verdict:
    return next(v for v in plan.verdicts if v.device.port == port)


MOUSE = device()
TAKEN, USED = Claim(taken=True), Claim(taken=True, used=True)
RULE = "rules: [{name: r, match: {kind: mouse}, attach: kiosk}]\n"
TO_KIOSK, TO_HOST = policy(RULE), policy("rules: [{match: {kind: mouse}, action: host}]")
FREE, HOLDS = guest("kiosk", 1, controller()), guest("kiosk", 1, controller(p1="1-1"))
AT_KIOSK = Ledger(entries={guest_port(): entry(MOUSE)}, domains=running_since(1), at=NOW)


def starting(name: str = "kiosk", domid: int = 1) -> Guest:
    """A guest that is being created."""
    return guest(name, domid, state=GuestState.STARTING)
