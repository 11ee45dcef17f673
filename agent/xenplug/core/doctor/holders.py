"""The check of dom0's own services: a process that holds a device open that the policy attaches to a guest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from xenplug.core.doctor.facts import Facts, Holder, Manager
from xenplug.core.doctor.findings import Check, Finding, unknown, warning
from xenplug.core.doctor.host import RULE_FILES
from xenplug.core.ledger.ledger import Ledger
from xenplug.core.matching.match import Matcher
from xenplug.core.planning.protection import protect_all

YIELDING = ("/dev/input/", "/dev/snd/")
"""Nodes that a session opens of every keyboard, mouse and sound card. The kernel takes them back when the device goes
to a guest, and until then the host may use it."""
SESSION = frozenset(
    {"systemd-logind", "elogind-daemon", "seatd", "Xorg", "acpid", "pipewire", "wireplumber", "pulseaudio"}
)
"""Programs of a session that may run as services of the system."""
SHOWN_NODES = 3

RULED = frozenset({"ModemManager", "NetworkManager", "brltty", "gpsd", "ipp-usb", "mtp-probe", "udisksd", "usbmuxd"})
"""Programs that the udev rules keep off, by their names in the kernel."""
ADVICE: Mapping[str, str] = {
    # pcscd reads the variable (pcsc-lite, src/configfile.l and hotplug_libudev.c); it asks libudev itself and knows no
    # property of udev's.
    "pcscd": "name the reader in the variable PCSCLITE_FILTER_IGNORE_READER_NAMES of pcscd's service and restart it",
    # fwupd.conf(5): devices are disabled by GUID, plugins by name; it knows no property of udev's.
    "fwupd": "add its plugin to DisabledPlugins in /etc/fwupd/fwupd.conf and restart fwupd",
    "scdaemon": "write disable-ccid in ~/.gnupg/scdaemon.conf, then gpgconf --kill scdaemon",
    "adb": "adb kill-server",
    "openrgb": "switch its detector off in OpenRGB's settings (Supported Devices), or end OpenRGB",
}
"""What to do about programs that no udev rule keeps off but that have a setting of their own."""


def held(facts: Facts) -> Iterator[Finding]:
    """A service that opens the device first keeps it busy, or writes to it, before its guest gets it."""
    if facts.policy is None:
        return
    matcher = Matcher(facts.policy)
    protected = protect_all(matcher, facts.usb.devices, Ledger())
    if not facts.holders_complete:
        yield unknown("too many files are open to find every process that holds a USB device", "run it again")
    for holder in facts.holders:
        device = facts.usb.devices.get(holder.device)
        rule = matcher.decide(device).rule if device and not protected.get(holder.device) else None
        nodes = [node for node in holder.nodes if not _yields(holder, node)]
        if device is None or rule is None or not rule.guests or not nodes:
            continue
        shown = ", ".join(nodes[:SHOWN_NODES]) + (" and more" if len(nodes) > SHOWN_NODES else "")
        yield warning(
            f"{device.port} ({device.tag}) is for {', '.join(rule.guests)}, but {described(holder)} holds {shown}",
            _remedy(facts, holder),
        )


def described(holder: Holder) -> str:
    """A process for people: `brltty (process 812, brltty.service)`."""
    return f"{holder.command} (process {holder.pid}{f', {holder.service}' if holder.service else ''})"


def _yields(holder: Holder, node: str) -> bool:
    return node.startswith(YIELDING) and (holder.manager is Manager.USER or holder.command in SESSION)


def _remedy(facts: Facts, holder: Holder) -> str:
    if holder.command in ADVICE:
        return ADVICE[holder.command]
    if holder.command not in RULED:
        return stop(holder)
    if len(facts.install.udev_rules) == len(RULE_FILES) and facts.install.guest_rules:
        return f"replug the device, so that the udev rules keep it off; if it still does, {stop(holder)}"
    return f"install the udev rules that keep it off (check udev-rules) and replug the device, or {stop(holder)}"


def stop(holder: Holder) -> str:
    """The command that ends the process and keeps it from being started again."""
    name = f"'{holder.service}'" if "\\" in (holder.service or "") else holder.service
    match holder.manager:
        case Manager.SYSTEMD if name and name.strip("'").endswith(".service"):
            return f"systemctl mask --now {name}"
        case Manager.USER if name and name.strip("'").endswith(".service"):
            return f"systemctl --user mask --now {name} (as its user)"
        case Manager.OPENRC if name:
            return f"rc-service {name} stop; rc-update del {name}"
        case _:
            return f"end it (kill {holder.pid})"


CHECKS = (Check("holders", "no process of dom0 holds a device that is for a guest", held),)
