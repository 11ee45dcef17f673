"""A device's facts as JSON and back, and the ledger of host controllers with them."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xenplug.core.ledger.device_json import device_from_json, device_to_json
from xenplug.core.ledger.pci import PassedController, PciIntent, PciLedger, StayOrder, pci_from_json, pci_to_json
from xenplug.core.model import Bdf, BusId, Device, Interface, Speed, Tag, Use

texts = st.none() | st.text(max_size=8)
bytes_ = st.integers(0, 255)
triples = st.builds(Interface, bytes_, bytes_, bytes_)
devices = st.builds(
    Device,
    port=st.just(BusId("3-2.1")),
    bus=st.integers(1, 99),
    number=st.integers(1, 127),
    tag=st.just(Tag("046d:c016")),
    path=texts,
    controller=st.none() | st.just(Bdf("0000:03:00.0")),
    device_class=triples,
    interfaces=st.lists(triples, max_size=3).map(tuple),
    kinds=st.frozensets(st.sampled_from(["mouse", "storage"])),
    speed=st.none() | st.sampled_from(Speed),
    serial=texts,
    names=st.lists(st.text(max_size=5), max_size=2).map(tuple),
    drivers=st.lists(texts, max_size=2).map(tuple),
    in_use=st.frozensets(st.sampled_from(Use)),
    hub=st.booleans(),
    partly_hub=st.booleans(),
)
devices |= st.builds(lambda device, hub: replace(device, parent=hub), devices, devices)


@given(devices)
def test_a_device_round_trips(device: Device) -> None:
    back = device_from_json(json.loads(json.dumps(device_to_json(device))))
    assert (back, back.parent) == (device, device.parent)


@pytest.mark.parametrize(
    ("class_", "interfaces", "hub", "expected"),
    [
        ("09:00:01", ["09:00:00"], True, (True, False)),
        ("00:00:00", ["09:00:00", "08:06:50"], True, (False, True)),
        ("00:00:00", ["03:01:01"], True, (False, True)),
        ("00:00:00", ["03:01:01"], False, (False, False)),
    ],
)
def test_a_hub_in_an_older_record_is_classified_again(
    class_: str, interfaces: list[str], hub: bool, expected: tuple[bool, bool]
) -> None:
    record = device_to_json(Device(BusId("3-2"), 3, 5, Tag("05e3:0608"), hub=hub))
    del record["partly_hub"]
    device = device_from_json(record | {"device_class": class_, "interfaces": interfaces})
    assert (device.hub, device.partly_hub) == expected


@given(devices, st.none() | st.sampled_from([PciIntent.MAKE_ASSIGNABLE, PciIntent.ATTACH, PciIntent.RETURN]))
def test_passed_controllers_are_kept_without_running_actions(device: Device, intent: PciIntent | None) -> None:
    entry = PassedController(
        "win11", "xhci_hcd", device.port, (device,), 12.5, "unfit", intent, 7, guest_gone_since=3.0
    )
    before = PciLedger({Bdf("0000:03:00.0"): entry}, {Bdf("0000:00:14.0"): StayOrder(2.0, 5)}, caps=frozenset({"pv"}))
    back = pci_from_json(json.loads(json.dumps(pci_to_json(before))))
    expected = PassedController("win11", "xhci_hcd", device.port, (device,), 12.5, "unfit", None, 7)
    assert (back.passed, back.stay_orders) == ({Bdf("0000:03:00.0"): expected}, before.stay_orders)


def test_an_interrupted_detach_has_no_domid() -> None:
    entry = PassedController("win11", "xhci_hcd", BusId("3-2"), (), 12.5, intent=PciIntent.DETACH, domid=7)
    kept = pci_to_json(PciLedger({Bdf("0000:03:00.0"): entry}))
    assert pci_from_json(kept).passed[Bdf("0000:03:00.0")].domid is None


@pytest.mark.parametrize("record", [{}, {"port": "1-1"}])
def test_invalid_records(record: dict[str, str]) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        device_from_json(record)
