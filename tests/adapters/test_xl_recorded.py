"""The parsers on what real xl commands answered on real Xen (recorded in the lab)."""

from __future__ import annotations

import pytest
from tests.data.xl import recorded

from xenplug.adapters.xl import XlCause, parse_info, parse_list, read_monitor, read_outcome
from xenplug.core.model import GuestState

CAUSES = {
    "list-nosuch": XlCause.UNKNOWN_GUEST,
    "usbctrl-attach-no-device-model": XlCause.NO_DEVICE_MODEL,
    "usbctrl-attach-nosuch": XlCause.UNKNOWN_GUEST,
    "usbctrl-attach-pv-no-usbback": XlCause.NO_BACKEND,
    "usbctrl-detach-dead-pv": XlCause.UNSURE,
    "usbctrl-detach-no-frontend": XlCause.UNSURE,
    "usbctrl-detach-stale": XlCause.UNSURE,
    "usbctrl-detach-unknown": XlCause.NO_CONTROLLER,
    "usbdev-attach-again": XlCause.ALREADY_ATTACHED,
    "usbdev-attach-blocked-by-stale": XlCause.STALE_PORT,
    "usbdev-attach-hub": XlCause.NOT_ASSIGNABLE,
    "usbdev-attach-no-device-model": XlCause.NO_DEVICE_MODEL,
    "usbdev-attach-no-such-controller": XlCause.NO_CONTROLLER,
    "usbdev-attach-no-such-device": XlCause.NOT_ASSIGNABLE,
    "usbdev-attach-nosuch": XlCause.UNKNOWN_GUEST,
    "usbdev-attach-other-guest": XlCause.ALREADY_ATTACHED,
    "usbdev-attach-port-taken": XlCause.PORT_TAKEN,
    "usbdev-detach-beyond": XlCause.PORT_EMPTY,
    "usbdev-detach-empty": XlCause.PORT_EMPTY,
    "usbdev-detach-named-words": XlCause.PORT_EMPTY,
    "usbdev-detach-no-such-controller": XlCause.KILLED,
    "usbdev-detach-nosuch": XlCause.UNKNOWN_GUEST,
    "usbdev-detach-stale": XlCause.PORT_EMPTY,
}
"""Refusals with their own cause; all other recorded refusals of usb commands are plain `refused`."""

USB = [
    (version, name)
    for version in recorded.versions()
    for name in recorded.names(version)
    if name.startswith(("usbctrl-", "usbdev-", "list-nosuch"))
]


@pytest.mark.parametrize(("version", "name"), USB)
def test_the_outcome_of_a_call(version: str, name: str) -> None:
    """Exit 0 is ok; every refusal is recognised by its words, whatever surrounds them."""
    result = recorded.result(version, name)
    outcome = read_outcome(result)
    assert outcome.ok is (result.code == 0)
    assert outcome.cause is (XlCause.NONE if outcome.ok else CAUSES.get(name, XlCause.REFUSED))
    assert outcome.ok or outcome.text


@pytest.mark.parametrize("version", recorded.versions())
def test_list(version: str) -> None:
    """All domains, including dom0, and their states."""
    states = parse_list(recorded.result(version, "list").stdout)
    assert isinstance(states, dict)
    assert states[0] is GuestState.RUNNING
    assert len(states) == 6


@pytest.mark.parametrize("version", recorded.versions())
def test_info(version: str) -> None:
    """The keys that the agent and the doctor use."""
    info = parse_info(recorded.result(version, "info").stdout)
    assert isinstance(info, dict)
    assert info["xen_version"].startswith(version)
    assert "virt_caps" in info


@pytest.mark.parametrize("version", recorded.versions())
def test_monitor(version: str) -> None:
    """qemu's errors come on stdout with exit 0."""
    assert read_monitor(recorded.result(version, "qemu-monitor-info-usb")).ok
    assert not read_monitor(recorded.result(version, "qemu-monitor-error")).ok
