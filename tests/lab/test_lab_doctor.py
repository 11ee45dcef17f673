"""`xenplug doctor` on a real Xen host: one set up well, then wrongly on purpose, one trap after the other."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from shlex import quote

import pytest
from labkit import Lab, wait_until

POLICY = "version: 1\nrules: [{name: tablet, match: {device: '0627:0001'}, attach: kiosk}]\n"
Found = dict[str, list[str]]


@pytest.fixture(scope="module", autouse=True)
def agent(lab: Lab) -> None:
    lab.install()
    lab.policy(POLICY)
    lab.must("systemctl start xenplug || { journalctl -u xenplug --no-pager; exit 1; }", 90)


def doctor(lab: Lab) -> Found:
    """The facts the doctor finds in dom0, by check."""
    report = json.loads(lab.dom0("xenplug doctor --json").stdout)
    return {c["name"]: [f["fact"] for f in c["findings"]] for c in report["checks"] if c["findings"]}


@contextmanager
def file(lab: Lab, path: str, text: str, mode: str = "644") -> Iterator[None]:
    """A file in dom0 for the duration of the block; the earlier content is restored."""
    lab.must(f"mkdir -p $(dirname {path}); [ ! -e {path} ] || mv {path} {path}.kept")
    lab.must(f"printf %s {quote(text)} >{path}; chmod {mode} {path}")
    try:
        yield
    finally:
        lab.must(f"rm -f {path}; [ ! -e {path}.kept ] || mv {path}.kept {path}")


def test_nothing_is_wrong_with_the_toolstack(lab: Lab) -> None:
    good = {"dom0", "xl", "xenstored", "xen-version", "qemu", "running", "root", "packages", "stale-ports", "policy"}
    assert not good & set(doctor(lab))


def test_lines_that_keep_a_guest_from_starting(lab: Lab) -> None:
    with file(lab, "/etc/xen/wrong.cfg", 'name="wrong"\nusbdevice="host:1d6b:2"\nusbdev=["hostbus=1,hostaddr=4"]\n'):
        found = doctor(lab)
    assert found["usbdevice"][0].startswith("/etc/xen/wrong.cfg:2")
    assert found["usbdev"][0].startswith("/etc/xen/wrong.cfg:3")


def test_lines_that_a_guest_takes_badly(lab: Lab) -> None:
    lines = {
        "usbctrl": 'type="pv"\nusbctrl="type=qusb"',
        "usbctrl-limits": 'type="hvm"\nusbctrl=["version=2,ports=8"]',
        "usbctrl-speeds": 'type="hvm"\nusbctrl=["type=devicemodel"]',
        "usbctrl-several": 'type="pv"\nusbctrl=["type=qusb","type=qusb"]',
        "usbback": 'type="pv"\nusbctrl=["type=pv"]',
        "device-model": 'type="pv"',
        "restricted": 'type="hvm"\ndm_restrict=1',
    }
    for check, text in lines.items():
        with file(lab, "/etc/xen/wrong.cfg", f'name="kiosk"\n{text}\n'):
            assert any("/etc/xen/wrong.cfg" in fact for fact in doctor(lab).get(check, [])), check


def test_the_checks_and_xl_agree_on_a_line(lab: Lab) -> None:
    """usbctrl-limits is not a matter of taste: such a guest does not start."""
    with file(lab, "/etc/xen/wrong.cfg", 'name="wrong"\ntype="pv"\nkernel="/guest/vmlinux"\nmemory=64\n'
              'usbctrl=["type=qusb,version=3"]\n'):  # fmt: skip
        assert "usbctrl-limits" in doctor(lab)
        done = lab.xl("create", "/etc/xen/wrong.cfg", timeout=120)
    assert done.returncode != 0, done.stdout
    assert lab.domid("wrong") is None


def test_a_guest_whose_name_is_a_number(lab: Lab) -> None:
    with file(lab, "/etc/xen/wrong.cfg", 'name="42"\n'):
        assert any("'42'" in fact for fact in doctor(lab)["names"])


def test_rules_for_a_controller_and_a_guest_not_made_for_it(lab: Lab) -> None:
    rule = "{name: all, match: {device: '1234:5678'}, attach: bare, via: pci}"
    with file(lab, "/etc/xenplug/policies.d/zz-pci.yaml", f"version: 1\nrules: [{rule}]\n"):
        assert any("bare" in fact for fact in doctor(lab)["passthrough"])


def test_guests_that_the_init_script_saves(lab: Lab) -> None:
    with file(lab, "/etc/default/xendomains", "XENDOMAINS_SAVE=/var/lib/xen/save\n"):
        assert any("/var/lib/xen/save" in fact for fact in doctor(lab)["save"])
    with file(lab, "/etc/default/xendomains", "XENDOMAINS_SAVE=\n"):
        assert "save" not in doctor(lab)


def test_configurations_for_root_only(lab: Lab) -> None:
    lab.must("chmod 700 /etc/xen")
    report = json.loads(lab.dom0("setpriv --reuid nobody --clear-groups xenplug doctor --json").stdout)
    lab.must("chmod 755 /etc/xen")
    assert [c["findings"][0]["severity"] for c in report["checks"] if c["name"] == "configs"] == ["unknown"]


def test_what_xen_was_booted_with(lab: Lab) -> None:
    """Xen's own console on USB. (Without an IOMMU the lab's guests do not start.)"""
    if "dbgp=" not in lab.must("xl info xen_commandline"):
        pytest.skip("Xen was booted well; XENPLUG_LAB_XEN=dbgp=ehci tests/lab/lab up --save boots it wrongly")
    wants = "version: 1\nrules: [{name: whole, match: {device: '1:2'}, attach: kiosk, via: pci}]\n"
    with file(lab, "/etc/xenplug/policies.d/more.yaml", wants):
        found = doctor(lab)
    assert any("dbgp=ehci" in fact for fact in found["debug-port"])


def test_a_group_that_does_not_exist(lab: Lab) -> None:
    with file(lab, "/etc/xenplug/xenplug.yaml", "version: 1\ncontrol: {group: nobodys}\n"):
        assert any("nobodys" in fact for fact in doctor(lab)["group"])


def test_who_may_write_the_policy(lab: Lab) -> None:
    with file(lab, "/etc/xenplug/policies.d/zz-open.yaml", "version: 1\n", "666"):
        assert any("zz-open.yaml can be written by users other than root" in fact for fact in doctor(lab)["rights"])


def test_another_agent(lab: Lab) -> None:
    rule = 'ACTION=="none", RUN+="/usr/sbin/xl usbdev-attach kiosk hostbus=1 hostaddr=2"\n'
    with file(lab, "/etc/udev/rules.d/99-other.rules", rule):
        assert any("99-other.rules" in fact for fact in doctor(lab)["others"])


def test_a_policy_that_does_not_load(lab: Lab) -> None:
    with file(lab, "/etc/xenplug/policies.d/zz-broken.yaml", "version: 1\nrulez: []\n"):
        assert any("rulez" in fact for fact in doctor(lab)["policy"])


def test_a_socket_of_another_xenstored(lab: Lab) -> None:
    with file(lab, "/etc/xenplug/xenplug.yaml", "version: 1\npaths: {xenstored: /run/nowhere}\n"):
        assert any("xl reaches it" in fact for fact in doctor(lab)["xenstored"])


def test_a_service_that_does_not_start_at_boot(lab: Lab) -> None:
    lab.must("systemctl disable xenplug")
    assert "service" in doctor(lab)
    lab.must("systemctl enable xenplug")
    assert "service" not in doctor(lab)


def test_udev_rules_of_another_policy(lab: Lab) -> None:
    rules = "/etc/udev/rules.d/37-xenplug-guests.rules"
    lab.must(f"xenplug udev-rules >{rules}")
    assert not [fact for fact in doctor(lab).get("udev-rules", []) if "37-" in fact]
    with file(lab, "/etc/xenplug/policies.d/more.yaml", POLICY.replace("tablet", "more").replace("0001", "0002")):
        assert any("another policy" in fact for fact in doctor(lab)["udev-rules"])
    lab.must(f"rm {rules}")


def test_no_space_for_the_history(lab: Lab) -> None:
    folder = "/var/lib/xenplug"
    lab.must(f"mount -t tmpfs -o ro none {folder}")
    try:
        found = doctor(lab)
    finally:
        lab.must(f"umount {folder}")
    assert found["room"] == [f"{folder} is read-only"]
    assert "room" not in doctor(lab)


def test_a_guest_that_is_being_migrated(lab: Lab) -> None:
    """By its temporary name (T46)."""
    lab.must("xl rename plain plain--incoming")
    found = doctor(lab)
    lab.must("xl rename plain--incoming plain")
    assert found["migration"] == ["plain--incoming is being migrated"]


def test_a_running_guest_without_device_model(lab: Lab) -> None:
    with file(lab, "/etc/xenplug/policies.d/more.yaml", POLICY.replace("tablet", "more").replace("kiosk", "bare")):
        assert any(fact.startswith("bare runs") for fact in doctor(lab)["no-device-model"])


def test_a_stale_port(lab: Lab) -> None:
    """Left behind while no agent runs to clear it; the agent then does."""
    lab.must("systemctl stop xenplug")
    lab.xenstore_write(lab.port_path("kiosk", 0, 8), "9-9.9")
    assert any("9-9.9" in fact for fact in doctor(lab)["stale-ports"])
    lab.must("systemctl start xenplug", 90)
    wait_until(lambda: "stale-ports" not in doctor(lab), 30, "the port is cleared")


# --- from here on no agent runs: it would repair what these tests break


def test_no_agent_and_root_hubs_left_closed(lab: Lab) -> None:
    lab.must("systemctl stop xenplug")
    attribute = lab.must("ls -d /sys/bus/usb/devices/usb1/interface_authorized_default").strip()
    assert "root-hubs" not in doctor(lab)
    lab.must(f"echo 0 >{attribute}")
    try:
        found = doctor(lab)
    finally:
        lab.must(f"echo 1 >{attribute}")
    assert "agent" in found
    assert any(attribute in fact for fact in found["root-hubs"])


def test_a_port_that_the_controller_lacks(lab: Lab) -> None:
    path = lab.port_path("kiosk", 0, 9)
    lab.xenstore_write(path, "1-1")
    assert any(fact.startswith(path) for fact in doctor(lab)["delivery"])
    lab.must(f"xenstore-rm {path}")


def test_a_superspeed_stick_on_a_qusb_controller(lab: Lab) -> None:
    """xl exits 0 and lists it; qemu's log alone says that its speed is wrong."""
    lab.plug("fast", "storage", bus="xhci")
    here = lab.host_device("46f4:0001")
    lab.must(f"xl usbdev-attach desk hostbus={here.bus} hostaddr={here.address} controller=0 port=7")
    found = doctor(lab)
    assert any("does not carry its speed" in fact for fact in found.get("delivery", [])), found
    lab.must("xl usbdev-detach desk 0 7")
    lab.unplug("fast")
    assert "delivery" not in doctor(lab)


def test_one_port_number_on_two_controllers(lab: Lab) -> None:
    """The device model is stopped during the test: it would abort."""
    lab.must("xl usbctrl-attach desk type=qusb version=2 ports=8", 90)
    pid = lab.xenstore(f"/local/domain/{lab.domid('desk')}/image/device-model-pid")
    paths = [lab.port_path("desk", controller, 5) for controller in (0, 1)]
    lab.must(f"kill -STOP {pid}")
    try:
        for path in paths:
            lab.xenstore_write(path, "9-9")
        found = doctor(lab)
        for path in paths:
            lab.xenstore_write(path, "")
    finally:
        lab.must(f"kill -CONT {pid}")
    assert any("desk has devices on port 5 of 2" in fact for fact in found.get("same-port", [])), found
    assert "same-port" not in doctor(lab)
    lab.dom0("xl usbctrl-detach desk 1", 90)


def test_a_host_controller_that_no_domain_has(lab: Lab) -> None:
    bdf = lab.must("basename $(ls -d /sys/bus/pci/drivers/xhci_hcd/0000:*:0b.0)").strip()
    lab.must(f"modprobe xen-pciback; xl pci-assignable-add {bdf}", 90)
    assert any(bdf in fact for fact in doctor(lab)["pciback-held"])
    lab.must(f"xl pci-assignable-remove -r {bdf}", 90)
    assert "pciback-held" not in doctor(lab)


def test_a_controller_that_xl_made_in_xenstore_only(lab: Lab) -> None:
    """An HVM guest without a USB controller, and `usbdev-attach` at once, as one types it (T5)."""
    lab.must("cp /guest/halt.img /var/tmp/phantom.img")  # bios has its own locked
    config = lab.must("sed '/^usbctrl/d; s:/guest/halt.img:/var/tmp/phantom.img:' /etc/xen/bios.cfg")
    with file(lab, "/etc/xen/phantom.cfg", config.replace('"bios"', '"phantom"')):
        lab.must("xl create /etc/xen/phantom.cfg", 120)
        lab.plug("m", "mouse")
        here = lab.host_device("0627:0001")
        lab.xl("usbdev-attach", "phantom", f"hostbus={here.bus}", f"hostaddr={here.address}")
        assert any("phantom" in fact for fact in doctor(lab)["phantom"])
        lab.must(f"xenstore-rm /libxl/{lab.domid('phantom')}/device/vusb/0")
        assert "phantom" not in doctor(lab)
        lab.must("xl usbctrl-attach phantom type=devicemodel version=3 ports=15", 90)
        assert "phantom" not in doctor(lab), "the remedy works: a real controller can be made then"


def test_a_call_of_xl_that_hangs(lab: Lab) -> None:
    """A stopped device model never answers the monitor, and xl waits for it for ever (T31, T32)."""
    pid = lab.xenstore(f"/local/domain/{lab.domid('phantom')}/image/device-model-pid")
    lab.must(f"kill -STOP {pid}; nohup xl qemu-monitor-command phantom 'info usb' >/dev/null 2>&1 </dev/null &")
    wait_until(lambda: any("qemu-monitor-command" in f for f in doctor(lab).get("hung-xl", [])), 150, "it is reported")
    lab.must(f"kill -CONT {pid}; sleep 3; xl destroy phantom", 90)
    wait_until(lambda: "hung-xl" not in doctor(lab), 30, "it has ended")


def test_a_device_that_nothing_drives_after_its_device_model_was_killed(lab: Lab) -> None:
    """T36. The last tests: desk cannot be used after them. The next module begins with a restored lab."""
    here = lab.host_device("0627:0001")
    lab.must(f"xl usbdev-attach desk hostbus={here.bus} hostaddr={here.address} controller=0 port=1")
    wait_until(lambda: lab.guest_tags("desk") == ["0627:0001"], 40, "desk sees the mouse")
    pid = lab.xenstore(f"/local/domain/{lab.domid('desk')}/image/device-model-pid")
    lab.must(f"kill -9 {pid}")
    wait_until(lambda: any("desk" in f for f in doctor(lab).get("dead-device-model", [])), 20, "the doctor tells it")
    lab.dom0("xl destroy desk", 120)
    wait_until(lambda: any("0627:0001" in f for f in doctor(lab).get("drivers", [])), 20, "nothing drives the mouse")
