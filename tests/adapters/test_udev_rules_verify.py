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
SHIPPED = ROOT / "udev-rules" / "70-xenplug.rules"
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


def test_udev_reads_the_shipped_file(tmp_path):
    shutil.copy(SHIPPED, tmp_path)
    assert schema_errors(tmp_path) == []


def test_the_shipped_file_runs_nothing():
    rules = [line for line in SHIPPED.read_text().splitlines() if line and not line.startswith("#")]
    assert rules
    assert not [line for line in rules if re.search(r"RUN|PROGRAM|IMPORT|OWNER|GROUP|MODE|NAME\b|SYMLINK", line)]


@pytest.mark.parametrize(
    "text", [EVERY_KEY, *(p.read_text() for p in POLICIES)], ids=["every key", *(p.stem for p in POLICIES)]
)
def test_udev_reads_rendered_rules(tmp_path, text):
    (tmp_path / "72-xenplug-guests.rules").write_text(rendered(text))
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
    (tmp_path / "72-xenplug-guests.rules").write_text(rendered(EVERY_KEY))
    found = applied(tmp_path, f"{BUS}/{path}")
    assert ("xenplug-guest" in found.get("TAGS", "")) == marked
    assert found.get("ID_MM_DEVICE_IGNORE") == ("1" if marked else None)


@pytest.mark.parametrize(("action", "marked"), [("bind", True), ("remove", False)])
def test_the_mark_is_renewed_at_every_event_but_removal(tmp_path, action, marked):
    (tmp_path / "72-xenplug-guests.rules").write_text(rendered(EVERY_KEY))
    assert ("TAGS" in applied(tmp_path, f"{BUS}/1-1", action)) == marked


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
    shutil.copy(SHIPPED, tmp_path)
    recording = tmp_path / "desk.umockdev"
    child = f"P: {BUS.removeprefix('/sys')}/{path}\nE: SUBSYSTEM={subsystem}\n"
    recording.write_text(f"{DESK.read_text().rstrip()}\n\n{child}")
    (tmp_path / "data").mkdir()
    for number in range(16):  # udev's database: the device nodes of the bus, all tagged
        (tmp_path / "data" / f"c189:{number}").write_text("I:1\nG:xenplug-guest\nQ:xenplug-guest\nV:1\n" * marked)
    found = applied(tmp_path, f"{BUS}/{path}", recording=recording)
    ours = {key: value for key, value in found.items() if re.match("UDISKS|NM_|ID_MM", key)}
    assert ours == (expected if marked else {})
