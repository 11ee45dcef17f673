"""The shipped udev rules and rendered ones, read by the real udevadm, and applied by it to recorded devices.

`udevadm verify` came with systemd 254; before that `udevadm test` reads the rules and reports what it cannot parse. It
runs in a mount namespace of its own, where no rules but ours are installed and nothing of the host is written.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from xenplug.core.interop.udev_rules import render
from xenplug.core.policy.load import load

ROOT = Path(__file__).parents[2]
SHIPPED = sorted((ROOT / "udev-rules").glob("*.rules"))
DESK = ROOT / "tests/data/umockdev/desk.umockdev"
BUS = "/sys/devices/pci0000:00/0000:00:14.0/usb1"
POLICIES = sorted((ROOT / "policies").glob("*.yaml"))
EVERY_KEY = """version: 1
protect: [{device: "046d:0a38"}]
rules:
  - {name: the stick stays, match: {kind: storage, serial: "4c53*"}, action: host}
  - {name: 'odd "name"\\', match: {product: "optical*mouse", class: "00", revision: "3.40"}, attach: a}
  - {name: phone, match: {path: "pci-0000:00:14.0-usb-0:4", controller: "0:14.0", removable: removable}, attach: a}
  - {name: below the hub, match: {port: "1-2.*", interfaces: ["03:*:*"], speed: low}, attach: a}
  - {name: not with a stick in disguise, match: {port: 1-5, interfaces: ["03:*:*"]}, attach: a}
  - {name: by address, match: {address: "1.99"}, attach: a}
  - {name: adapter, match: {kind: serial, interface: ff, manufacturer: "*"}, attach: a}
  - {name: all the rest, match: {device: "*:*", kind: [audio, storage, hub]}, attach: a}
"""
IN_A_NAMESPACE_OF_ITS_OWN = """
for folder in /usr/lib/udev/rules.d /lib/udev/rules.d /run /etc/udev /dev; do
    test ! -d $folder || mount -t tmpfs none $folder || exit 99
done
mknod -m 666 /dev/null c 1 3 && mkdir -p /run/udev/rules.d /run/udev/data || exit 99
cp "$1"/*.rules /run/udev/rules.d
cp "$1"/data/* /run/udev/data 2>/dev/null
shift
exec "$@"
"""


def rendered(text: str) -> str:
    loaded = load({"policy.yaml": text.encode()})
    assert loaded.policy is not None
    return render(loaded.policy)[0]


def udevadm(folder: Path, *command: str) -> str:
    """Everything it says; with only the rules of the folder in force."""
    if os.geteuid() != 0 or not (shutil.which("udevadm") and shutil.which("unshare")):
        pytest.skip("needs root, unshare and udevadm")
    script = ["unshare", "--mount", "--propagation", "private", "sh", "-c", IN_A_NAMESPACE_OF_ITS_OWN, "sh"]
    done = subprocess.run([*script, str(folder), *command], capture_output=True, text=True, check=False, timeout=60)
    if done.returncode in (1, 99) and "unshare failed" in done.stderr + "unshare failed" * (done.returncode == 99):
        pytest.skip("may not make a mount namespace here")
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def version() -> int:
    said = subprocess.run(["udevadm", "--version"], capture_output=True, text=True, check=False).stdout
    return int(re.match(r"\d*", said)[0] or 0)


def schema_errors(folder: Path) -> list[str]:
    """udev's errors for the rules of the folder."""
    if shutil.which("udevadm") and version() >= 254:
        files = map(str, folder.glob("*.rules"))
        done = subprocess.run(["udevadm", "verify", "--resolve-names=never", *files], capture_output=True, text=True)
        return [] if done.returncode == 0 else (done.stdout + done.stderr).splitlines()
    said = udevadm(folder, "udevadm", "test", "--action=add", "/sys/devices/virtual/net/lo")
    assert "Reading rules file: /run/udev/rules.d/" in said
    return [line for line in said.splitlines() if re.search(r"\.rules:\d+ ", line)]


def test_the_check_finds_what_is_wrong(tmp_path):
    wrong = 'BOGUS=="1", TAG+="x"\nKERNEL=="a" TAG+="x\nKERNEL=="b", GOTO="nowhere"\n'
    (tmp_path / "10-wrong.rules").write_text(wrong)
    assert {line for n in "123" for line in schema_errors(tmp_path) if f".rules:{n} " in line}


def ship(folder: Path) -> None:
    for file in SHIPPED:
        shutil.copy(file, folder)


def test_udev_reads_the_shipped_files(tmp_path):
    ship(tmp_path)
    assert schema_errors(tmp_path) == []


def test_the_files_are_read_before_and_after_those_of_the_services():
    names = ["37-xenplug-guests.rules", *(file.name for file in SHIPPED)]
    assert names == sorted(names)
    services = ["39-usbmuxd", "60-gpsd", "69-cd-sensors", "71-ipp-usb", "80-udisks2", "85-brltty", "90-brltty-device"]
    assert names[1] < f"{services[0]}.rules"
    assert f"{services[-1]}.rules" < names[2] < "99-systemd.rules"


@pytest.mark.parametrize("shipped", SHIPPED, ids=[file.stem for file in SHIPPED])
def test_the_shipped_files_run_nothing(shipped):
    rules = [line for line in shipped.read_text().splitlines() if line and not line.startswith("#")]
    assert rules
    assert not [line for line in rules if re.search(r"RUN|PROGRAM|IMPORT|OWNER|GROUP|MODE|NAME\b|SYMLINK", line)]


@pytest.mark.parametrize(
    "text", [EVERY_KEY, *(p.read_text() for p in POLICIES)], ids=["every key", *(p.stem for p in POLICIES)]
)
def test_udev_reads_rendered_rules(tmp_path, text):
    (tmp_path / "37-xenplug-guests.rules").write_text(rendered(text))
    assert schema_errors(tmp_path) == []


def applied(folder: Path, path: str, action: str = "add", recording: Path = DESK) -> dict[str, str]:
    """The properties udev gives a recorded device under the rules of the folder."""
    if not shutil.which("umockdev-run"):
        pytest.skip("needs umockdev")
    command = ("umockdev-run", "--device", str(recording), "--", "udevadm", "test", f"--action={action}", path)
    said = udevadm(folder, *command)
    return dict(line.split("=", 1) for line in said.splitlines() if re.match(r"[A-Z_]+=", line))


@pytest.mark.parametrize(
    ("path", "marked"),
    [
        ("1-1", True),  # the mouse: product without case, revision
        ("1-2", False),  # a hub, though a rule names hubs
        ("1-2/1-2.2", True),  # the keyboard below it
        ("1-3", False),  # the headset is protected
        ("1-4", True),  # the phone: path, controller
        ("1-5", False),  # the stick: the first rule keeps it, the last would attach it
        ("1-6", True),  # the serial adapter: vendor class and chip
    ],
)
def test_udev_decides_as_the_policy_does(tmp_path, path, marked):
    (tmp_path / "37-xenplug-guests.rules").write_text(rendered(EVERY_KEY))
    found = applied(tmp_path, f"{BUS}/{path}")
    assert ("xenplug-guest" in found.get("TAGS", "")) == marked
    assert found.get("ID_MM_DEVICE_IGNORE") == ("1" if marked else None)


@pytest.mark.parametrize(("action", "marked"), [("bind", True), ("remove", False)])
def test_the_mark_is_renewed_at_every_event_but_removal(tmp_path, action, marked):
    (tmp_path / "37-xenplug-guests.rules").write_text(rendered(EVERY_KEY))
    assert ("TAGS" in applied(tmp_path, f"{BUS}/1-1", action)) == marked


def below(folder: Path, path: str, subsystem: str, marked: bool) -> tuple[str, Path]:
    """The path of a device below one of the bus, and the recording with it. `marked`: the bus's devices are tagged."""
    recording = folder / "desk.umockdev"
    child = f"P: {BUS.removeprefix('/sys')}/{path}\nE: SUBSYSTEM={subsystem}\n"
    recording.write_text(f"{DESK.read_text().rstrip()}\n\n{child}")
    (folder / "data").mkdir()
    for number in range(16):  # udev's database: the device nodes of the bus
        (folder / "data" / f"c189:{number}").write_text("I:1\nG:xenplug-guest\nQ:xenplug-guest\nV:1\n" * marked)
    return f"{BUS}/{path}", recording


BELOW = {
    "disk": ("1-5/1-5:1.0/host6/target6:0:0/6:0:0:0/block/sdz", "block", {"UDISKS_IGNORE": "1", "UDISKS_AUTO": "0"}),
    "network interface": ("1-5/1-5:1.0/net/eth7", "net", {"NM_UNMANAGED": "1"}),
    "serial port": ("1-5/1-5:1.0/ttyUSB7/tty/ttyUSB7", "tty", {"ID_MM_PORT_IGNORE": "1"}),
    "input device": ("1-5/1-5:1.0/input/input77", "input", {}),
}


@pytest.mark.parametrize("marked", [True, False])
@pytest.mark.parametrize("what", BELOW)
def test_what_lies_below_a_marked_device(tmp_path, what, marked):
    path, subsystem, expected = BELOW[what]
    ship(tmp_path)
    path, recording = below(tmp_path, path, subsystem, marked)
    found = applied(tmp_path, path, recording=recording)
    ours = {key: value for key, value in found.items() if re.match("UDISKS|NM_|ID_MM", key)}
    assert ours == (expected if marked else {})


USBMUXD = """\
SUBSYSTEM=="usb", ENV{DEVTYPE}=="usb_device", ENV{PRODUCT}=="PRODUCT_HERE", TAG+="systemd"
SUBSYSTEM=="usb", ENV{DEVTYPE}=="usb_device", ENV{PRODUCT}=="PRODUCT_HERE", ACTION=="add", \
ENV{USBMUX_SUPPORTED}="1", ENV{SYSTEMD_WANTS}="usbmuxd.service"
"""
"""usbmuxd 1.1.1's rule, for a device of the recording instead of an iPhone; it would also write bConfigurationValue."""
BRLTTY = """\
SUBSYSTEM=="usb", ENV{PRODUCT}=="PRODUCT_HERE", ENV{BRLTTY_BRAILLE_DRIVER}="bm", TAG+="systemd", \
ENV{SYSTEMD_WANTS}+="brltty-device@.service"
"""
IPP_USB = 'ACTION=="add", SUBSYSTEM=="usb", ENV{DEVTYPE}=="usb_device", ENV{SYSTEMD_WANTS}+="ipp-usb.service"\n'
LAST = 'SUBSYSTEM=="usb", ENV{SYSTEMD_WANTS}+="smartcard.target"\n'
"""As in 99-systemd.rules."""


@pytest.mark.parametrize("marked", [True, False])
def test_services_that_are_started_by_rules(tmp_path, marked):
    """A serial adapter, with the rules of services that would take it."""
    product = "403/6001/600"
    ship(tmp_path)
    services = {"39-usbmuxd": USBMUXD, "71-ipp-usb": IPP_USB, "85-brltty": BRLTTY, "99-systemd": LAST}
    for name, text in services.items():
        (tmp_path / f"{name}.rules").write_text(text.replace("PRODUCT_HERE", product))
    action = "attach: a" if marked else "action: host"
    policy = f'version: 1\nrules: [{{name: adapter, match: {{device: "0403:6001"}}, {action}}}]\n'
    (tmp_path / "37-xenplug-guests.rules").write_text(rendered(policy))
    found = applied(tmp_path, f"{BUS}/1-6")
    ours = ("USBMUX_SUPPORTED", "BRLTTY_BRAILLE_DRIVER", "SYSTEMD_WANTS", "PRODUCT", "XENPLUG_PRODUCT")
    wants = "usbmuxd.service ipp-usb.service brltty-device@.service smartcard.target"
    untouched = {"USBMUX_SUPPORTED": "1", "BRLTTY_BRAILLE_DRIVER": "bm", "SYSTEMD_WANTS": wants, "PRODUCT": product}
    guests = {"SYSTEMD_WANTS": "smartcard.target", "PRODUCT": product}
    assert {key: found[key] for key in ours if key in found} == (guests if marked else untouched)


@pytest.mark.parametrize("marked", [True, False])
def test_gpsd_is_not_started_for_a_port_below(tmp_path, marked):
    ship(tmp_path)
    gpsd = 'SUBSYSTEM=="tty", TAG+="systemd", ENV{SYSTEMD_WANTS}="gpsdctl@%k.service"\n'
    (tmp_path / "60-gpsd.rules").write_text(gpsd)
    path, recording = below(tmp_path, BELOW["serial port"][0], "tty", marked)
    wants = applied(tmp_path, path, recording=recording).get("SYSTEMD_WANTS")
    assert wants == (None if marked else "gpsdctl@ttyUSB7.service")
