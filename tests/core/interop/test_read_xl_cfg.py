"""Guests' configurations as xl reads them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xenplug.core.interop.xl_cfg import read, spec

TEXT = """\
# a guest
name = "win11"; type='hvm'
memory = 4096
usbctrl = [
  "type=devicemodel,version=3",   # xhci
  'type=qusb',
]
usbdevice = ["host:1d6b:2", "tablet"]
disk=["/dev/x,raw,xvda,rw"]
name = 'win12'
extra = "a = b # c"
"""


def test_read():
    found = read(TEXT)
    assert {name: setting.value for name, setting in found.items()} == {
        "name": "win12",
        "type": "hvm",
        "memory": "4096",
        "usbctrl": ("type=devicemodel,version=3", "type=qusb"),
        "usbdevice": ("host:1d6b:2", "tablet"),
        "disk": ("/dev/x,raw,xvda,rw",),
        "extra": "a = b # c",
    }
    assert [found[name].line for name in ("usbctrl", "usbdevice", "name")] == [4, 8, 10]


@pytest.mark.parametrize(("text", "found"), [
    ("", {}), ("x", {}), ("x =", {}), ("= 1", {}), ("x = [", {"x": ()}), ('x = "never closed\ny = 1', {"y": "1"}),
    ("x = [\n'a',\ny = 1\n", {"x": ("a",), "y": "1"}),
])  # fmt: skip
def test_invalid_parts_are_skipped(text, found):
    assert {name: setting.value for name, setting in read(text).items()} == found


def test_spec():
    assert spec(" type=qusb, version=2,,ports") == {"type": "qusb", "version": "2", "ports": ""}


@given(st.text())
def test_never_raises(text):
    read(text)
    spec(text)
