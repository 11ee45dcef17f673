"""The lines of a guest's xl configuration, and that our reader of xl.cfg reads the same values from them."""

from __future__ import annotations

import pytest
from tests.core.make import device, policy

from xenplug.core.interop.xl_cfg import read
from xenplug.core.interop.xl_lines import xl_lines
from xenplug.core.model import Bdf, BusId, Device, GuestType

BDF = Bdf("0000:03:00.0")
HEADSET = device("3-1", controller=BDF, kinds=frozenset({"video"}))
MOUSE = device("3-2", controller=BDF)
RULES = "rules: [{name: r, match: {kind: video}, attach: [win11, linux], via: pci}]"


def there(*devices: Device) -> dict[BusId, Device]:
    return {d.port: d for d in devices}


@pytest.mark.parametrize(
    ("rules", "guest", "type_", "lines"),
    [
        (RULES, "win11", GuestType.HVM, ['passthrough = "enabled"', 'pci = ["0000:03:00.0,seize=1"]']),
        (
            RULES,
            "linux",
            GuestType.PV,
            [
                'usbctrl = ["type=qusb,version=2,ports=31"]',
                'passthrough = "enabled"',
                'pci = ["0000:03:00.0,seize=1"]',
            ],
        ),
        (RULES, "other", GuestType.HVM, []),
        (
            "guests: {win11: {controller: {type: devicemodel, version: 1}}}\n"
            + RULES.replace("via: pci", "move: on_start"),
            "win11",
            GuestType.HVM,
            ['usbctrl = ["type=devicemodel,version=1,ports=2"]'],
        ),
        (
            "rules: [{match: {kind: audio}, attach: win11, fallback: {via: pci, when: unfit}}]",
            "win11",
            GuestType.HVM,
            ['passthrough = "enabled"'],
        ),
        (
            'rules: [{match: {controller: "00:14.0", kind: audio}, attach: win11, via: pci}]',
            "win11",
            GuestType.HVM,
            ['passthrough = "enabled"', 'pci = ["0000:00:14.0,seize=1"]'],
        ),
    ],
)
def test_lines(rules: str, guest: str, type_: GuestType, lines: list[str]) -> None:
    found = xl_lines(policy(rules), guest, type_, there(HEADSET, MOUSE))
    assert list(found.lines) == lines
    assert set(read("\n".join(found.lines))) == {line.partition(" ")[0] for line in lines}


def test_siblings_are_listed_and_protected_ones_refused() -> None:
    found = xl_lines(policy(RULES), "win11", GuestType.HVM, there(HEADSET, MOUSE))
    assert found.notes == ("devices on 0000:03:00.0, which go with it: 3-1 046d:c016, 3-2 046d:c016",)
    kept = xl_lines(policy("protect: [{kind: mouse}]\n" + RULES), "win11", GuestType.HVM, there(HEADSET, MOUSE))
    assert (kept.lines, kept.notes) == (('passthrough = "enabled"',), ())
    assert kept.refused == ("0000:03:00.0: 3-2 046d:c016 is protected (protect)",)
    pvh = xl_lines(policy(RULES), "win11", GuestType.PVH, there(HEADSET))
    assert "PVH" in pvh.refused[0] and not any(line.startswith("pci") for line in pvh.lines)
