"""The main job with emulated controllers (`devicemodel`): devices that the policy assigns to an HVM guest arrive in the
Linux inside. Runs on the machine of `lab hvm` (labkit/hvm.py): everything except the hypervisor is real. Each group
starts from the state with the guest booted and no controller; the tests of a group run in order.

Only the low speed device is a gadget, and no test pulls it while it is attached: dummy_hcd (Linux 6.1) may bring dom0
down when a gadget goes while qemu waits for its data (BUG in stop_activity, seen once in seven).
"""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from labkit import Lab, hvm, wait_until
from labkit.config import KIND
from labkit.devices import HostDevice
from labkit.stages import log_path

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(KIND != "hvm", reason="runs on a machine of its own: tests/lab/lab hvm"),
]

WIN = hvm.GUEST
TABLET, STICK, SERIAL, MOUSE = "0627:0001", "46f4:0001", "0403:6001", "1050:0010"
# The guest is emulated twice over: from attach until its Linux has seen a device takes a minute on a busy machine.
SEEN, TOLD = 300, 60
PORTS = {1: 2, 2: 6, 3: 15}
UNIT = "/etc/systemd/system/xenplug.service.d/no-xen.conf"


def policy(version: int) -> str:
    controller = f"{{type: devicemodel, version: {version}, ports: {PORTS[version]}}}"
    rule = f'{{name: all for {WIN}, match: {{device: "*:*"}}, attach: {WIN}}}'
    return f"version: 1\nguests:\n  {WIN}: {{controller: {controller}}}\nrules:\n  - {rule}\n"


@pytest.fixture(scope="class")
def agent(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """A clean machine on which the agent runs with the policy of the class's `version`."""
    lab = Lab()
    lab.restore()
    hvm.copy_helpers(lab.machine)
    lab.install()
    lab.policy(policy(request.cls.version))
    # The unit starts on Xen only; and this machine's xl logs its calls to a place that is read-only in the unit.
    more = r"[Unit]\nConditionPathExists=\n[Service]\nReadWritePaths=/var/lib/hvm\n"
    lab.must(f"mkdir -p $(dirname {UNIT}); printf '{more}' > {UNIT}; systemctl daemon-reload")
    lab.must("systemctl start xenplug || { journalctl -u xenplug --no-pager; exit 1; }", 120)
    yield lab
    keep(lab, request.cls.__name__)  # nothing is pulled: the next group restores the machine


def keep(lab: Lab, name: str) -> None:
    """Collect in the log of that name: the guest's console, xl's calls, the agent's log."""
    log = log_path(name)
    parts = {
        "console": lab.console(WIN).replace("\r", ""),
        "xl": lab.must("cat /var/lib/hvm/xl-calls.log"),
        "agent": lab.agent_log(),
        "xenstore": lab.dom0(f"xenstore-ls -f /libxl/{hvm.DOMID}").stdout,
    }
    log.write_text("".join(f"==== {part}\n{text}\n" for part, text in parts.items()))


def device(lab: Lab, port: str) -> dict[str, Any]:
    """The agent's status of the device at that port of dom0; empty if it has none."""
    return next((entry for entry in lab.status()["devices"] if entry["port"] == port), {})


def attached(lab: Lab, port: str) -> dict[str, Any]:
    entry = device(lab, port)
    return entry if (entry.get("state"), entry.get("guest")) == ("attached", WIN) else {}


def guest_ports(lab: Lab) -> dict[tuple[int, int], str]:
    """The occupied guest ports in xenstore: (controller, port) -> busid."""
    tree = lab.dom0(f"xenstore-ls -f /libxl/{hvm.DOMID}/device/vusb").stdout
    found = re.findall(r'/vusb/(\d+)/port/(\d+) = "(.+)"', tree)
    return {(int(controller), int(port)): busid for controller, port, busid in found}


def held(lab: Lab) -> list[str]:
    """The host devices that the guest's qemu has as objects: "xenusb-BUS-ADDRESS"."""
    output = lab.must(f"XENPLUG_BENCH_CONSOLE=1 xl qemu-monitor-command {WIN} 'info usb'")
    return sorted(re.findall(r"ID: (xenusb-\d+-\d+)", output))


def calls(lab: Lab, command: str) -> list[str]:
    """The agent's xl calls of that command, without the command."""
    lines = lab.must("cut -f 3- /var/lib/hvm/xl-calls.log | tr '\\t' ' '").splitlines()
    return [line.partition(" ")[2] for line in lines if line.startswith(command + " ")]


def arrives(lab: Lab, tag: str, speed: str, port: str | None = None) -> HostDevice:
    """Waits until the Linux in the guest has configured the device and the agent says so; all else must agree."""
    host = lab.host_device(tag)
    assert port in (None, host.port)
    seen = wait_until(
        lambda: [s for s in lab.guest_sees(WIN) if s.tag == tag and s.interfaces],
        SEEN,
        f"{WIN} sees {tag}",
        every=2,
    )
    assert [one.speed for one in seen] == [speed]
    entry = wait_until(lambda: attached(lab, host.port), TOLD, f"the agent says so, last {device(lab, host.port)}")
    place = (entry["guest_controller"], entry["guest_port"])
    assert guest_ports(lab)[place] == host.port
    call = f"{hvm.DOMID} hostbus={host.bus} hostaddr={host.address} controller={place[0]} port={place[1]}"
    assert call in calls(lab, "usbdev-attach")
    assert object_of(host) in held(lab)
    host = lab.host_device(tag)
    assert set(host.drivers) == {"usbfs"}
    wait_until(lambda: device(lab, host.port)["cause"] == "used", TOLD, "the agent tells that it is used")
    return host


def object_of(host: HostDevice) -> str:
    """libxl's name for the device in qemu."""
    return f"xenusb-{host.bus}-{host.address}"


def is_gone(lab: Lab, host: HostDevice) -> None:
    """The port is free, qemu's object is deleted, the guest does not see it, the agent has forgotten it."""
    wait_until(lambda: host.port not in guest_ports(lab).values(), TOLD, "its guest port is free")
    wait_until(lambda: object_of(host) not in held(lab), TOLD, "qemu has dropped it")
    wait_until(lambda: host.tag not in lab.guest_tags(WIN), SEEN, f"{WIN} does not see it")
    wait_until(lambda: not device(lab, host.port), TOLD, "the agent does not list it")


class TestVersion3:
    """xHCI, which carries everything: the whole life of devices, one after the other."""

    version = 3
    gone: HostDevice

    def test_clean(self, agent: Lab) -> None:
        guest = next(guest for guest in agent.status()["guests"] if guest["name"] == WIN)
        assert (guest["type"], guest["state"], guest["controllers"]) == ("hvm", "running", [])
        assert agent.guest_sees(WIN) == ()

    def test_plugged_device_arrives_in_the_guest(self, agent: Lab) -> None:
        agent.plug("t1", "tablet", port="1")
        type(self).gone = arrives(agent, TABLET, "480")
        assert [call.split()[1:] for call in calls(agent, "usbctrl-attach")] == [
            ["type=devicemodel", "version=3", "ports=15"]
        ]
        assert agent.guest_sees(WIN)[0].product == "QEMU USB Tablet"

    def test_pulled_device_leaves_nothing_behind(self, agent: Lab) -> None:
        agent.unplug("t1")
        is_gone(agent, self.gone)
        assert calls(agent, "qemu-monitor-command") == [f"{hvm.DOMID} device_del {object_of(self.gone)}"]

    def test_back_in_the_same_place_it_arrives_again(self, agent: Lab) -> None:
        agent.plug("t1", "tablet", port="1")
        host = arrives(agent, TABLET, "480", self.gone.port)
        assert host.address != self.gone.address
        assert len(calls(agent, "usbctrl-attach")) == 1

    def test_every_speed_arrives_next_to_it(self, agent: Lab) -> None:
        agent.plug("s1", "storage", bus="xhci", serial="S1")
        arrives(agent, STICK, "5000")
        agent.gadget("mouse", MOUSE, function="hid", speed="low-speed")
        arrives(agent, MOUSE, "1.5")
        agent.plug("f1", "serial", bus="uhci")
        arrives(agent, SERIAL, "12")
        assert agent.guest_tags(WIN) == sorted([TABLET, STICK, MOUSE, SERIAL])

    def test_the_others_stay_when_one_is_pulled(self, agent: Lab) -> None:
        host, before = agent.host_device(TABLET), guest_ports(agent)
        agent.unplug("t1")
        is_gone(agent, host)
        after = {place: busid for place, busid in before.items() if busid != host.port}
        assert guest_ports(agent) == after
        assert agent.guest_tags(WIN) == sorted([STICK, MOUSE, SERIAL])

    def test_restarted_agent_adopts_and_still_cleans_up(self, agent: Lab) -> None:
        """The address to delete is remembered by the ledger."""
        host, before = agent.host_device(SERIAL), len(calls(agent, "usbdev-attach"))
        agent.must("systemctl kill -s KILL xenplug; sleep 1; systemctl reset-failed xenplug")
        agent.must("systemctl start xenplug", 120)
        wait_until(lambda: attached(agent, host.port), TOLD, "adopted")
        assert len(calls(agent, "usbdev-attach")) == before
        agent.unplug("f1")
        is_gone(agent, host)

    def test_pulled_while_the_agent_is_away(self, agent: Lab) -> None:
        agent.plug("t2", "tablet")
        host = arrives(agent, TABLET, "480")
        agent.must("systemctl stop xenplug", 60)
        agent.unplug("t2")
        wait_until(lambda: not [d for d in agent.host_devices() if d.tag == TABLET], TOLD, "gone from dom0")
        agent.must("systemctl start xenplug", 120)
        is_gone(agent, host)

    def test_a_destroyed_guests_devices_return(self, agent: Lab) -> None:
        host = agent.host_device(STICK)
        agent.must(f"python3 /opt/hvm/host.py destroy {WIN}")
        wait_until(lambda: device(agent, host.port).get("cause") == "guest_stopped", TOLD, "it waits for the guest")
        wait_until(lambda: agent.host_device(STICK).drivers == ("usb-storage",), TOLD, "dom0's driver has it again")


class TestVersion2:
    """EHCI without companions: high speed and nothing else."""

    version = 2

    def test_high_speed_arrives(self, agent: Lab) -> None:
        agent.plug("t1", "tablet")
        host = arrives(agent, TABLET, "480")
        agent.unplug("t1")
        is_gone(agent, host)

    def test_full_speed_is_not_tried(self, agent: Lab) -> None:
        before = len(calls(agent, "usbdev-attach"))
        agent.plug("f1", "serial", bus="uhci")
        host = agent.host_device(SERIAL)
        wait_until(lambda: device(agent, host.port).get("cause") == "unfit_speed", TOLD, "the agent tells why not")
        assert len(calls(agent, "usbdev-attach")) == before


class TestVersion1:
    """UHCI: low and full speed, two ports."""

    version = 1

    def test_full_speed_arrives(self, agent: Lab) -> None:
        agent.plug("f1", "serial", bus="uhci")
        host = arrives(agent, SERIAL, "12")
        agent.unplug("f1")
        is_gone(agent, host)

    def test_high_speed_is_not_tried(self, agent: Lab) -> None:
        before = len(calls(agent, "usbdev-attach"))
        agent.plug("t1", "tablet")
        host = agent.host_device(TABLET)
        wait_until(lambda: device(agent, host.port).get("cause") == "unfit_speed", TOLD, "the agent tells why not")
        assert len(calls(agent, "usbdev-attach")) == before

    def test_low_speed_arrives(self, agent: Lab) -> None:
        agent.unplug("t1")
        agent.gadget("mouse", MOUSE, function="hid", speed="low-speed")
        arrives(agent, MOUSE, "1.5")
