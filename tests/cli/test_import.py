"""`import`: configurations of xl and XCP-ng as a policy; what cannot be converted is reported line by line."""

from __future__ import annotations

import pytest
from tests.recordings import MOUSE

from xenplug.cli.main import main
from xenplug.core.interop.from_xl import strtoul
from xenplug.core.matching.match import Matcher
from xenplug.core.policy.load import load


def imported(capsys, tmp_path, text, *more, code=0):
    file = tmp_path / "win11.cfg"
    file.write_text(text)
    assert main(["import", str(file), "--host", str(MOUSE), *more]) == code
    out, err = capsys.readouterr()
    loaded = load({"p": out.encode()})
    assert loaded.policy, loaded.problems
    return loaded.policy, [line.partition("win11.cfg:")[2] for line in err.splitlines()]


def matches(policy):
    return [{c.key: str(c.patterns[0]) for c in rule.conditions} for rule in policy.rules]


NAME = 'name = "win11"\ntype="hvm"\n'


@pytest.mark.parametrize(
    "text, expected",
    [
        ('usbdev=["hostbus=1,hostaddr=99"]', [{"address": "1.99"}]),
        ("usbdev = [ 'type=hostdev, hostbus=0x1, hostaddr=012,controller=0,port=1' ,\n 'hostbus=2,hostaddr=3', ]",
         [{"address": "1.10"}, {"address": "2.3"}]),
        ('usbdev="hostbus=1,hostaddr=99"', []),
        ('usbdev=["hostbus=1"]', []),
        ('usbdev=["hostbus=1,hostaddr=300"]', [{"address": "1.44"}]),
        ('usbdev=["bus=1,hostaddr=3"]', []),
        ('usbdevice="host:46D:c016"', [{"device": "046d:c016"}]),
        ('usbdevice=["tablet", "host:3.7", "host:1d6b:2"]', [{"address": "3.7"}, {"device": "1d6b:0002"}]),
        ('usbdevice="tablet"', []),
        ('pci=["00:14.0,permissive=1", "01:00.0@7"]', [{"controller": "0000:00:14.0"}]),
        ('pci=["nonsense"]', []),
        ("# usbdev=['hostbus=1,hostaddr=2']", []),
    ],
)  # fmt: skip
def test_xl(text, expected, capsys, tmp_path):
    policy, notes = imported(capsys, tmp_path, NAME + text + "\n")
    assert matches(policy) == expected
    assert all(rule.guests == ("win11",) for rule in policy.rules)
    assert bool(notes) is not text.startswith("#")
    assert all(note.startswith("3:1: ") and "; " in note for note in notes), notes


def test_an_address_becomes_the_device_that_has_it(capsys, tmp_path):
    from xenplug.adapters.recording import read
    from xenplug.core.usb.device import describe

    mouse = next(d for d in map(describe, read(MOUSE)) if d and d.tag == "046d:c016")
    text = f'{NAME}usbdev=["hostbus={mouse.bus},hostaddr={mouse.number}"]\n'
    policy, [note] = imported(capsys, tmp_path, text)
    assert Matcher(policy).decide(mouse).guests == ("win11",)
    assert "address" not in matches(policy)[0]
    assert f"is now 046d:c016 in {mouse.port}" in note


@pytest.mark.parametrize(
    "text, spec",
    [
        ('usbctrl=["version=3,ports=15"]', ("devicemodel", 3, 15)),
        ('usbctrl=["type=qusb"]', ("qusb", 2, 8)),
        ('usbctrl=["version=x"]', ("devicemodel", 2, 6)),
        ('usbctrl=["type=qusb,version=3"]', None),
        ('usbctrl=["type=bogus"]', None),
        ('usbctrl=["version=3,ports=16"]', None),
        ('usbctrl="version=3"', None),
    ],
)
def test_controllers(text, spec, capsys, tmp_path):
    policy, notes = imported(capsys, tmp_path, NAME + text + "\n")
    made = policy.guests["win11"].controller if policy.guests else None
    assert (made and (made.type, made.version, made.ports)) == spec
    assert notes


def test_xcp_needs_a_guest(capsys, tmp_path):
    file = tmp_path / "usb-policy.conf"
    file.write_text("DENY: vid=17e9\nALLOW:\n")
    assert main(["import", str(file)]) == 2
    assert "name it with --guest" in capsys.readouterr().err
    assert main(["import", str(file), "--guest", "vm"]) == 0
    assert len(load({"p": capsys.readouterr().out.encode()}).policy.rules) == 2
    file.write_text("DENY: vid=17e9 x\nALLOW:\n")
    assert main(["import", str(file), "--guest", "vm"]) == 1
    assert "usb-policy.conf:1:1: 'x' cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "hello", "\0\xff"])
def test_a_file_of_neither_format(text, capsys, tmp_path):
    (tmp_path / "x").write_text(text)
    assert main(["import", str(tmp_path / "x")]) == 2
    assert "neither an xl configuration" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text, value", [("10", 10), ("010", 8), ("0x10", 16), ("09", 0), ("junk", 0), ("300", 44), (" 7x", 7), ("-1", 255)]
)
def test_numbers_as_xl_reads_them(text, value):
    assert strtoul(text) == value
