"""The command `tests/lab/lab`. Flow: cli -> lifecycle, install, record; errors are one line on stderr, exit 1."""

import argparse
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from labkit import build, hvm, install, lifecycle, record, ssh
from labkit.config import HERE, KIND, REPOSITORY, LabError
from labkit.machine import Machine

MACHINE = Machine()
BOOT = hvm.up if KIND == "hvm" else lifecycle.up


def cmd_build(_: argparse.Namespace) -> int:
    with lifecycle.locked():
        print(build.build().folder)
    return 0


def cmd_up(options: argparse.Namespace) -> int:
    with lifecycle.locked():
        BOOT(MACHINE)
        if options.save:
            lifecycle.save(MACHINE)
    return 0


def locked(act: Callable[[Machine], None]) -> Callable[[argparse.Namespace], int]:
    """A command that is just one act of lifecycle."""

    def command(_: argparse.Namespace) -> int:
        with lifecycle.locked():
            act(MACHINE)
        return 0

    return command


def cmd_run(options: argparse.Namespace) -> int:
    """Brings the lab up (restored, or booted and saved) and runs the suite; the lab stays up.

    With --long also the long tests, and at the end `lab hvm`.
    """
    words = [word for word in options.words if word != "--long"]
    long = words != options.words
    code = run_suite(words if long or KIND == "hvm" else ["-m", "not long", *words])
    if long:
        code = subprocess.run([sys.executable, str(HERE / "lab"), "hvm"]).returncode or code
    return code


def run_suite(words: list[str]) -> int:
    """pytest with these arguments, on all of the lab's tests if they name none."""
    if importlib.util.find_spec("pytest") is None:
        raise LabError(f"{sys.executable} has no pytest; run this from a virtual environment that has the dev extras")
    if not any(Path(word.partition("::")[0]).exists() for word in words):
        words = [*words, str(HERE / "test_hvm.py" if KIND == "hvm" else HERE)]
    environment = {**os.environ, "XENPLUG_LAB": "required"}
    with lifecycle.turn(), lifecycle.locked():
        lifecycle.ready(MACHINE, BOOT)
        return subprocess.run([sys.executable, "-m", "pytest", *words], cwd=REPOSITORY, env=environment).returncode


def cmd_hvm(options: argparse.Namespace) -> int:
    """The HVM guests' suite on a machine of its own (`lab` has set XENPLUG_LAB_MACHINE); it is stopped at the end."""
    if not build.current().complete:
        with lifecycle.locked("lock"):
            build.build()
    try:
        return run_suite(options.words)
    finally:
        lifecycle.stop(MACHINE)


def cmd_shell(options: argparse.Namespace) -> int:
    lifecycle.require_up(MACHINE)
    words = ssh.ssh_words(MACHINE, *([] if options.words else ["-t"]))
    return subprocess.run([*words, " ".join(options.words)] if options.words else words).returncode


def cmd_install(options: argparse.Namespace) -> int:
    lifecycle.require_up(MACHINE)
    install.install(MACHINE, [Path(path) for path in options.policy])
    return 0


def cmd_record(options: argparse.Namespace) -> int:
    with lifecycle.locked():
        lifecycle.ready(MACHINE)
        print(f"{record.record(Path(options.out))} calls recorded below {options.out}")
        lifecycle.restore(MACHINE)
    return 0


def cmd_status(_: argparse.Namespace) -> int:
    image = build.current()
    pid = MACHINE.pid
    print(f"image  {image.folder}: {'built' if image.complete else 'not built (lab build)'}")
    print(f"lab    {f'up, emulator {pid}, ssh port {MACHINE.ssh_port}' if pid else 'down (lab up)'}")
    print(f"saved  {'yes' if lifecycle.saved(image) else 'no (lab save)'}")
    return 0


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="lab", description="A real Xen host under emulation; see docs/dev/lab.md.")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, act: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(act=act)
        return sub

    add("build", cmd_build, "build the image, if its inputs changed (root, about 3 minutes)")
    add("up", cmd_up, "boot dom0 and the guests (about 2 minutes)").add_argument("--save", action="store_true")
    add("save", locked(lifecycle.save), "keep the running machine as the state that restore goes back to")
    add("restore", locked(lifecycle.restore), "go back to the saved state (about 5 s)")
    add("status", cmd_status, "what is built, up and saved")
    add("down", locked(lifecycle.stop), "stop the machine; image and saved state stay")
    add("purge", locked(lifecycle.purge), "throw away the machine, the image and all logs")
    words = add("run", cmd_run, "run the suite tests/lab against the lab, brought up if it is down; --long: all of it")
    words.add_argument("words", nargs="*", metavar="PYTEST-ARGS")
    words = add("hvm", cmd_hvm, "run the suite of emulated controllers, on a machine of its own (docs/dev/lab.md)")
    words.add_argument("words", nargs="*", metavar="PYTEST-ARGS")
    words = add("shell", cmd_shell, "a shell in dom0, or one command")
    words.add_argument("words", nargs="*", metavar="COMMAND")
    files = add("install", cmd_install, "install this checkout's xenplug in dom0, with these policy files")
    files.add_argument("policy", nargs="*", metavar="POLICY.yaml")
    target = add("record-xl", cmd_record, "record the real xl's answers for the parsers' tests")
    target.add_argument("--out", default=str(REPOSITORY / "tests" / "data" / "xl"))
    return top


def main(words: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if words is None else words)
    if words[:1] in (["run"], ["hvm"], ["shell"]) and words[1:] not in (["-h"], ["--help"]):
        words.insert(1, "--")  # the rest belongs to pytest or to dom0's command, including options
    options = parser().parse_args(words)
    try:
        return int(options.act(options))
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
