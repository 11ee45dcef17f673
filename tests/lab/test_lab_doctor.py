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
    told = json.loads(lab.dom0("xenplug doctor --json").stdout)
    return {c["name"]: [f["fact"] for f in c["findings"]] for c in told["checks"] if c["findings"]}


@contextmanager
def file(lab: Lab, path: str, text: str, mode: str = "644") -> Iterator[None]:
    """A file of dom0's for a while; what was there before comes back."""
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


def test_who_may_write_the_policy(lab: Lab) -> None:
    with file(lab, "/etc/xenplug/policies.d/zz-open.yaml", "version: 1\n", "666"):
        assert any("zz-open.yaml can be written by others" in fact for fact in doctor(lab)["rights"])


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


def test_a_stale_port(lab: Lab) -> None:
    """Left by hand, with no agent there to clear it; the agent then does."""
    lab.must("systemctl stop xenplug")
    lab.xenstore_write(lab.port_path("kiosk", 0, 8), "9-9.9")
    assert any("9-9.9" in fact for fact in doctor(lab)["stale-ports"])
    lab.must("systemctl start xenplug", 90)
    wait_until(lambda: "stale-ports" not in doctor(lab), 30, "the port is cleared")


def test_a_dead_device_model(lab: Lab) -> None:
    """The last test: the guest is of no use after it. The next module begins with a restored lab."""
    pid = lab.xenstore(f"/local/domain/{lab.domid('desk')}/image/device-model-pid")
    lab.must(f"kill -9 {pid}")
    wait_until(lambda: any("desk" in f for f in doctor(lab).get("dead-device-model", [])), 20, "the doctor tells it")
