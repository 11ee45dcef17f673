"""read_guests over trees as xenstore has them (xen-facts 2.3), and over everything it should never have."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xenplug.core.guests import owner, port_path, port_place, read_guests
from xenplug.core.model import ControllerType, Guest, GuestPort, GuestState, GuestType

QUSB, PV, DEVICEMODEL = ControllerType.QUSB, ControllerType.PV, ControllerType.DEVICEMODEL
UUID = "11111111-2222-3333-4444-555555555555"


def domain(domid: int, name: str = "kiosk", kind: str = "pvh") -> dict[str, str]:
    own = f"/local/domain/{domid}"
    return {
        f"{own}/name": name,
        f"{own}/vm": f"/vm/{UUID}",
        f"{own}/image/device-model-pid": "4711",
        f"/libxl/{domid}/type": kind,
    }


def backed(domid: int, id_: int = 0, backend: str = "qusb", ports: int = 2, **more: str) -> dict[str, str]:
    """A qusb or pv controller: live values in the backend, and libxl's unused copy from its creation."""
    base, noted = f"/local/domain/0/backend/{backend}/{domid}/{id_}", f"/libxl/{domid}/device/vusb/{id_}"
    nodes = {"state": "4", "usb-ver": "2", "num-ports": str(ports), "port": ""}
    nodes |= {f"port/{port}": "" for port in range(1, ports + 1)}
    type_ = "qusb" if backend == "qusb" else "pv"
    tree = {f"{noted}/{key}": value for key, value in nodes.items()} | {f"{noted}/type": type_}
    tree |= {f"{base}/{key}": value for key, value in (nodes | more).items()} | {base: "", noted: ""}
    return tree | {f"/local/domain/{domid}/device/vusb/{id_}/state": "4"}


def emulated(domid: int, id_: int = 0, version: int = 3, ports: int = 8, **more: str) -> dict[str, str]:
    base = f"/libxl/{domid}/device/vusb/{id_}"
    nodes = {"type": "devicemodel", "usb-ver": str(version), "num-ports": str(ports), "port": ""}
    return {f"{base}/{key}": value for key, value in (nodes | more).items()} | {base: ""}


def read(tree: dict[str, str], alive: set[int] | None = None, **states: GuestState) -> dict[str, Guest]:
    introduced = {5, 6, 7, 8} if alive is None else alive
    by_domid = {int(key[1:]): value for key, value in states.items()}
    return read_guests(tree, introduced, lambda _domid, uuid: uuid == UUID, by_domid)


def test_a_pvh_guest_with_a_qusb_controller() -> None:
    guests = read(domain(5) | backed(5, ports=3, **{"port/2": "3-1.4"}))
    assert list(guests) == ["kiosk"]
    guest = guests["kiosk"]
    assert (guest.domid, guest.type, guest.state) == (5, GuestType.PVH, GuestState.RUNNING)
    assert (guest.device_model, guest.uuid, guest.pci) == (4711, UUID, ())
    (controller,) = guest.controllers
    assert (controller.id, controller.type, controller.version, controller.connected) == (0, QUSB, 2, True)
    assert dict(controller.ports) == {1: None, 2: "3-1.4", 3: None}


def test_an_hvm_guest_with_a_devicemodel_controller() -> None:
    guest = read(domain(6, "win", "hvm") | emulated(6, ports=6, **{"port/1": "1-2"}))["win"]
    (controller,) = guest.controllers
    assert (controller.type, controller.version, controller.connected) == (DEVICEMODEL, 3, True)
    assert controller.ports[1] == "1-2"
    assert len(controller.ports) == 6


def test_a_pv_controller_and_several_of_them_in_order() -> None:
    tree = domain(7, kind="pv") | backed(7, 10, "vusb", 4) | backed(7, 2, "qusb", 2) | emulated(7, 1, 1, 2)
    guest = read(tree)["kiosk"]
    assert [(c.id, c.type, len(c.ports)) for c in guest.controllers] == [(1, DEVICEMODEL, 2), (2, QUSB, 2), (10, PV, 4)]


def test_libxls_own_copy_of_a_qusb_port_is_ignored() -> None:
    tree = domain(5) | backed(5) | {"/libxl/5/device/vusb/0/port/1": "9-9"}
    assert read(tree)["kiosk"].controllers[0].ports[1] is None


@pytest.mark.parametrize(
    ("frontend", "backend"), [("1", "2"), ("4", "2"), ("2", "4"), ("6", "6"), ("", "4"), ("04", "4")]
)
def test_connected_needs_both_ends(frontend: str, backend: str) -> None:
    tree = domain(5) | backed(5, state=backend) | {"/local/domain/5/device/vusb/0/state": frontend}
    assert not read(tree)["kiosk"].controllers[0].connected
    del tree["/local/domain/5/device/vusb/0/state"]
    assert not read(tree)["kiosk"].controllers[0].connected


def test_a_controller_without_backend_is_empty_and_not_connected() -> None:
    whole = domain(5) | backed(5) | {"/libxl/5/device/vusb/0/port/1": "9-9"}
    guest = read({path: value for path, value in whole.items() if "/backend/" not in path})["kiosk"]
    (controller,) = guest.controllers
    assert (controller.type, controller.connected, dict(controller.ports)) == (QUSB, False, {1: None, 2: None})


def test_a_backend_without_libxl_entry_counts() -> None:
    """xenstored makes the folders above it, empty."""
    home = "/local/domain/0/backend/qusb/5/3"
    tree = domain(5) | {home: "", f"{home}/port": "", f"{home}/port/1": "3-1"}
    (controller,) = read(tree)["kiosk"].controllers
    assert (controller.id, controller.connected, dict(controller.ports)) == (3, False, {1: "3-1"})


@pytest.mark.parametrize(
    ("num_ports", "expected"),
    [("1", 1), ("31", 31), ("32", 2), ("0", 2), ("-3", 2), ("99999999999999999999", 2), ("x", 2), ("", 2), ("٣", 2)],
)
def test_with_an_invalid_number_of_ports_the_existing_ones_count(num_ports: str, expected: int) -> None:
    tree = domain(5) | backed(5) | {"/local/domain/0/backend/qusb/5/0/num-ports": num_ports}
    assert len(read(tree)["kiosk"].controllers[0].ports) == expected


def test_a_port_beyond_the_controller_is_ignored() -> None:
    tree = domain(5) | backed(5, ports=4) | {"/local/domain/0/backend/qusb/5/0/port/9": "3-1"}
    assert list(read(tree)["kiosk"].controllers[0].ports) == [1, 2, 3, 4]


def test_a_value_that_is_no_busid_is_kept_because_it_blocks_the_host() -> None:
    assert read(domain(5) | backed(5, **{"port/1": "rubbish"}))["kiosk"].controllers[0].ports[1] == "rubbish"


@pytest.mark.parametrize(("text", "version"), [("1", 1), ("2", 2), ("9", 2), ("", 2), ("two", 2)])
def test_usb_version(text: str, version: int) -> None:
    assert read(domain(5) | backed(5, **{"usb-ver": text}))["kiosk"].controllers[0].version == version


@pytest.mark.parametrize("name", ["kiosk--incoming", "kiosk--migratedaway", ""])
def test_guests_in_migration_or_without_a_name_are_omitted(name: str) -> None:
    assert read(domain(5, name)) == {}


def test_dom0_is_not_a_guest() -> None:
    assert read(domain(0, "Domain-0", "pv"), {0}) == {}


@pytest.mark.parametrize("kind", ["", "pvh2", "PVH", "\ufffd"])
def test_a_domain_without_a_type_is_omitted(kind: str) -> None:
    assert read(domain(5, kind=kind)) == {}


def test_a_device_model_domain_is_not_a_guest() -> None:
    tree = domain(5, "win", "hvm") | domain(6, "win-dm", "pv") | {"/local/domain/6/target": "5"}
    del tree["/local/domain/5/image/device-model-pid"]
    guests = read(tree)
    assert list(guests) == ["win"]
    assert guests["win"].device_model is None
    del tree["/local/domain/6/target"]
    tree["/local/domain/5/image/device-model-domid"] = "6"
    guests = read(tree)
    assert list(guests) == ["win"] and guests["win"].stubdom


def test_a_guest_is_starting_until_it_is_introduced_and_ready() -> None:
    tree = domain(5)
    assert read(tree, set())["kiosk"].state is GuestState.STARTING
    assert read(tree | {"/local/domain/5/vm": "/vm/another"})["kiosk"].state is GuestState.STARTING
    unborn = {path: value for path, value in tree.items() if not path.endswith("/vm")}
    assert read(unborn)["kiosk"].state is GuestState.STARTING
    assert read(unborn)["kiosk"].uuid is None
    assert read(tree)["kiosk"].state is GuestState.RUNNING


def test_the_state_from_the_hypervisor() -> None:
    tree = domain(5)
    assert read(tree, d5=GuestState.PAUSED)["kiosk"].state is GuestState.PAUSED
    assert read(tree, set(), d5=GuestState.PAUSED)["kiosk"].state is GuestState.STARTING, "paused while it is built"
    assert read(tree, set(), d5=GuestState.STOPPING)["kiosk"].state is GuestState.STOPPING
    assert read(tree, d6=GuestState.PAUSED)["kiosk"].state is GuestState.RUNNING


def test_of_two_domains_with_one_name_the_newer_live_one_counts() -> None:
    tree = domain(5) | domain(12)
    alive = {5, 12}
    assert read(tree, alive)["kiosk"].domid == 12
    assert read(tree, {5})["kiosk"].domid == 12, "the one that starts"
    assert read(tree, alive, d5=GuestState.STOPPING)["kiosk"].domid == 12
    assert read(tree, alive, d12=GuestState.STOPPING)["kiosk"].domid == 5
    assert read(tree, alive, d5=GuestState.STOPPING, d12=GuestState.STOPPED)["kiosk"].domid == 12


@pytest.mark.parametrize("pid", ["", "0", "-1", "12x", "99999999999"])
def test_an_invalid_device_model_pid_is_none(pid: str) -> None:
    assert read(domain(5) | {"/local/domain/5/image/device-model-pid": pid})["kiosk"].device_model is None


def test_pci_devices_of_a_guest() -> None:
    base = "/local/domain/0/backend/pci/5/0"
    tree = domain(5) | {f"{base}/dev-0": "0000:03:00.0", f"{base}/dev-1": "0000:00:14.0", f"{base}/dev-2": "junk"}
    tree |= {
        f"{base}/num_devs": "3",
        f"{base}/vdevfn-0": "100",
        "/local/domain/0/backend/pci/6/0/dev-0": "0000:09:00.0",
    }
    assert read(tree)["kiosk"].pci == ("0000:00:14.0", "0000:03:00.0")


@pytest.mark.parametrize(
    ("type_", "path"),
    [
        (QUSB, "/local/domain/0/backend/qusb/5/1/port/12"),
        (PV, "/local/domain/0/backend/vusb/5/1/port/12"),
        (DEVICEMODEL, "/libxl/5/device/vusb/1/port/12"),
    ],
)
def test_port_paths_round_trip(type_: ControllerType, path: str) -> None:
    guest_port = GuestPort(5, 1, 12)
    assert port_path(type_, guest_port) == path
    assert port_place(path) == (guest_port, type_)
    assert owner(path) == 5


@pytest.mark.parametrize(
    "path",
    [
        "/local/domain/0/backend/qusb/5/1/port",
        "/local/domain/0/backend/qusb/5/1/port/1/x",
        "/local/domain/0/backend/qusb/5/1/port/1\n",
        "/local/domain/0/backend/vbd/5/1/port/1",
        "/libxl/5/device/vusb/x/port/1",
        "/libxl/٥/device/vusb/1/port/1",
        "x/libxl/5/device/vusb/1/port/1",
        "",
    ],
)
def test_other_paths_are_not_ports(path: str) -> None:
    assert port_place(path) is None


@pytest.mark.parametrize(
    ("path", "domid"),
    [
        ("/local/domain/5/name", 5),
        ("/local/domain/5", 5),
        ("/libxl/12/type", 12),
        ("/local/domain/0/device-model/7/backends/qusb", 7),
        ("/local/domain/0/backend/pci/7/0", 7),
        ("/local/domain/0/name", None),
        ("/local/domain/0", None),
        ("/local/domain", None),
        ("/libxl/pci/0000-00-14-0", None),
        ("@introduceDomain", None),
    ],
)
def test_the_owner_of_a_path(path: str, domid: int | None) -> None:
    assert owner(path) == domid


WORDS = st.one_of(
    st.sampled_from(["", "0", "4", "5", "31", "qusb", "pv", "devicemodel", "hvm", "3-1", "/vm/x", "kiosk"]),
    st.text(max_size=9),
)
PATHS = st.sampled_from(sorted(domain(5) | backed(5) | emulated(5, 1) | backed(5, 2, "vusb") | domain(6) | backed(6)))


@given(st.dictionaries(PATHS, WORDS), st.sets(st.integers(0, 9)), st.sampled_from([{}, {5: GuestState.PAUSED}]))
def test_any_tree_is_read(tree: dict[str, str], alive: set[int], states: dict[int, GuestState]) -> None:
    for name, guest in read_guests(tree, alive, lambda domid, _uuid: domid == 5, states).items():
        assert guest.name == name
        for controller in guest.controllers:
            assert set(controller.ports) <= set(range(1, 32))
