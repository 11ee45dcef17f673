"""The texts for decisions and plans: for status, explain, the journal and refusals.

Every text is a fact and, if a person can do something about it, the remedy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from xenplug.core.matching.match import KEYS, Decision, Matcher, holds, hubs, matches
from xenplug.core.model import Device
from xenplug.core.planning.pci_steps import AskXl, MakeAssignable, PciAttach, PciDetach, ReturnToDom0, pci_step_words
from xenplug.core.planning.steps import (
    AddController,
    Attach,
    Authorize,
    Cause,
    ClearPort,
    Detach,
    DropObject,
    Interfaces,
    RemoveController,
    State,
    Step,
    Verdict,
)
from xenplug.core.policy.rules import Action, Condition, Rule, Via
from xenplug.core.reporting.pci_reasons import PCI_REASONS

_UNTIL_RELEASED = "until it is unplugged; `xenplug release` ends the override"
_MANUAL = f"manual override {_UNTIL_RELEASED}"

HELD = frozenset({Cause.PAUSED, Cause.BEING_SET_UP})
"""Causes for which an attached device does not go where it belongs: said with its state."""

_HINTS = {
    "failed to open host usb device": "; its device model lacks permission (remove dm_restrict from its config)",
    "Invalid parameter type": "; QEMU 9.2 and later need Xen 4.19.5, 4.20.3, 4.21.1 or later",
}
"""By a part of xl's message: the cause of its refusal, with a remedy. Xen 85e12104f4; QEMU's host-libusb.c."""

_REASONS: Mapping[Cause, Callable[[Verdict], str]] = {
    Cause.RULE: lambda v: _by_rule(v),
    Cause.DEFAULT: lambda v: _by_default(v),
    Cause.BY_HAND: lambda v: f"manually detached {_UNTIL_RELEASED}",
    Cause.PAUSED: lambda v: "not changed while it, its guest or everything is paused; `xenplug resume` ends the pause",
    Cause.HUB: lambda v: _hub(v),
    Cause.PROTECT: lambda v: "the policy's `protect` keeps it with the host",
    Cause.IN_USE: lambda v: f"dom0 uses it ({_uses(v)}); it stays until it is unplugged",
    Cause.LAST_KEYBOARD: lambda v: (
        "it is the last keyboard of dom0's console; plug in another one, or remove `keyboard` from auto_protect"
    ),
    Cause.NO_POLICY: lambda v: "the policy did not load, so nothing is done; `xenplug check` shows its errors",
    Cause.PORT_EMPTIED: lambda v: "its guest port became empty; waiting a moment in case the guest shuts down",
    Cause.SETTLING: lambda v: "it just came back with a new address; waiting a moment in case it does so again",
    Cause.CONFIGURING: lambda v: "the kernel has not finished setting it up",
    Cause.GUEST_STOPPED: lambda v: f"{_stopped(v)} starts",
    Cause.GUEST_STARTING: lambda v: f"{v.target} is starting and cannot take it yet",
    Cause.GUEST_PAUSED: lambda v: f"{v.target} is paused; `xl unpause {v.target}`",
    Cause.GUEST_SUSPENDED: lambda v: f"{v.target} is suspended; `xl resume {v.target}`",
    Cause.REBOOT_GRACE: lambda v: f"{v.target} went away a moment ago and may come back",
    Cause.NO_FREE_PORT: lambda v: (
        f"all guest ports of {v.target} are taken; detach something, or raise max_controllers under guests:"
    ),
    Cause.NO_FRONTEND: lambda v: (
        f"the PVUSB driver of {v.target} never connected; its kernel needs CONFIG_USB_XEN_HCD "
        "(Debian 12 and 13 and RHEL lack it)"
    ),
    Cause.NO_DEVICE_MODEL: lambda v: (
        f"{v.target} runs without a device model; add usbctrl=['type=qusb,version=2'] to its config and restart it"
    ),
    Cause.DEVICE_MODEL_GONE: lambda v: (
        f"the device model of {v.target} has ended (/var/log/xen/qemu-dm-{v.target}.log may show why): nothing can be "
        "attached to it or detached from it; restart the guest"
    ),
    Cause.NO_CONTROLLER: lambda v: (
        f"{v.target} has no USB controller and the policy says controller: none; add usbctrl= to its config"
    ),
    Cause.STUB_DOMAIN: lambda v: (
        f"the device model of {v.target} runs in a stub domain, which has no USB devices; remove "
        "device_model_stubdomain_override from its config, or pass through the whole controller (via: pci)"
    ),
    Cause.NO_USBBACK: lambda v: (
        f"controllers of type pv need the kernel driver usbback, which dom0 lacks; set type: qusb for {v.target} "
        "under guests: in the policy"
    ),
    Cause.PHANTOM_CONTROLLER: lambda v: (
        f"xenstore names a controller that the device model of {v.target} lacks; xenplug adds it if possible, "
        "otherwise restart the guest"
    ),
    Cause.UNFIT_SPEED: lambda v: (
        f"no controller of {v.target} supports {v.device.speed} speed devices; "
        + ("use a USB 2 port or cable" if str(v.device.speed).startswith("super") else "see guests: in the policy")
    ),
    Cause.UNFIT_ISOCHRONOUS: lambda v: (
        f"{'/'.join(sorted(v.device.kinds & {'audio', 'video'}))} devices need isochronous transfers, "
        f"which qusb controllers do not support; use an HVM guest with type devicemodel"
    ),
    Cause.NOT_DELIVERED: lambda v: f"{v.target} did not take it in time; see /var/log/xen/qemu-dm-{v.target}.log",
    Cause.LOST: lambda v: f"{v.target} had it and lost it",
    Cause.REFUSED: lambda v: _refused(v),
    Cause.STALE_PORT: lambda v: "a guest port still names a device that is gone; it must be cleared before any attach",
    Cause.MOVING: lambda v: f"moving to {v.target}" if v.target else "returning to the host",
    Cause.TAKEN: lambda v: "the guest has it but did not configure it (no driver there, or still in its firmware)",
    Cause.BEING_SET_UP: lambda v: (
        f"it leaves in a few seconds, when {v.guest} has set it up: a detach now could end that guest's device model"
    ),
    Cause.USED: lambda v: _MANUAL if v.by_hand else "",
    Cause.WAITING_TO_BE_TAKEN: lambda v: f"waiting for the device model of {v.guest} to take it",
    **PCI_REASONS,
    Cause.AMBIGUOUS: lambda v: (
        f"another device fits rule {_rule(v)}, which says ambiguous: refuse; write a rule by serial or path for "
        "each, or unplug one"
    ),
    Cause.FOREIGN: lambda v: f"attached by someone else; {_return_words(v)}",
}


def reason(verdict: Verdict) -> str:
    """Why the device is in its state, with the remedy; empty if there is nothing to explain."""
    words = _REASONS[verdict.cause](verdict)
    if verdict.state is State.PROTECTED and verdict.guest:
        words += f"; someone else attached it: {_return_words(verdict)}"
    failed = verdict.state in (State.FAILING, State.GIVEN_UP) or verdict.cause is Cause.NO_FREE_PORT
    if verdict.text and failed:
        words += f" ({verdict.text})"
    rule = verdict.decision.rule
    if verdict.state is State.PENDING and rule and rule.idle == Action.BLOCK and not verdict.device.authorized:
        words += "; until then it is blocked (idle: block)"
    if verdict.state is State.ATTACHED and verdict.text:
        words = f"{verdict.text}; `xenplug release {verdict.device.port}` tries again"
    if verdict.state is State.GIVEN_UP and verdict.attempts:
        words += f"; given up after {verdict.attempts} tries: `xenplug release {verdict.device.port}` tries again"
    return words


def _by_rule(verdict: Verdict) -> str:
    words = f"rule {_rule(verdict)} {'blocks it' if verdict.state is State.BLOCKED else 'keeps it with the host'}"
    return words + (f", {_NOT_ADMITTED}" if verdict.decision.over_protect else "")


def _by_default(verdict: Verdict) -> str:
    if verdict.decision.over_protect:
        return f"the policy blocks every device that no rule matches, {_NOT_ADMITTED}"
    return "" if verdict.wanted else "no rule matches; `xenplug explain` shows why"


_NOT_ADMITTED = (
    "and `protect` matches it only by what it reports of itself, or by a path that cannot be verified; if it is the "
    "device you mean, add `path:`, `descriptors:` or `interfaces:` there, or its `port:`"
)


def _hub(verdict: Verdict) -> str:
    if verdict.device.hub:
        return "a hub; devices behind it can go to guests, the hub itself cannot"
    return (
        "it reports that it is a hub and something else as well, and a hub is never attached to a guest alone; if you "
        "trust it, pass through its whole controller (via: pci), otherwise unplug it"
    )


def _refused(verdict: Verdict) -> str:
    if verdict.guest and verdict.guest != verdict.target:
        return f"xl did not detach it from {verdict.guest}"
    if verdict.target and verdict.device.authorized:
        hint = next((words for message, words in _HINTS.items() if message in (verdict.text or "")), "")
        return f"xl refused to attach it to {verdict.target}{hint}"
    return "the kernel refused to change its `authorized`, so it is " + (
        "not blocked" if verdict.device.authorized else "still blocked"
    )


def _return_words(verdict: Verdict) -> str:
    return f"`xl usbdev-detach {verdict.guest} {_port_words(verdict)}` returns it to the host"


def _rule(verdict: Verdict) -> str:
    rule = verdict.decision.rule
    return f"{rule.name!r} ({rule.where})" if rule else "(none)"


def _uses(verdict: Verdict) -> str:
    return ", ".join(sorted(verdict.device.in_use)) or "it did at the last check"


def _stopped(verdict: Verdict) -> str:
    if len(verdict.wanted) == 1:
        return f"{verdict.wanted[0]} is not running; it is attached when that guest"
    return f"none of {', '.join(verdict.wanted)} is running; it is attached when one of them"


def _port_words(verdict: Verdict) -> str:
    return f"{verdict.guest_port.controller} {verdict.guest_port.port}" if verdict.guest_port else ""


def device_name(device: Device) -> str:
    """A name for people: port, tag, and the product string or the name from the hardware database."""
    name = device.product or (device.names[-1] if device.names else "") or "/".join(sorted(device.kinds))
    return f"{device.port} {device.tag}" + (f" ({name})" if name else "")


def headline(verdict: Verdict) -> str:
    """One line for one change: where the device is, and why."""
    words = {
        State.ATTACHED: f"attached to {verdict.guest}{_guest_port(verdict)}",
        State.ATTACHING: _moving(verdict),
        State.FOREIGN: f"with {verdict.guest}",
        State.HOST: "stays with the host",
        State.PROTECTED: "protected, " + (f"but with {verdict.guest}" if verdict.guest else "stays with the host"),
        State.BLOCKED: "blocked",
        State.PENDING: "waits",
        State.FAILING: f"failing for {verdict.target}" if verdict.target else "failing",
        State.GIVEN_UP: f"given up for {verdict.target}",
        State.PCI: f"with {verdict.guest} together with its controller {verdict.device.controller}",
    }[verdict.state]
    quiet = (State.ATTACHED, State.ATTACHING, State.PCI)
    why = reason(verdict) if verdict.state not in quiet else ""
    if verdict.state is State.ATTACHED and (verdict.by_hand or verdict.cause in HELD or verdict.text):
        by_hand = verdict.by_hand and verdict.cause is not Cause.BEING_SET_UP
        why = reason(verdict) if verdict.text or not by_hand else _MANUAL
    ruled = verdict.decision.rule and verdict.state is not State.PROTECTED and not verdict.by_hand
    rule = f" [rule {_rule(verdict)}]" if ruled else ""
    return f"{device_name(verdict.device)}: {words}" + (f": {why}" if why else "") + rule


def _moving(verdict: Verdict) -> str:
    whole = f" together with its controller {verdict.device.controller}" if verdict.via == Via.PCI else ""
    if verdict.target:
        return f"attaching to {verdict.target}{whole}"
    return f"detaching from {verdict.guest}{whole}" if verdict.guest else f"returning to the host{whole}"


def _guest_port(verdict: Verdict) -> str:
    return f", controller {verdict.guest_port.controller} port {verdict.guest_port.port}" if verdict.guest_port else ""


def step_words(step: Step) -> str:
    """What a step does, for --dry-run, explain and the journal."""
    match step:
        case ClearPort():
            return f"clear the stale port {_at(step.guest_port)} of {step.guest} (it still names {step.busid})"
        case DropObject():
            left = step.left
            return f"remove the leftover object of {left.bus}.{left.number} from the device model of {step.guest}"
        case Detach():
            return f"detach {device_name(step.device)} from {step.guest}, {_at(step.guest_port)}"
        case Attach():
            return f"attach {device_name(step.device)} to {step.guest}, {_at(step.guest_port)}"
        case AddController() | RemoveController():
            return _controller_words(step)
        case Interfaces():
            return f"{_interfaces_words(step)} {device_name(step.device)}"
        case Authorize():
            return f"{'authorise' if step.allowed else 'deauthorise'} {device_name(step.device)}"
        case AskXl() | MakeAssignable() | PciAttach() | PciDetach() | ReturnToDom0():
            return pci_step_words(step)


def _controller_words(step: AddController | RemoveController) -> str:
    if isinstance(step, RemoveController):
        return f"remove the empty controller {step.controller} of {step.guest}"
    spec = step.spec
    return f"make a guest controller for {step.guest}: {spec.type} version {spec.version}, {spec.ports} ports"


def _interfaces_words(step: Interfaces) -> str:
    if step.probe:
        return "let dom0's drivers bind to"
    return "authorise the interfaces of" if step.allowed else "deauthorise the interfaces of"


def _at(guest_port: Any) -> str:
    return f"controller {guest_port.controller} port {guest_port.port}"


def rules_table(matcher: Matcher, device: Device) -> list[dict[str, Any]]:
    """Every rule, each key with the expected and the actual value."""
    return [
        {
            "name": rule.name,
            "rule_ref": str(rule.where),
            "matched": matches(rule.conditions, device),
            "keys": [_key(c, device) for c in rule.conditions],
        }
        for rule in matcher.policy.rules
    ]


def _key(condition: Condition, device: Device) -> dict[str, Any]:
    if condition.groups:
        return _nested(condition, device)
    actual = KEYS[condition.key].read(device)
    return {
        "key": condition.key,
        "expected": [str(p) for p in condition.patterns],
        "actual": list(actual),
        "holds": holds(condition, device),
    }


def _nested(condition: Condition, device: Device) -> dict[str, Any]:
    """`not`, `any`, `below`: with `inside`, each match's keys (`below`: of the hub that matches, or the nearest)."""
    above = list(hubs(device))
    seen = device
    if condition.key == "below":
        seen = next((hub for hub in above if matches(condition.groups[0], hub)), above[0] if above else device)
    has_hub = condition.key != "below" or bool(above)
    return {
        "key": condition.key,
        "expected": [", ".join(map(condition_words, group)) for group in condition.groups],
        "actual": [device_name(hub) for hub in above] if condition.key == "below" else [],
        "holds": holds(condition, device),
        "inside": [[_key(inner, seen) for inner in group] for group in condition.groups] if has_hub else [],
    }


def condition_words(condition: Condition) -> str:
    """A match key and its values on one line: `kind mouse or keyboard`."""
    if condition.groups:
        inner = " or ".join(f"({', '.join(map(condition_words, group))})" for group in condition.groups)
        return f"{condition.key} {inner}"
    return f"{condition.key} {' or '.join(map(str, condition.patterns))}"


def decision_view(decision: Decision) -> dict[str, Any]:
    """The decision in JSON."""
    rule: Rule | None = decision.rule
    return {
        "action": decision.action,
        "guests": list(decision.guests),
        "via": rule.via if rule and decision.action == Action.ATTACH else None,
        "rule": rule.name if rule else None,
        "rule_ref": str(rule.where) if rule else None,
        "inherited": decision.inherited,
    }


def next_steps(steps: tuple[Step, ...], verdict: Verdict) -> list[str]:
    """What would be done for a device now, or why nothing is done."""
    words = [step_words(s) for s in steps if _is_for(s, verdict)]
    if words:
        return words
    return [f"nothing: {headline(verdict).removeprefix(device_name(verdict.device) + ': ')}"]


def _is_for(step: Step, verdict: Verdict) -> bool:
    if isinstance(step, AskXl | MakeAssignable | PciAttach | PciDetach | ReturnToDom0):
        return step.bdf == verdict.device.controller
    return getattr(step, "device", None) == verdict.device
