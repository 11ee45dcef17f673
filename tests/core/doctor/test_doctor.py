"""The doctor's checks as a table: hosts with one configuration error each, and the expected finding."""

import re
from dataclasses import replace
from types import MappingProxyType

import pytest
from tests.core.make import controller, device, guest, policy

from xenplug.core.doctor.checks import CHECKS, examine, sound, view
from xenplug.core.doctor.facts import (
    Facts,
    GuestConfigFile,
    Holder,
    Install,
    Manager,
    OwnedPath,
    RunningGuest,
    ToolstackFacts,
    UsbFacts,
    WaitingProcess,
)
from xenplug.core.doctor.findings import Severity
from xenplug.core.doctor.host import RULE_FILES
from xenplug.core.host_system import Family, HostSystem, Package, Services
from xenplug.core.interop.xl_cfg import read
from xenplug.core.model import Bdf, Claim, PciController, Speed
from xenplug.core.settings import ControlSettings, Settings

INFO = {"xen_version": "4.17.7", "virt_caps": "pv hvm pv_directio hvm_directio", "xen_commandline": "placeholder"}
PACKAGES = {"pyudev": "0.24.0", "PyYAML": "6.0", "jsonschema": "4.10.3"}
GOOD_INSTALL = Install(
    packages=PACKAGES, unit="/lib/systemd/system/xenplug.service", udev_rules=frozenset(RULE_FILES),
    guest_rules="# head\nA\n", wanted_rules="A\n", agent="1", version="1", owned=(OwnedPath("/etc/xenplug", 0, 0o755),),
    free={"/run": 1 << 30},
)  # fmt: skip
RULES = policy("rules: [{name: mice, match: {kind: mouse}, attach: kiosk}]")
PCI = policy("rules: [{name: vr, match: {device: '2833:*'}, attach: kiosk, via: pci}]")
KIOSK = 'name="kiosk"\ntype="pv"\nusbctrl=["type=qusb,version=2,ports=8"]\n'


def config(text, file="/etc/xen/kiosk.cfg"):
    return GuestConfigFile(file, read(text))


GOOD = Facts(
    toolstack=ToolstackFacts(xl=MappingProxyType(INFO), qemu=(7, 2, 22), pciback=True),
    policy=RULES,
    configs=(config(KIOSK),),
    running=(RunningGuest(guest("kiosk", 5, controller(p1="1-1"))),),
    present=frozenset({"1-1"}),
    install=GOOD_INSTALL,
)


def findings_of(facts):
    """The findings, by check."""
    return {check.name: findings for check, findings in examine(facts) if findings}


def tools(**changed):
    return replace(GOOD, toolstack=replace(GOOD.toolstack, **changed))


def info(**changed):
    return tools(xl=MappingProxyType(INFO | changed))


def kiosk(*lines, policy=RULES):
    return replace(GOOD, configs=(config(KIOSK + "\n".join(lines)),), policy=policy)


def hvm(*lines):
    return kiosk('type="hvm"', *lines)


HELD = PciController(Bdf("0000:03:00.0"), "pciback")
UNUSED = replace(GOOD, usb=UsbFacts(controllers=(HELD,)))


def on_port(claim, **more):
    """A device on kiosk's only port, and whether kiosk has taken it."""
    running = RunningGuest(guest("kiosk", 5, controller(p1="1-1")), claims={"1-1": claim})
    return replace(GOOD, running=(running,), usb=UsbFacts({"1-1": device("1-1", **more)}))


def models(*objects):
    """An HVM guest with a controller in xenstore, and the objects of its QEMU."""
    return runs_with(objects, controller(kind="devicemodel", version=3))


def runs_with(objects, made):
    return replace(GOOD, running=(RunningGuest(guest("kiosk", 5, made), objects=frozenset(objects)),))


def dom0_has(*devices):
    return replace(GOOD, usb=UsbFacts({d.port: d for d in devices}))


def only(text, policy=RULES):
    return replace(GOOD, configs=(config(text),), policy=policy, running=())


def runs(*found, **changed):
    return replace(GOOD, running=tuple(RunningGuest(g, **changed) for g in found))


def held(command, service, *nodes, manager=Manager.SYSTEMD, rules=True, policy=RULES, **more):
    """A mouse for kiosk that a process of dom0 holds open."""
    install = replace(GOOD_INSTALL, guest_rules="A\n" if rules else None)
    holder = Holder("1-1", nodes or ("/dev/ttyUSB0",), 812, command, service, manager)
    usb = UsbFacts({"1-1": device("1-1", **more)})
    return replace(GOOD, running=(), policy=policy, usb=usb, install=install, holders=(holder,))


def installed(**changed):
    return replace(GOOD, install=replace(GOOD_INSTALL, **changed))


def test_a_correct_host_has_no_findings():
    assert findings_of(GOOD) == {}
    assert sound(examine(GOOD))
    assert view(examine(GOOD))["checks"][0] == {"name": "dom0", "title": "this is a Xen dom0", "findings": []}


def test_without_xen_the_checks_that_need_it_are_skipped():
    facts = tools(dom0=False, xl=None, xl_error="x", store_error="x")
    assert set(findings_of(facts)) == {"dom0"}
    assert not sound(examine(facts))
    assert len(examine(facts)) < len(CHECKS)


B, W, U = Severity.BAD, Severity.WARNING, Severity.UNKNOWN
WRAPPER = "ERROR: Can't find version 4.17 of xen utils (maybe xen-utils-4.17 was already removed"
FEDORA = HostSystem(Family.FEDORA, Services.SYSTEMD)
PV = policy("guests: {kiosk: {controller: {type: pv, version: 2, ports: 8}}}")
WRONG = {
    # --- toolstack
    "wrapper": (tools(xl=None, xl_error=WRAPPER), "xl", B, "install the xen-utils of the running Xen"),
    "no xl": (tools(xl=None, xl_error="xl: no such program; install it"), "xl", B, "toolstack.xl"),
    "xl without xenstore": (tools(xl=None, xl_error="cannot connect to xenstore"), "xl", B, "systemctl start xen"),
    "xl, another way": (tools(xl=None, xl_error="killed"), "xl", B, "make `xl info` work first"),
    "xl, not as root": (replace(tools(xl=None, xl_error="x"), root=False), "xl", U, "run this as root"),
    "xenstored elsewhere": (
        tools(store_error="refused", store_socket="/a"), "xenstored", B, "xl reaches it, so it listens elsewhere"),
    "xenstored away": (tools(store_error="refused", xl=None), "xenstored", B, "start xenstored, or set paths."),
    "xenstored, not as root": (replace(tools(store_error="x"), root=False), "xenstored", U, "as root"),
    "Xen 4.6": (info(xen_version="4.6.1"), "xen-version", B, "4.8 or newer"),
    "Xen 4.7": (info(xen_version="4.7.0"), "xen-version", W, "no emulated USB controllers"),
    "strict QEMU": (replace(info(xen_version="4.19.4"), toolstack=replace(info(xen_version="4.19.4").toolstack,
                    qemu=(9, 2, 0))), "qemu", B, "xl of Xen 4.19.4 cannot attach emulated USB devices with QEMU 9.2.0"),
    "no QEMU": (tools(qemu=None, qemu_missing=True), "qemu", B, "qemu-system-xen"),
    "no usb-host": (
        replace(tools(qemu_of_distribution=True, usb_host=False), system=FEDORA),
        "usb-host", B, "dnf install qemu-device-usb-host, then restart the guests"),
    "usbback, policy": (replace(GOOD, policy=PV), "usbback", B, "write type: qusb"),
    "usbback, config": (
        kiosk('usbctrl=["type=pv"]'), "usbback", B, "/etc/xen/kiosk.cfg:4: a USB controller of type pv"),
    "no IOMMU": (replace(info(virt_caps="pv hvm"), policy=PCI), "iommu", B, "VT-d or AMD-Vi"),
    "IOMMU unknown": (replace(tools(xl=None), policy=PCI), "iommu", U, "xl info"),
    "no pciback": (replace(tools(pciback=False), policy=PCI), "pciback", B, "modprobe xen-pciback"),
    "debug port": (replace(info(xen_commandline="dbgp=xhci,share=1"), policy=PCI), "debug-port", W, "dbgp=xhci"),
    # --- configurations
    "unreadable": (replace(GOOD, configs=None), "configs", U, "run this as root"),
    "usbdevice": (
        kiosk('usbdevice="host:1d6b:2"'), "usbdevice", B, "/etc/xen/kiosk.cfg:4: usbdevice=host:… prevents kiosk"),
    "usbdevice list": (kiosk('usbdevice=["tablet","host:3.7"]'), "usbdevice", B, "write a rule"),
    "usbversion": (kiosk("usbversion=3", "usb=1"), "usbdevice", B, "keep only one of them"),
    "usbdev": (kiosk('usbdev=["hostbus=1,hostaddr=4"]'), "usbdev", B, "from rebooting after its address"),
    "no list": (kiosk('usbctrl="type=qusb"'), "usbctrl", B, 'write usbctrl=["…"]'),
    "no type": (kiosk('usbctrl=["version=2"]'), "usbctrl", B, "has no type=qusb, so no device model serves it"),
    "unknown key": (kiosk('usbctrl=["type=qusb,controller=1"]'), "usbctrl-limits", B, "has controller, which xl"),
    "version 3, qusb": (kiosk('usbctrl=["type=qusb,version=3"]'), "usbctrl-limits", B, "version 3 with default ports"),
    "40 ports": (kiosk('usbctrl=["type=qusb,ports=40"]'), "usbctrl-limits", B, "at most 31"),
    "version 4": (hvm('usbctrl=["version=4"]'), "usbctrl-limits", B, "has version 4, so the guest does not start"),
    "EHCI, 8 ports": (hvm('usbctrl=["version=2,ports=8"]'), "usbctrl-limits", B, "has 8 ports at version 2"),
    "EHCI": (hvm('usbctrl=["type=devicemodel"]'), "usbctrl-speeds", W, "no mouse, no keyboard"),
    "UHCI": (hvm('usbctrl=["version=1"]'), "usbctrl-speeds", W, "version=3,ports=15"),
    "USB 1 qusb": (kiosk('usbctrl=["type=qusb,version=1"]'), "usbctrl-speeds", W, "xl reports success"),
    "two of them": (kiosk('usbctrl=["type=qusb","type=qusb"]'), "usbctrl-several", W, "up to 31"),
    "no device model": (only('name="kiosk"'), "device-model", B, "can never take a USB device"),
    "no device model, pvh": (only('name="kiosk"\ntype="pvh"'), "device-model", B, "kiosk (pvh)"),
    "stub domain": (kiosk("device_model_stubdomain_override=1"), "restricted", B, "cannot open USB devices"),
    "dm_restrict": (kiosk("dm_restrict=1"), "restricted", B, "remove dm_restrict"),
    "digits": (replace(GOOD, configs=(config(KIOSK), config('name="42"\nvfb=["x"]'))), "names", B, "'42'"),
    "no passthrough": (kiosk(policy=PCI), "passthrough", B, 'passthrough="enabled"'),
    "pvh and PCI": (kiosk('type="pvh"', policy=PCI), "passthrough", B, "PVH guest"),
    "memory on demand": (kiosk('type="hvm"', 'passthrough="enabled"', "memory=10", "maxmem=20", policy=PCI),
                         "passthrough", B, "maxmem"),
    "no such guest": (replace(GOOD, configs=(config('name="desk"\n'),), running=()), "guests", W, "names kiosk"),
    # --- running
    "xenstore unread": (replace(GOOD, running=None), "running", U, "as root"),
    "stale port": (replace(GOOD, present=frozenset()), "stale-ports", B, "no USB device can be attached to any guest"),
    "dead device model": (runs(guest("kiosk", 5), model_alive=False), "dead-device-model", B, "does nothing"),
    "started without": (runs(guest("kiosk", 5, device_model=None)), "no-device-model", B, "and restart it"),
    "no frontend": (runs(guest("kiosk", 5, controller(connected=False))), "frontend", W, "CONFIG_USB_XEN_HCD"),
    "dead pv": (
        runs(guest("kiosk", 5, controller(kind="pv", connected=False))), "frontend", B, "usbctrl-detach kiosk 0"),
    "same port": (runs(guest("kiosk", 5, controller(p1="1-1"), controller(1, p1="1-1"))), "same-port", B, "may abort"),
    "migrating": (replace(GOOD, moving=("kiosk--incoming",)), "migration", W, "wait for the end"),
    "not taken": (on_port(Claim()), "delivery", B, "xl usbdev-detach kiosk 0 1, then attach it again"),
    "not carried": (on_port(Claim(), speed=Speed.SUPER), "delivery", B, "version 2 does not carry its speed"),
    "streams": (on_port(Claim(taken=True), isochronous=True, kinds=frozenset({"video"})), "delivery", W, "or video"),
    "no such port": (replace(GOOD, beyond={"/a/port/9": "1-1"}), "delivery", B, 'xenstore-write /a/port/9 ""'),
    "phantom": (models("usb-bus"), "phantom", B, "xenstore-rm /libxl/5/device/vusb/0"),
    "kept by qemu": (models("xenusb-0", "xenusb-3-31"), "phantom", W, "device_del xenusb-3-31"),
    "hung xl": (replace(GOOD, waiting=(WaitingProcess(7, "xl usb-list kiosk", 99.0),)), "hung-xl", B, "kill 7"),
    "saved": (replace(GOOD, saved_to="/var/lib/xen/save"), "save", W, "XENDOMAINS_SAVE="),
    # --- dom0's USB side
    "left at 0": (replace(installed(agent=None), usb=UsbFacts(shut=("/s/authorized_default",))), "root-hubs", W,
                  "echo 1 >/s/authorized_default"),
    "no driver": (dom0_has(device("1-2", drivers=(None,))), "drivers", W, "/sys/bus/usb/devices/1-2:*"),
    "pciback without a guest": (UNUSED, "pciback-held", W, "pci-assignable-remove -r"),
    # --- dom0's services
    "brltty": (held("brltty", "brltty.service", rules=False), "holders", W,
               "brltty (process 812, brltty.service) holds /dev/ttyUSB0; install the udev rules"),
    "brltty, with rules": (held("brltty", "brltty.service"), "holders", W, "replug the device"),
    "pcscd": (held("pcscd", "pcscd.service", "/dev/bus/usb/001/005"), "holders", W, "PCSCLITE_FILTER_IGNORE_READER"),
    "fwupd": (held("fwupd", "fwupd.service", "/dev/hidraw3"), "holders", W, "DisabledPlugins"),
    "ckb-next": (held("ckb-next-daemon", "ckb-next-daemon.service", "/dev/bus/usb/001/005"), "holders", W,
                 "systemctl mask --now ckb-next-daemon.service"),
    "a template's instance": (held("x", "x@a\\x2db.service"), "holders", W, "mask --now 'x@a\\x2db.service'"),
    "a session's program": (held("picocom", "session-2.scope", manager=Manager.USER), "holders", W, "kill 812"),
    "a user's service": (held("x", "x.service", manager=Manager.USER), "holders", W, "systemctl --user mask"),
    "OpenRC": (held("x", "pcscd", manager=Manager.OPENRC), "holders", W, "rc-service pcscd stop"),
    "no service": (held("x", None, manager=Manager.NONE), "holders", W, "x (process 812) holds"),
    "a keyboard's reader": (held("thd", "triggerhappy.service", "/dev/input/event5"), "holders", W, "triggerhappy"),
    "too many files": (replace(GOOD, holders_complete=False), "holders", U, "run it again"),
    # --- the host
    "not root": (replace(GOOD, root=False), "root", U, "run this as root"),
    "package missing": (
        installed(packages=PACKAGES | {"pyudev": None}), "packages", B, "apt-get install python3-pyudev"),
    "package old": (installed(packages=PACKAGES | {"PyYAML": "5.4.1"}), "packages", B, "5.4.1, older than 6.0"),
    "policy": (replace(GOOD, problems=("a.yaml:1:1: x",), policy=None), "policy", B, "a.yaml:1:1"),
    "no unit": (installed(unit=None), "service", W, "install the package"),
    "not enabled": (installed(enabled=False), "service", W, "systemctl enable"),
    "no agent": (installed(agent=None), "agent", W, "systemctl start"),
    "old agent": (installed(agent="0"), "agent", W, "the running agent has version 0, this command 1"),
    "no udev rules": (installed(udev_rules=frozenset()), "udev-rules", W, "copy udev-rules/38-xenplug.rules and"),
    "only the late rules": (
        installed(udev_rules=frozenset({"92-xenplug.rules"})), "udev-rules", W, "38-xenplug.rules: not installed"),
    "rules of an earlier version": (
        installed(old_rules=("/etc/udev/rules.d/72-x.rules",)), "udev-rules", W, "rm /etc/udev/rules.d/72-x.rules"),
    "no guest rules": (installed(guest_rules=None), "udev-rules", W, "xenplug udev-rules >"),
    "old guest rules": (installed(guest_rules="B\n"), "udev-rules", W, "another policy"),
    "policy of a user": (installed(owned=(OwnedPath("/p", 1000, 0o600),)), "rights", B, "chown root /p"),
    "a hook of a user": (
        installed(unsafe=(("/h", "the file belongs to user 7; `chown -h root:root /h`"),)),
        "rights", B, "chown -h root:root /h",
    ),
    "policy of all": (installed(owned=(OwnedPath("/p", 0, 0o666),)), "rights", B, "chmod go-w /p"),
    "no group": (
        replace(installed(group=False), settings=Settings(control=ControlSettings(group="g"))),
        "group", B, "--system g",
    ),
    "full": (installed(free={"/run": 5}), "room", B, "free some space"),
    "read-only": (installed(free={"/run": -1}), "room", B, "read-only"),
    "another agent": (
        replace(GOOD, others={"/etc/udev/x": "runs `xl usbdev-attach`"}), "others", W, "/etc/udev/x: runs"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_problem_is_reported_with_its_remedy(name):
    facts, check, severity, words = WRONG[name]
    found = findings_of(facts)
    assert check in found, found
    finding = next(f for f in found[check] if words in str(f))
    assert finding.severity is severity
    assert finding.fact and finding.remedy
    assert sound(examine(facts)) == (not any(f.severity is B for fs in found.values() for f in fs))


def test_the_table_covers_every_check():
    assert {check.name for check in CHECKS} == {entry[1] for entry in WRONG.values()} | {"dom0"}


@pytest.mark.parametrize(("xen", "package", "qemu", "severity"), [
    ("4.17.7", None, (7, 2, 22), None), ("4.17.7", None, (9, 2, 0), B), ("4.18.9", None, (10, 0), B),
    ("4.19.5", None, (9, 2), None), ("4.20.2", None, (9, 2), B), ("4.20.3", None, (9, 2), None),
    ("4.21.0", None, (10, 1), B), ("4.21.1", None, (10, 1), None), ("4.22.0", None, (10, 1), None),
    ("4.23-unstable", None, (11, 0), None), ("5.0", None, (11, 0), None), ("garbage", None, (10, 1), None),
    ("4.17.7", None, None, None),
    # Before the release that has the fix.
    ("4.20.3-pre", None, (9, 2), U), ("4.21.1-pre", None, (9, 2), U), ("4.22.0-rc2", None, (9, 2), U),
    ("4.22-unstable", None, (9, 2), U), ("4.20.4-pre", None, (9, 2), None), ("4.20.2-pre", None, (9, 2), B),
    # The package counts, not the hypervisor that runs.
    ("4.20.3-pre", "4.20.4-1", (9, 2), None), ("4.20.0", "4.20.4+10-gabc-1", (10, 0), None),
    ("4.20.4", "4.20.2-1", (10, 0), B), ("4.20.4", "4.20.2+37-g61ff35323e-0+deb13u1", (10, 0), U),
    ("4.20.3-pre", "4.20.2+37-g61ff35323e-0+deb13u1", (10, 0), U), ("4.20.3-pre", "4.20.1+7-gab-1", (10, 0), B),
    ("4.20.3-pre", "4.20.3~rc1-1", (10, 0), U), ("4.20.3-pre", "1:4.20.3-2.fc43", (10, 0), None),
    ("4.20.1", "4.20.1_04-150.1", (10, 0), B), ("4.20.2", "4.20.2_04-150.1", (10, 0), U), ("4.20.3", "", (9, 2), None),
])  # fmt: skip
def test_which_xl_works_with_which_qemu(xen, package, qemu, severity):
    facts = tools(xl=MappingProxyType(INFO | {"xen_version": xen}), xl_package=package, qemu=qemu)
    assert [f.severity for f in findings_of(facts).get("qemu", [])] == ([severity] if severity else [])


@pytest.mark.parametrize("text", [
    'name="kiosk"\ntype="hvm"', 'name="kiosk"\nbuilder="hvm"', 'name="kiosk"\nvfb=["type=vnc"]',
    'name="other"',  # not in the policy
])  # fmt: skip
def test_guests_that_need_no_other_device_model(text):
    assert "device-model" not in findings_of(only(text))


def test_without_a_policy_all_guests_are_checked():
    assert "device-model" in findings_of(only('name="other"', policy=None))


@pytest.mark.parametrize("facts", [
    on_port(Claim(taken=True)),
    models("xenusb-0"),
    replace(models("xenusb-0", "xenusb-1-5"), usb=UsbFacts({"1-1": device("1-1", 5)})),
    dom0_has(device("1-2"), device("1-3", kinds=frozenset({"serial"}), drivers=(None,))),
    dom0_has(device("1-2", drivers=(None,), shut=True), device("1-3", drivers=(), configured=False)),
    dom0_has(device("1-1", drivers=(None,))),  # on kiosk's port
    replace(GOOD, usb=UsbFacts(shut=("/s/interface_authorized_default",))),  # the running agent sets it
    replace(GOOD, usb=UsbFacts(controllers=(replace(HELD, driver="xhci_hcd"),))),
    replace(kiosk('pci=["03:00.0"]'), usb=UsbFacts(controllers=(HELD,))),
    replace(UNUSED, running=(RunningGuest(replace(guest("kiosk", 5), pci=(HELD.bdf,))),)),
    kiosk('usbctrl=["type=qusb,version=2,ports=31"]'),
    hvm('usbctrl=["version=3,ports=15"]'),
    held("brltty", "brltty.service", kinds=frozenset({"storage"})),  # for no guest
    held("brltty", "brltty.service", policy=policy("protect: [{device: '046d:*'}]\nrules: [{name: m, match: "
                                                   "{kind: mouse}, attach: kiosk}]")),
    held("brltty", "brltty.service", policy=None),
    held("systemd-logind", "systemd-logind.service", "/dev/input/event5"),
    held("gnome-shell", "org.gnome.Shell@wayland.service", "/dev/input/event5", manager=Manager.USER),
    held("wireplumber", "wireplumber.service", "/dev/snd/controlC1", manager=Manager.USER),
])  # fmt: skip
def test_a_correct_state_is_not_reported(facts):
    absent = {"delivery", "phantom", "drivers", "root-hubs", "pciback-held"}
    absent |= {"holders", "usbctrl-limits", "usbctrl-speeds", "usbctrl-several"}
    assert not absent & set(findings_of(facts)), findings_of(facts)


FAMILIES = [Family.FEDORA, Family.QUBES, Family.SUSE, Family.ALPINE, Family.ARCH]


@pytest.mark.parametrize("family", Family)
@pytest.mark.parametrize(("own", "module"), [(True, False), (True, True), (False, False)])
def test_the_usb_host_module_is_needed_where_it_is_a_package(family, own, module):
    facts = replace(tools(qemu_of_distribution=own, usb_host=module), system=HostSystem(family))
    assert ("usb-host" in findings_of(facts)) is (own and not module and family in FAMILIES)


DEBIANS = re.compile(
    r"apt-get|dpkg|adduser|addgroup|update-initramfs|/etc/default|qemu-system-xen|xen-utils\b|python3-yaml"
)
SYSTEMDS = re.compile(r"systemctl|journalctl|systemd|modules-load")


@pytest.mark.parametrize(
    ("family", "services", "foreign"),
    [
        (Family.FEDORA, Services.SYSTEMD, DEBIANS),
        (Family.SUSE, Services.SYSTEMD, DEBIANS),
        (Family.ARCH, Services.SYSTEMD, DEBIANS),
        (Family.UNKNOWN, Services.UNKNOWN, DEBIANS),
        (Family.ALPINE, Services.OPENRC, SYSTEMDS),
        (Family.DEBIAN, Services.SYSV, SYSTEMDS),
        (Family.UNKNOWN, Services.UNKNOWN, re.compile(r"systemctl|journalctl")),
    ],
)
def test_no_remedy_is_another_systems(family, services, foreign):
    """Every finding of the whole table, on this host. The error of Debian's wrapper is Debian's, and what
    systemd started is stopped with systemctl.
    """
    for name, (facts, _, _, _) in WRONG.items():
        here = replace(facts, system=HostSystem(family, services), saved_by="/etc/sysconfig/xendomains")
        started = {holder.manager for holder in facts.holders} & {Manager.SYSTEMD, Manager.USER}
        for check, findings in findings_of(here).items():
            for finding in findings if name != "wrapper" and not (started and foreign is not DEBIANS) else ():
                assert not foreign.search(finding.remedy), (name, check, finding.remedy)


def test_every_python_package_has_a_package_everywhere():
    for family in set(Family) - {Family.UNKNOWN}:
        system = HostSystem(family)
        assert all(system.package(needed) for needed in (Package.PYUDEV, Package.YAML, Package.JSONSCHEMA)), family
