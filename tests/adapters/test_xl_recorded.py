"""The parsers on what real xl commands answered on real Xen (recorded in the lab)."""

from __future__ import annotations

import pytest
from tests.data.xl import recorded

from xenplug.core.model import GuestState
from xenplug.adapters.xl import Cause, parse_info, parse_list, read_monitor, read_outcome

CAUSES = {
    "list-nosuch": Cause.UNKNOWN_GUEST,
    "usbctrl-attach-no-device-model": Cause.NO_DEVICE_MODEL,
    "usbctrl-attach-nosuch": Cause.UNKNOWN_GUEST,
    "usbctrl-attach-pv-no-usbback": Cause.NO_BACKEND,
    "usbctrl-detach-dead-pv": Cause.UNSURE,
    "usbctrl-detach-no-frontend": Cause.UNSURE,
    "usbctrl-detach-stale": Cause.UNSURE,
    "usbctrl-detach-unknown": Cause.NO_CONTROLLER,
    "usbdev-attach-again": Cause.ALREADY_ATTACHED,
    "usbdev-attach-blocked-by-stale": Cause.STALE_PORT,
    "usbdev-attach-hub": Cause.NOT_ASSIGNABLE,
    "usbdev-attach-no-device-model": Cause.NO_DEVICE_MODEL,
    "usbdev-attach-no-such-controller": Cause.NO_CONTROLLER,
    "usbdev-attach-no-such-device": Cause.NOT_ASSIGNABLE,
    "usbdev-attach-nosuch": Cause.UNKNOWN_GUEST,
    "usbdev-attach-other-guest": Cause.ALREADY_ATTACHED,
    "usbdev-attach-port-taken": Cause.PORT_TAKEN,
    "usbdev-detach-beyond": Cause.PORT_EMPTY,
    "usbdev-detach-empty": Cause.PORT_EMPTY,
    "usbdev-detach-named-words": Cause.PORT_EMPTY,
    "usbdev-detach-no-such-controller": Cause.KILLED,
    "usbdev-detach-nosuch": Cause.UNKNOWN_GUEST,
    "usbdev-detach-stale": Cause.PORT_EMPTY,
}
"""Refusals that have a word of their own; all other recorded refusals of usb commands are plain `refused`."""

USB = [
    (version, name)
    for version in recorded.versions()
    for name in recorded.names(version)
    if name.startswith(("usbctrl-", "usbdev-", "list-nosuch"))
]


@pytest.mark.parametrize(("version", "name"), USB)
def test_what_a_call_came_to(version: str, name: str) -> None:
    """Exit 0 is ok; every refusal is told by its words, whatever stands around them."""
    result = recorded.result(version, name)
    outcome = read_outcome(result)
    assert outcome.ok is (result.code == 0)
    assert outcome.cause is (Cause.NONE if outcome.ok else CAUSES.get(name, Cause.REFUSED))
    assert outcome.ok or outcome.text


@pytest.mark.parametrize("version", recorded.versions())
def test_list(version: str) -> None:
    """All domains, dom0 included, and how they are."""
    states = parse_list(recorded.result(version, "list").stdout)
    assert isinstance(states, dict)
    assert states[0] is GuestState.RUNNING
    assert len(states) == 6


@pytest.mark.parametrize("version", recorded.versions())
def test_info(version: str) -> None:
    """The keys by which a host is judged."""
    info = parse_info(recorded.result(version, "info").stdout)
    assert isinstance(info, dict)
    assert info["xen_version"].startswith(version)
    assert "virt_caps" in info


@pytest.mark.parametrize("version", recorded.versions())
def test_monitor(version: str) -> None:
    """qemu's errors come on stdout with exit 0."""
    assert read_monitor(recorded.result(version, "qemu-monitor-info-usb")).ok
    assert not read_monitor(recorded.result(version, "qemu-monitor-error")).ok
