"""Names that Xen's tools or a shell would misread are refused when a policy is read; xl never gets a name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xenplug.core.guests import owner, port_path, port_place
from xenplug.core.model import ControllerType, GuestPort
from xenplug.core.policy.guests import name_fault

BAD = [
    "-h",
    "--help",
    "0",
    "17",
    "../x",
    "a/b",
    "a\nb",
    "a\0b",
    "\x1b[31m",
    "",
    "Domain-0",
    "x" * 200,
    "a\u202eb",
    "\ud800",
]


@pytest.mark.parametrize("name", BAD, ids=ascii)
def test_refused(name: str) -> None:
    fault = name_fault(name)
    assert fault
    assert fault.isprintable()


@pytest.mark.parametrize("name", ["kiosk", "win11", "my guest", "a.b_c-d", "7of9", "caf\xe9"], ids=ascii)
def test_accepted(name: str) -> None:
    assert name_fault(name) is None


@given(st.text(max_size=80))
def test_accepted_names_are_safe_everywhere(name: str) -> None:
    fault = name_fault(name)
    if fault is None:
        assert name.isprintable()
        assert not name.startswith("-")
        assert not (name.isascii() and name.isdigit())
        assert "/" not in name
    else:
        assert fault.isprintable()


@given(st.integers(1, 32751), st.integers(0, 200), st.integers(1, 31), st.sampled_from(ControllerType))
def test_a_port_path_can_be_parsed(domid: int, controller: int, port: int, kind: ControllerType) -> None:
    guest_port = GuestPort(domid, controller, port)
    found = port_place(port_path(kind, guest_port))
    assert found
    assert (found.guest_port, found.type) == (guest_port, kind)


@given(st.text("/localdomibckenqus-0123456789.port\n\0 ", max_size=60))
def test_a_malformed_path_is_not_a_port(path: str) -> None:
    found = port_place(path)
    assert found is None or port_path(found.type, found.guest_port) == path


@pytest.mark.parametrize(
    "path",
    [
        "/libxl/005/device/vusb/0/port/1",  # found by the fuzzer: these were taken for nodes of domain 5
        "/libxl/5/device/vusb/00/port/1",
        "/local/domain/0/backend/qusb/5/0/port/01",
        "/local/domain/0/backend/qusb/5/0/port/1\n",
    ],
)
def test_another_spelling_of_a_number_is_another_node(path: str) -> None:
    assert port_place(path) is None
    assert owner("/libxl/005") is None
