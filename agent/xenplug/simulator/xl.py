"""The simulated xl: Commands (core/protocols) over the simulated host.

Reads the argument list as xl does and answers with xl's messages, exit codes and traps. The commands themselves are in
xl_usb.py, xl_usbdev.py, xl_domains.py and xl_pci.py. Every call takes time, is logged, and can be made to fail.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from xenplug.core.protocols import Result
from xenplug.simulator import xl_domains, xl_pci, xl_usb, xl_usbdev
from xenplug.simulator.answers import REFUSED, Answer, XlRefusal
from xenplug.simulator.failures import Failures, How
from xenplug.simulator.guests import Guests
from xenplug.simulator.toolstack import HostFacts, SimulatedToolstack, XlCall

MAX_CALL_TIME = 3600.0
"""Seconds a person at the console waits."""
SIGKILL = 9


@dataclass(frozen=True, slots=True)
class _Command:
    run: Callable[[SimulatedToolstack, XlCall, list[str]], Awaitable[Answer]]
    least: int = 1
    """The minimum number of arguments."""
    usage: str = "<Domain>"


XL_COMMANDS = {
    "usbctrl-attach": _Command(xl_usb.usbctrl_attach, 1, "<Domain> [type=pv] [version=<version>] [ports=<number>]"),
    "usbctrl-detach": _Command(xl_usb.usbctrl_detach, 2, "<Domain> <DevId>"),
    "usbdev-attach": _Command(
        xl_usbdev.usbdev_attach,
        2,
        "<Domain> hostbus=<busnum> hostaddr=<devnum> [controller=<DevId> [port=<port>]]"
        "\n\nAttach a USB device to a domain.",
    ),
    "usbdev-detach": _Command(xl_usb.usbdev_detach, 3, "<Domain> <controller> <port>"),
    "usb-list": _Command(xl_usb.usb_list),
    "list": _Command(xl_domains.list_domains, 0, "[options] [Domain]"),
    "domid": _Command(xl_domains.domid, 1, "<DomainName>"),
    "domname": _Command(xl_domains.domname, 1, "<DomainId>"),
    "info": _Command(xl_domains.info, 0, ""),
    "qemu-monitor-command": _Command(xl_domains.monitor_command, 2, "<Domain> <Command>"),
    "pci-assignable-list": _Command(xl_pci.assignable_list, 0, ""),
    "pci-assignable-add": _Command(xl_pci.assignable_add, 1, "<BDF>"),
    "pci-assignable-remove": _Command(xl_pci.assignable_remove, 1, "[options] <BDF>"),
    "pci-attach": _Command(xl_pci.attach, 2, "<Domain> <PCI_SPEC_STRING>"),
    "pci-detach": _Command(xl_pci.detach, 2, "[options] <Domain> <PCI_SPEC_STRING>"),
    "pci-list": _Command(xl_pci.list_devices),
    **{name: _Command(xl_domains.act) for name in xl_domains.ACTS},
}


@dataclass(slots=True, eq=False)
class SimXl:
    """Commands (core/protocols) with xl; no other program is installed."""

    guests: Guests
    facts: HostFacts = field(default_factory=HostFacts)
    failures: Failures = field(default_factory=Failures)
    calls: list[XlCall] = field(default_factory=list)
    """Every call so far, in the order of their starts."""
    missing: bool = False
    """Whether xl is not installed."""

    _host: SimulatedToolstack = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._host = SimulatedToolstack(self.guests, self.facts)

    async def run(self, argv: Sequence[str], timeout: float) -> Result:
        """A call by the agent. If the caller is cancelled, xl is killed before it has any effect."""
        return await self._run(self._begin(argv, "agent"), timeout)

    async def console(self, argv: Sequence[str]) -> Result:
        """A call by a person (`xl: [...]` in a scenario; argv without `xl`). Planned failures do not apply."""
        return await self._run(self._begin(["xl", *argv], "console"), MAX_CALL_TIME)

    def _begin(self, argv: Sequence[str], by: str) -> XlCall:
        call = XlCall(tuple(argv), asyncio.get_running_loop().time(), by)
        if by == "agent":
            call.how = self.failures.next(call.command) or ""
        self.calls.append(call)
        return call

    async def _run(self, call: XlCall, timeout: float) -> Result:
        if self.missing or call.argv[0].rpartition("/")[2] != "xl":
            return self._result(call, Answer(None), error=f"{call.argv[0]}: No such file or directory")
        try:
            async with asyncio.timeout(timeout):
                return self._result(call, await self._answer(call))
        except TimeoutError:
            return self._result(call, Answer(None), timed_out=True)

    def _result(self, call: XlCall, answer: Answer, *, timed_out: bool = False, error: str | None = None) -> Result:
        call.end, call.code = asyncio.get_running_loop().time(), answer.code
        return Result(
            call.argv,
            answer.code,
            answer.stdout,
            answer.stderr,
            signal=answer.signal,
            timed_out=timed_out,
            error=error,
            seconds=call.end - call.start,
        )

    async def _answer(self, call: XlCall) -> Answer:
        try:
            return await self._dispatch(call)
        except XlRefusal as refused:
            took = asyncio.get_running_loop().time() - call.start
            await asyncio.sleep(max(0.0, self.guests.times.call - took))
            return refused.answer

    async def _dispatch(self, call: XlCall) -> Answer:
        words = list(call.argv[1:])
        while words and words[0].startswith("-"):
            if set(words.pop(0)[1:]) - set("vftTN"):
                raise XlRefusal("unknown global option\n")
        command = XL_COMMANDS.get(words[0]) if words else None
        if command is None:
            raise XlRefusal("command not implemented\n")
        name, rest = words[0], words[1:]
        if len([word for word in rest if not word.startswith("-")]) < command.least:
            few = f"'xl {name}' requires at least {command.least} argument{'s' if command.least > 1 else ''}.\n\n"
            raise XlRefusal(few, code=2, stdout=f"Usage: xl [-vtTf] {name} {command.usage}\n\n")
        return await self._fail(call) or await command.run(self._host, call, rest)

    async def _fail(self, call: XlCall) -> Answer | None:
        """The planned failure, if it prevents any effect of xl."""
        if call.how == How.HANG:
            await asyncio.Event().wait()
        if call.how == How.REFUSED:
            raise XlRefusal(REFUSED)
        if call.how == How.KILLED:
            raise XlRefusal("", code=None, signal=SIGKILL)
        if call.how == How.SILENT and call.command != "usbdev-attach":
            await self._host.turn()
            return Answer()
        return None
