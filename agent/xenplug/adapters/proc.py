"""Runs other programs: takes an argument list and returns how the program ended, always as a value.

Reconciler -> adapters/xl.py and others -> Processes.run -> the program. No other module of xenplug starts a process.
There is no shell, stdin is /dev/null, messages are in the C locale, and after a timeout the program is killed together
with its child processes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from xenplug.core.protocols import Result

OUTPUT_LIMIT = 1 << 20
"""Bytes kept of stdout and of stderr each; the rest is read and dropped, so that the program never blocks."""
LINGER = 0.2
"""Seconds to wait for the end of the output after the program has ended: a child process may hold the pipe open for
ever."""
REAP = 2.0
"""Seconds to wait for a killed program: one that hangs in the kernel does not die."""
STDOUT, STDERR = 1, 2


class Processes:
    """Commands (core/protocols.py) over asyncio's own subprocess support. `more` is added to the environment."""

    def __init__(self, more: Mapping[str, str] = MappingProxyType({})) -> None:
        self._more = more

    async def run(self, argv: Sequence[str], timeout: float) -> Result:
        """Run argv; SIGKILL its process group after `timeout` seconds. Raises only if cancelled, and then kills the
        group too.
        """
        loop = asyncio.get_running_loop()
        started = loop.time()
        environment = {**os.environ, "LC_ALL": "C", **self._more}
        try:
            transport, process = await loop.subprocess_exec(
                lambda: _Process(loop),
                *argv,
                stdin=asyncio.subprocess.DEVNULL,
                cwd="/",
                env=environment,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            return Result(tuple(argv), None, error=_why(argv[0], error), seconds=loop.time() - started)
        try:
            timed_out = not await _wait(transport, process, timeout)
        except asyncio.CancelledError:
            await _kill(transport, process)
            raise
        finally:
            transport.close()
        return _result(argv, process, None if timed_out else transport.get_returncode(), loop.time() - started)


class _Process(asyncio.SubprocessProtocol):
    """Collects the output and notes the end of the program and of its pipes."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.output = {STDOUT: bytearray(), STDERR: bytearray()}
        self.exited: asyncio.Future[None] = loop.create_future()
        self.drained: asyncio.Future[None] = loop.create_future()
        self._open = set(self.output)

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        kept = self.output[fd]
        kept += data[: OUTPUT_LIMIT - len(kept)]

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        self._open.discard(fd)
        if not self._open and not self.drained.done():
            self.drained.set_result(None)

    def process_exited(self) -> None:
        if not self.exited.done():
            self.exited.set_result(None)


async def _wait(transport: asyncio.SubprocessTransport, process: _Process, timeout: float) -> bool:
    """Whether the program ended by itself in time."""
    if not await _ends(process.exited, timeout):
        await _kill(transport, process)
        return False
    await _ends(process.drained, LINGER)
    return True


async def _ends(future: asyncio.Future[None], seconds: float) -> bool:
    done, _ = await asyncio.wait([future], timeout=seconds)
    return bool(done)


async def _kill(transport: asyncio.SubprocessTransport, process: _Process) -> None:
    """Kill the process group, which the program leads."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(transport.get_pid(), signal.SIGKILL)
    await _ends(process.exited, REAP)


def _result(argv: Sequence[str], process: _Process, status: int | None, seconds: float) -> Result:
    by_signal = status is not None and status < 0
    return Result(
        tuple(argv),
        None if by_signal else status,
        _text(process.output[STDOUT]),
        _text(process.output[STDERR]),
        signal=-status if status is not None and status < 0 else None,
        timed_out=status is None,
        seconds=seconds,
    )


def _text(output: bytearray) -> str:
    return output.decode(errors="replace")


def _why(program: str, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return f"{program}: no such program; install it, or give its full path"
    if isinstance(error, PermissionError):
        return f"{program}: no permission to run it; run as root"
    reason = error.strerror if isinstance(error, OSError) else error
    return f"{program}: cannot be started: {reason}"
