"""Xl over recorded answers of real xl (tests/data/xl/transcripts): the calls, and how the answers are understood."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from xenplug.adapters.xl import Xl, XlCause, XlOutcome, parse_info, parse_list, read_monitor, read_outcome
from xenplug.core.model import ControllerType, GuestState
from xenplug.core.protocols import Result

TRANSCRIPTS = Path(__file__).parents[1] / "data/xl/transcripts"
QUSB, DEVICEMODEL = ControllerType.QUSB, ControllerType.DEVICEMODEL


def recorded() -> list[tuple[str, Result, str]]:
    """Every recorded call with the cause that Xl must find ("ok": none)."""
    found = []
    for file in sorted(TRANSCRIPTS.glob("*.txt")):
        for block in re.split(r"(?m)^(?=\$ )", file.read_text())[1:]:
            found.append((f"{file.stem}: {block.splitlines()[0][2:]}", *read_block(block)))
    return found


def read_block(block: str) -> tuple[Result, str]:
    lines = {mark: [] for mark in ("$ ", "1|", "2|", "ex", "si", "= ")}
    for line in block.splitlines():
        if line.strip():
            lines[line[:2]].append(line[2:].removeprefix(" "))
    ended = (
        {"code": int(lines["ex"][0].split()[1])} if lines["ex"] else {"code": None, "signal": int(lines["si"][0][-2:])}
    )
    stdout, stderr = ("".join(line + "\n" for line in lines[mark]) for mark in ("1|", "2|"))
    return Result(tuple(lines["$ "][0].split()), stdout=stdout, stderr=stderr, **ended), lines["= "][0]


@pytest.mark.parametrize(("result", "expected"), [pytest.param(r, e, id=name) for name, r, e in recorded()])
def test_a_recorded_answer_is_understood(result: Result, expected: str) -> None:
    outcome = read_outcome(result)
    assert (outcome.ok, outcome.cause or "ok") == (expected == "ok", expected)
    assert expected == "ok" or outcome.text, "a failure always has words"
    assert not outcome.text.startswith("libxl:")
    assert "libxl_usb.c" not in outcome.text


def test_recordings_are_found() -> None:
    assert len(recorded()) > 30


def test_file_and_line_of_another_version_change_nothing() -> None:
    line = "libxl: error: {}: {}USB device already attached to a domain\n"
    places = ("libxl_usb.c:1746:libxl__device_usbdev_add", "other.c:1:renamed_function")
    outcomes = {read_outcome(failed(line.format(place, who))) for place in places for who in ("", "Domain 12:")}
    assert outcomes == {XlOutcome(False, XlCause.ALREADY_ATTACHED, "USB device already attached to a domain")}


def failed(stderr: str, code: int | None = 1, **more: object) -> Result:
    return Result(("xl",), code, stderr=stderr, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("result", "cause", "words"),
    [
        (failed("", None, error="xl: no such program"), XlCause.XL_MISSING, "xl: no such program"),
        (failed("half a wo", None, timed_out=True, seconds=60.02), XlCause.TIMED_OUT, "within 60 s"),
        (failed("", None, signal=9), XlCause.KILLED, "signal 9"),
        (failed("", 139), XlCause.KILLED, "signal 11"),
        (failed("", None), XlCause.KILLED, "did not end"),
        (failed("", 1), XlCause.NOT_UNDERSTOOD, "exit code 1"),
        (failed("", 255), XlCause.NOT_UNDERSTOOD, "exit code 255"),
        (failed("what is this\n", 77), XlCause.NOT_UNDERSTOOD, "exit code 77: what is this"),
        (failed("what is this\n", 1), XlCause.REFUSED, "what is this"),
        (
            failed("libxl: warning: a.c:1:f: beware\nlibxl: error: a.c:1:f: Domain 3:it is so\nlibxl_x failed.\n"),
            XlCause.REFUSED,
            "it is so",
        ),
    ],
)
def test_every_other_end_is_a_value(result: Result, cause: XlCause, words: str) -> None:
    outcome = read_outcome(result)
    assert (outcome.ok, outcome.cause) == (False, cause)
    assert words in outcome.text


NO_TYPE = "libxl: error: libxl_dom.c:37:libxl__domain_type: "
NOT_DONE = "libxl: error: libxl_device.c:1486:device_addrm_aocomplete: unable to add device\n"


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        # Xen 4.17, and since 4.18 (libxl_dom.c: libxl__domain_type; libxl_domain.c: libxl_domain_info).
        (NO_TYPE + "unable to get domain type for domid=99", XlCause.UNKNOWN_GUEST),
        (NO_TYPE + "Domain 99:unable to get dominfo: No such process", XlCause.UNKNOWN_GUEST),
        ("libxl: error: libxl_domain.c:356:libxl_domain_info: Domain 99:Getting domain info: No such process",
         XlCause.UNKNOWN_GUEST),
        ("99 is an invalid domain identifier (rc=-6)", XlCause.UNKNOWN_GUEST),
        # The domain exists, or nothing is known of it.
        (NO_TYPE + "Domain 9:unable to get dominfo: Permission denied", XlCause.REFUSED),
        ("libxl: warning: libxl_dom.c:50:libxl__domain_type: unable to get domain type for domid=9, assuming HVM\n"
         "libxl: error: libxl_pci.c:1677:libxl__device_pci_add: Domain 9:PCI device 0:3:0.0 is not assignable",
         XlCause.REFUSED),
    ],
)  # fmt: skip
def test_a_domid_that_is_gone(line: str, cause: XlCause) -> None:
    assert read_outcome(failed(f"{line}\n{NOT_DONE}")).cause is cause


def test_a_devices_strings_in_qemus_output_are_sanitized() -> None:
    hostile = 'libxl: error: q.c:1:f: speed mismatch trying to attach "\x1b[2Jx\x07" ' + "y" * 4000 + "\n"
    outcome = read_outcome(failed(hostile))
    assert outcome.cause is XlCause.SPEED_MISMATCH
    assert outcome.text.isprintable()
    assert len(outcome.text) <= 300


def test_stderr_is_no_sign_of_failure() -> None:
    said = Result(("xl",), 0, stderr="The kernel doesn't support reset from sysfs for PCI device 0000:00:14.0\n")
    assert read_outcome(said).ok


@pytest.mark.parametrize(
    ("stdout", "cause"),
    [
        ("\n", XlCause.NONE),
        ("  Device 0.0, Port 1, Speed 480 Mb/s, Product Error: of my ways\n", XlCause.NONE),
        ("Error: Device 'xenusb-3-7' not found\n\n", XlCause.PHANTOM_DEVICE),
        ("Error: Bus 'xenusb-0.0' not found\n", XlCause.PHANTOM_CONTROLLER),
        ("unknown command: 'usb_add'\n", XlCause.REFUSED),
    ],
)
def test_the_monitor_refuses_with_exit_0(stdout: str, cause: XlCause) -> None:
    outcome = read_monitor(Result(("xl",), 0, stdout=stdout))
    assert (outcome.ok, outcome.cause) == (cause is XlCause.NONE, cause)
    assert outcome.output == stdout


def test_a_list_of_a_real_host() -> None:
    assert parse_list((TRANSCRIPTS / "4.17-lab-list.txt").read_text()) == {
        0: GuestState.RUNNING,
        1: GuestState.RUNNING,
        3: GuestState.RUNNING,
    }


def test_a_list_with_long_names_and_every_state() -> None:
    assert parse_list((TRANSCRIPTS / "4.17-odd-list.txt").read_text()) == {
        0: GuestState.RUNNING,
        7: GuestState.PAUSED,
        8: GuestState.STOPPING,
        9: GuestState.STOPPING,
        10: GuestState.STOPPING,
        11: GuestState.RUNNING,
        12345: GuestState.PAUSED,
    }


@pytest.mark.parametrize(
    ("letters", "state"),
    [
        ("---ss-", GuestState.SUSPENDED),  # xl suspend, since Xen 4.20
        ("--pss-", GuestState.SUSPENDED),
        ("---ssd", GuestState.STOPPING),
        ("---s--", GuestState.STOPPING),
        ("---sS-", GuestState.STOPPING),
        ("-b-s--", GuestState.STOPPING),
        ("-b----", GuestState.RUNNING),
    ],
)
def test_the_state_of_a_domain_that_has_shut_down(letters: str, state: GuestState) -> None:
    row = f"kiosk                                        5   256     1     {letters}      20.3\n"
    assert parse_list(HEADER + row) == {5: state}


HEADER = "Name                                        ID   Mem VCPUs\tState\tTime(s)\n"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no such thing\n",
        HEADER + "kiosk      1   256     1     -q----      20.3\n",
        HEADER + "kiosk      1   256     1     ---sX-      20.3\n",
        HEADER + "kiosk      1   256     1     -----\n",
        HEADER + "\x00\xff\n",
    ],
)
def test_a_list_that_is_not_understood_is_refused_completely(text: str) -> None:
    outcome = parse_list(text)
    assert isinstance(outcome, XlOutcome)
    assert outcome.cause is XlCause.NOT_UNDERSTOOD
    assert outcome.text.startswith("xl list: ")


def test_info() -> None:
    text = "host                   : dom0\nvirt_caps              : pv hvm hvm_directio\n"
    text += "xen_caps : \nnuma_info :\nnode: memsize\n"
    info = parse_info(text)
    assert isinstance(info, dict)
    assert info["virt_caps"] == "pv hvm hvm_directio"
    assert info["xen_caps"] == ""
    assert isinstance(parse_info("gibberish\n"), XlOutcome)


@dataclass
class Recorder:
    """Commands that notes what is asked and answers the same every time."""

    answer: Result = field(default_factory=lambda: Result((), 0))
    asked: list[tuple[list[str], float]] = field(default_factory=list)

    async def run(self, argv: Sequence[str], timeout: float) -> Result:
        self.asked.append((list(argv), timeout))
        return self.answer


Call = Callable[[Xl], Awaitable[object]]


@pytest.mark.parametrize(
    ("call", "argv"),
    [
        (lambda xl: xl.usbctrl_attach(5, QUSB, 2, 31), "usbctrl-attach 5 type=qusb version=2 ports=31"),
        (lambda xl: xl.usbctrl_attach(6, DEVICEMODEL, 3, 15), "usbctrl-attach 6 type=devicemodel version=3 ports=15"),
        (lambda xl: xl.usbctrl_detach(5, 0), "usbctrl-detach 5 0"),
        (lambda xl: xl.usbdev_attach(5, 3, 8, 0, 1), "usbdev-attach 5 hostbus=3 hostaddr=8 controller=0 port=1"),
        (lambda xl: xl.usbdev_attach(5, 10, 127, 1, 9), "usbdev-attach 5 hostbus=10 hostaddr=127 controller=1 port=9"),
        (lambda xl: xl.usbdev_detach(5, 0, 1), "usbdev-detach 5 0 1"),
        (lambda xl: xl.list(), "list"),
        (lambda xl: xl.info(), "info"),
    ],
)
def test_what_is_asked(call: Call, argv: str) -> None:
    commands = Recorder()
    asyncio.run(as_coroutine(call(Xl(commands, "/opt/xl", 7.5))))
    assert commands.asked == [(["/opt/xl", *argv.split()], 7.5)]


def test_a_monitor_command_is_one_word() -> None:
    commands = Recorder(Result((), 0, stdout="\n"))
    assert asyncio.run(Xl(commands).monitor(6, "device_del xenusb-3-7")).ok
    assert commands.asked[0][0] == ["xl", "qemu-monitor-command", "6", "device_del xenusb-3-7"]


async def as_coroutine(awaitable: Awaitable[object]) -> object:
    return await awaitable


@pytest.mark.parametrize(
    "call",
    [
        lambda xl: xl.usbdev_attach(0, 3, 8, 0, 1),
        lambda xl: xl.usbdev_attach(-1, 3, 8, 0, 1),
        lambda xl: xl.usbdev_attach(40000, 3, 8, 0, 1),
        lambda xl: xl.usbdev_attach(5, 256, 8, 0, 1),
        lambda xl: xl.usbdev_attach(5, 3, 300, 0, 1),
        lambda xl: xl.usbdev_attach(5, 3, 0, 0, 1),
        lambda xl: xl.usbdev_attach(5, 3, 8, -1, 1),
        lambda xl: xl.usbdev_attach(5, 3, 8, 0, 0),
        lambda xl: xl.usbdev_attach(5, 3, 8, 0, 32),
        lambda xl: xl.usbdev_detach(5, 0, 0),
        lambda xl: xl.usbdev_detach(0, 0, 1),
        lambda xl: xl.usbctrl_attach(5, QUSB, 3, 4),
        lambda xl: xl.usbctrl_attach(5, QUSB, 2, 32),
        lambda xl: xl.usbctrl_attach(5, DEVICEMODEL, 1, 6),
        lambda xl: xl.usbctrl_attach(5, DEVICEMODEL, 2, 8),
        lambda xl: xl.usbctrl_attach(5, DEVICEMODEL, 3, 16),
        lambda xl: xl.usbctrl_attach(5, DEVICEMODEL, 4, 8),
        lambda xl: xl.usbctrl_detach(5, -1),
        lambda xl: xl.monitor(0, "info usb"),
    ],
)
def test_numbers_that_xl_would_misread_never_reach_it(call: Call) -> None:
    commands = Recorder()
    outcome = asyncio.run(as_coroutine(call(Xl(commands))))
    assert isinstance(outcome, XlOutcome)
    assert outcome.cause is XlCause.OUT_OF_RANGE
    assert commands.asked == []


def test_a_failed_list_gives_the_reason() -> None:
    missing = Recorder(Result(("xl",), None, error="xl: no such program; install it, or give its full path"))
    for call in (Xl(missing).list(), Xl(missing).info()):
        outcome = asyncio.run(as_coroutine(call))
        assert isinstance(outcome, XlOutcome)
        assert outcome.cause is XlCause.XL_MISSING


QTREE = """bus: main-system-bus
  type System
  dev: i440FX-pcihost, id ""
    bus: pci.0
      dev: nec-usb-xhci, id "xenusb-0"
        msi = "auto"
        bus: xenusb-0.0
          type usb-bus
          dev: usb-mouse, id "xenusb-3-31"
            port = ""
      dev: PIIX4_PM, id ""
"""
"""Of qemu 7.2."""


@pytest.mark.parametrize(("result", "objects"), [
    (Result(("xl",), 0, QTREE), {"xenusb-0", "xenusb-3-31"}),
    (Result(("xl",), 0, "bus: main-system-bus\n"), set()),
    (Result(("xl",), 0, "unknown command: 'info qtree'\n"), None),
    (Result(("xl",), 1, "", "libxl: error: …\n"), None),
])  # fmt: skip
def test_what_a_device_model_has(result: Result, objects: set[str] | None) -> None:
    assert asyncio.run(Xl(Recorder(result)).model_objects(6)) == objects
