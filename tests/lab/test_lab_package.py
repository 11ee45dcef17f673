"""The Debian package in the lab's dom0: installed, upgraded, removed, with a device attached meanwhile.

Build it first (packaging/build-deb). The tests run in order; the module leaves no package behind.
"""

import re

import pytest
from labkit import Lab, ssh, wait_until
from labkit.config import REPOSITORY

TABLET = "0627:0001"
POLICY = f'version: 1\nrules: [{{name: tablet, match: {{device: "{TABLET}"}}, attach: kiosk}}]\n'
UPGRADE = """
cd /root && rm -rf deb-next && dpkg-deb -R xenplug.deb deb-next
sed -i 's/^Version: .*/Version: 99/' deb-next/DEBIAN/control
echo '# newer' >>deb-next/etc/xenplug/xenplug.yaml
dpkg-deb -b deb-next next.deb && dpkg --force-confdef --force-confold -i next.deb
"""


@pytest.fixture(scope="module", autouse=True)
def package(lab: Lab) -> None:
    """The package file is in dom0, and no other installation is left."""
    built = sorted((REPOSITORY / "dist").glob("xenplug_*_all.deb"))
    if not built:
        pytest.skip("no package in dist/ (packaging/build-deb)")
    lab.must(
        "systemctl stop xenplug 2>/dev/null; rm -rf /usr/lib/python3/dist-packages/xenplug /usr/bin/xenplug "
        "/etc/systemd/system/xenplug.service /etc/xenplug /run/xenplug /var/lib/xenplug; systemctl daemon-reload"
    )
    ssh.copy_in(lab.machine, built[-1].parent, "/root", (built[-1].name,))
    lab.must(f"mv /root/{built[-1].name} /root/xenplug.deb")


def attached(lab: Lab) -> bool:
    return any(d["device"] == TABLET and d["state"] == "attached" for d in lab.status()["devices"])


def held(lab: Lab) -> list[str]:
    """The busids on all qusb guest ports."""
    return re.findall(r'/port/\d+ = "(.+)"', lab.must("xenstore-ls -f /local/domain/0/backend/qusb"))


def test_it_installs_without_pip_and_attaches_nothing(lab: Lab) -> None:
    lab.must("dpkg -i /root/xenplug.deb", 180)
    wait_until(lambda: lab.dom0("systemctl is-active xenplug").stdout.strip() == "active", 60, "the agent runs")
    lab.plug("t1", "tablet")
    lab.host_device(TABLET)
    assert lab.guest_tags("kiosk") == []
    assert not lab.status()["policy"]["loaded"]


def test_with_a_policy_it_does_its_job(lab: Lab) -> None:
    lab.policy(POLICY)
    lab.must("systemctl reload xenplug")
    wait_until(lambda: attached(lab), 60, "the tablet is attached")
    wait_until(lambda: lab.guest_tags("kiosk") == [TABLET], 40, "kiosk sees the tablet")


def test_an_upgrade_keeps_configuration_and_attachments(lab: Lab) -> None:
    lab.must("echo '# mine' >>/etc/xenplug/xenplug.yaml")
    lab.must(UPGRADE, 180)
    assert lab.must("tail -n 1 /etc/xenplug/xenplug.yaml") == "# mine\n"
    assert "lab.yaml" in lab.must("ls /etc/xenplug/policies.d")
    wait_until(lambda: attached(lab), 60, "the tablet is still attached")
    assert lab.guest_tags("kiosk") == [TABLET]


def test_removal_brings_devices_back_and_leaves_no_port(lab: Lab) -> None:
    lab.must("dpkg -r xenplug", 120)
    wait_until(lambda: lab.guest_tags("kiosk") == [], 40, "kiosk has lost the tablet")
    assert lab.host_device(TABLET)
    assert held(lab) == []
    assert "lab.yaml" in lab.must("ls /etc/xenplug/policies.d")
    assert lab.must("ls /run/xenplug 2>/dev/null || true") == ""


def test_removal_clears_what_was_pulled_while_no_agent_ran(lab: Lab) -> None:
    """No agent cleared that port; it would block every later attach on the host."""
    lab.must("dpkg --force-confold -i /root/xenplug.deb", 180)  # its settings were changed above
    wait_until(lambda: lab.guest_tags("kiosk") == [TABLET], 90, "kiosk has the tablet again")
    lab.must("systemctl stop xenplug")
    lab.unplug("t1")
    wait_until(lambda: all(d.tag != TABLET for d in lab.host_devices()), 20, "the tablet is gone")
    assert len(held(lab)) == 1, "the port is stale"
    lab.must("dpkg -r xenplug", 120)
    assert held(lab) == []
    lab.plug("t2", "tablet")
    here = lab.host_device(TABLET)
    where = [f"hostbus={here.bus}", f"hostaddr={here.address}", "controller=0", "port=1"]
    assert lab.xl("usbdev-attach", "kiosk", *where).returncode == 0
    wait_until(lambda: lab.guest_tags("kiosk") == [TABLET], 40, "xl can attach")
    lab.must("xl usbdev-detach kiosk 0 1")


def test_purge_leaves_only_what_the_user_wrote(lab: Lab) -> None:
    lab.must("dpkg -P xenplug", 120)
    assert lab.must("find /etc/xenplug -type f").split() == ["/etc/xenplug/policies.d/lab.yaml"]
    assert lab.dom0("test -e /var/lib/xenplug").returncode != 0
    lab.unplug("t2")
