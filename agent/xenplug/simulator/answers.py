"""The results of the simulated xl: exit codes, and libxl's lines on stderr as in Xen 4.17.7.

tests/bench compares these texts with the real xl. File and line numbers are those of Debian 12's build; code must not
match on them, because they differ in the next version.
"""

from __future__ import annotations

from dataclasses import dataclass

NOT_ADDED = "libxl: error: libxl_device.c:1486:device_addrm_aocomplete: unable to add device\n"
NOT_REMOVED = "libxl: error: libxl_device.c:1486:device_addrm_aocomplete: unable to remove device\n"
SIGSEGV = 11
REFUSED = "libxl: error: libxl_simulated.c:1:simulated: refused, as the scenario has it\n"


@dataclass(frozen=True, slots=True)
class Answer:
    """What xl prints and how it exits."""

    code: int | None = 0
    stdout: str = ""
    stderr: str = ""
    signal: int | None = None


class XlRefusal(Exception):
    """The call of xl fails here."""

    def __init__(self, stderr: str, *, code: int | None = 1, stdout: str = "", signal: int | None = None) -> None:
        super().__init__(stderr)
        self.answer = Answer(code, stdout, stderr, signal)


def error(where: str, text: str, domid: int | None = None) -> str:
    """A line of libxl's log; `where` is FILE:LINE:FUNCTION."""
    return line("error", where, text, domid)


def line(level: str, where: str, text: str, domid: int | None = None) -> str:
    """A line of libxl's log at another level."""
    return f"libxl: {level}: {where}: {'' if domid is None else f'Domain {domid}:'}{text}\n"


def no_qmp(domid: int) -> str:
    """The error for a device model whose socket is gone."""
    path = f"/var/run/xen/qmp-libxl-{domid}"
    text = f"Failed to connect to QMP socket {path}: Connection refused"
    return error("libxl_qmp.c:1334:qmp_ev_lock_aquired", text, domid)


def unreadable(path: str) -> str:
    """The error for a missing node that libxl must read."""
    text = f"xenstore read failed: `{path}': No such file or directory"
    return error("libxl_xshelp.c:206:libxl__xs_read_mandatory", text)


def atoi(text: str) -> int:
    """C's atoi: leading decimal digits, else 0."""
    return _leading(text, 10, "0123456789")


def strtoul(text: str) -> int:
    """C's strtoul(text, NULL, 0), cut to the 8 bits libxl keeps: `010` is 8, `0x10` is 16, `09` is 0, 300 is 44."""
    body = text.strip().lower()
    if body.startswith("0x"):
        return _leading(body[2:], 16, "0123456789abcdef") & 0xFF
    return (_leading(body, 8, "01234567") if body.startswith("0") else _leading(body, 10, "0123456789")) & 0xFF


def _leading(text: str, base: int, digits: str) -> int:
    text = text.strip()
    sign, text = (-1, text[1:]) if text.startswith("-") else (1, text)
    length = next((i for i, letter in enumerate(text) if letter not in digits), len(text))
    return sign * int(text[:length] or "0", base)
