"""xenstore: values that a guest writes into its part of the tree, and bytes of the connection."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from xenplug.adapters.xenstore import Wire
from xenplug.core.guests import owner, port_path, port_place, read_guests
from xenplug.core.protocols import StoreLost

TREE = """/local/domain/5/name=kiosk
/local/domain/5/vm=/vm/6c1f
/local/domain/5/domid=5
/local/domain/5/image/device-model-pid=4711
/local/domain/5/device/vusb/0/state=4
/libxl/5/type=pv
/libxl/5/device/vusb/0/type=qusb
/libxl/5/device/vusb/0/usb-ver=2
/libxl/5/device/vusb/0/num-ports=4
/libxl/5/device/vusb/0/backend=/local/domain/0/backend/qusb/5/0
/local/domain/0/backend/qusb/5/0/state=4
/local/domain/0/backend/qusb/5/0/num-ports=4
/local/domain/0/backend/qusb/5/0/usb-ver=2
/local/domain/0/backend/qusb/5/0/port/1=1-4.2
/local/domain/0/backend/qusb/5/0/port/2=
/libxl/5/device/pci/0/dev-0=0000:00:14.0
"""
HVM = TREE.replace("qusb", "devicemodel").replace("type=pv", "type=hvm").replace("/5", "/6")
WIRE = b"\x02\0\0\0\x01\0\0\0\0\0\0\0\x04\0\0\0read\x0f\0\0\0\0\0\0\0\0\0\0\0\x08\0\0\0/a\0tok1\0"
TOKENS = [
    b"/local/domain/",
    b"/libxl/",
    b"=",
    b"32752",
    b"-1",
    b"00",
    b"state=4",
    b"\xff\xff\xff\xff",
    b"ENOENT\0",
    b"/../",
]


def seeds() -> Iterable[bytes]:
    """Trees of guests, and a reply with a watch event."""
    yield from (TREE.encode(), HVM.encode(), (TREE + HVM).encode(), WIRE)


def read(data: bytes) -> None:
    """Read it as a tree, and as bytes from xenstored."""
    text = data.decode("utf-8", "surrogateescape")
    tree = dict(line.partition("=")[::2] for line in text.split("\n"))
    for name, guest in read_guests(tree, {5, 6}, lambda _domid, _uuid: True, {}).items():
        assert name == guest.name
        assert 0 < guest.domid < 32752
        assert guest.device_model is None or guest.device_model > 0
    for path in tree:
        owner(path)
        place = port_place(path)
        assert place is None or port_path(place.type, place.guest_port) == path
    asyncio.run(_wire(data))


class _Line(asyncio.Transport):
    def write(self, data: object) -> None:
        """Discard the data."""

    def close(self) -> None:
        """There is nothing to close."""

    def abort(self) -> None:
        """As above."""


async def _wire(data: bytes) -> None:
    """For any bytes, each request gets a reply or is lost; never both, never an exception."""
    wire = Wire(lambda: None)
    wire.connection_made(_Line())
    asked = [wire.ask(kind, "/a", b"/a\0") for kind in (2, 1)]
    for at in range(0, len(data), 7):
        wire.data_received(data[at : at + 7])
    wire.connection_lost(None)
    for answer in asked:
        try:
            assert isinstance(await asyncio.wait_for(answer, 1), bytes)
        except (StoreLost, asyncio.CancelledError):
            continue
        except Exception as error:
            assert type(error).__name__ == "StoreError", error
