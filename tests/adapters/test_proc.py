"""Processes: every way a program can end, tried with real programs."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sys
import time
from pathlib import Path

import pytest

from xenplug.adapters.proc import OUTPUT_LIMIT, Processes
from xenplug.core.protocols import Result


def run(*argv: str, timeout: float = 10.0) -> Result:
    return asyncio.run(Processes().run(argv, timeout))


def script(text: str) -> tuple[str, ...]:
    return (sys.executable, "-c", text)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def gone_soon(pid: int) -> bool:
    deadline = time.monotonic() + 5
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not alive(pid)


def test_output_and_exit_code() -> None:
    result = run("sh", "-c", "echo out; echo err >&2; exit 3")
    assert (result.code, result.stdout, result.stderr, result.signal) == (3, "out\n", "err\n", None)
    assert not (result.ok or result.timed_out or result.error)
    assert 0 < result.seconds < 10
    assert result.argv[0] == "sh"


def test_nothing_is_read_by_a_shell() -> None:
    assert run("echo", "$HOME; `id` *", 'a"b').stdout == '$HOME; `id` * a"b\n'


def test_the_environment_of_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    monkeypatch.setenv("XENSTORED_PATH", "/somewhere")
    text = (
        "import os,sys; print(os.environ['LC_ALL'], os.environ['XENSTORED_PATH'], os.getcwd(), repr(sys.stdin.read()),"
    )
    text += " os.getsid(0) == os.getpgid(0) == os.getpid(), os.readlink('/proc/self/fd/0'))"
    assert run(*script(text)).stdout == "C /somewhere / '' True /dev/null\n"


def test_bytes_that_are_no_text_are_replaced() -> None:
    assert run("printf", r"a\377b").stdout == "a\ufffdb"


def test_output_is_bounded_and_never_blocks_the_program() -> None:
    result = run(*script(f"import sys; sys.stdout.write('x' * {3 * OUTPUT_LIMIT}); sys.stderr.write('end')"))
    assert result.ok
    assert len(result.stdout) == OUTPUT_LIMIT
    assert result.stderr == "end"


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("no-such-program-xenplug", "no such program"),
        ("/etc/passwd", "no permission"),
        ("/", "no permission"),
        ("a\0b", "cannot be started"),
    ],
)
def test_a_program_that_cannot_start_is_reported(program: str, words: str) -> None:
    result = run(program)
    assert (result.code, result.ok) == (None, False)
    assert result.error is not None
    assert words in result.error


def test_a_fork_that_fails_is_reported() -> None:
    """No file descriptors left for the pipes stands for every resource that can be used up."""

    async def starve() -> Result:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        used = [os.open("/dev/null", os.O_RDONLY)]
        resource.setrlimit(resource.RLIMIT_NOFILE, (used[0] + 1, hard))
        try:
            return await Processes().run(["true"], 5)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            os.close(used[0])

    result = asyncio.run(starve())
    assert result.error is not None
    assert "Too many open files" in result.error


def test_a_signal_is_reported() -> None:
    result = run("sh", "-c", "kill -SEGV $$")
    assert (result.code, result.signal, result.timed_out) == (None, signal.SIGSEGV, False)


def test_a_timeout_kills_the_whole_group(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    result = run("sh", "-c", f"echo begun; sleep 100 & echo $! >{note}; wait", timeout=0.5)
    assert (result.code, result.signal, result.timed_out) == (None, None, True)
    assert result.stdout == "begun\n"
    assert 0.5 <= result.seconds < 3
    assert gone_soon(int(note.read_text()))


def test_a_program_that_ignores_terminate_is_killed() -> None:
    assert run("sh", "-c", "trap '' TERM INT HUP; sleep 100; sleep 100", timeout=0.3).timed_out


def test_a_child_that_keeps_the_output_open_does_not_block_the_agent(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    result = run("sh", "-c", f"sleep 100 & echo $! >{note}; echo done")
    os.kill(int(note.read_text()), signal.SIGKILL)
    assert result.ok
    assert result.stdout == "done\n"
    assert result.seconds < 3


def test_a_cancelled_run_kills_its_group(tmp_path: Path) -> None:
    note = tmp_path / "pid"

    async def cancel() -> None:
        argv = ["sh", "-c", f"sleep 100 & echo $! >{note}.new; mv {note}.new {note}; wait"]
        running = asyncio.create_task(Processes().run(argv, 60))
        while not note.exists():
            await asyncio.sleep(0.01)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(cancel())
    assert gone_soon(int(note.read_text()))


def test_the_loop_continues_during_a_run() -> None:
    async def together() -> list[Result]:
        return await asyncio.gather(*(Processes().run(["sleep", "0.3"], 5) for _ in range(5)))

    started = time.monotonic()
    assert all(result.ok for result in asyncio.run(together()))
    assert time.monotonic() - started < 1.4


def test_a_program_that_was_stopped_is_killed_in_time() -> None:
    """SIGSTOP of xl: it neither ends nor reacts to SIGTERM."""
    result = run("sh", "-c", "kill -STOP $$", timeout=0.3)
    assert result.timed_out
    assert result.code is None
