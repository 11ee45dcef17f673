"""Entry point: finds the command, imports only its module, and ends with at most one line of error and an exit code.

0 success, 1 findings or a failed action, 2 usage error, 3 a bug in xenplug, 130 ^C.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import NoReturn

from xenplug import __version__
from xenplug.core.printable import escaped

COMMANDS: Mapping[str, str] = {
    "run": "run the agent in the foreground",
    "check": "check the policy and show all errors and warnings",
    "devices": "list the USB devices of this host",
    "explain": "show which rule decides for a device, and why",
    "status": "show where each device is, and why",
    "attach": "attach a device to a guest (manual override)",
    "detach": "detach a device from its guest (manual override)",
    "release": "clear manual overrides and failures; the rules decide again",
    "pause": "pause xenplug for everything, a guest or a device",
    "resume": "end a pause",
    "prefer": "give this guest priority in every list of guests",
    "reload": "reload the policy",
    "history": "show what happened to devices, when and why",
    "simulate": "play a scenario on the simulated host and print each step",
    "test": "run scenarios as a test suite",
    "udev-rules": "print udev rules that keep dom0's services off devices meant for guests",
    "init": "write a first policy for the devices plugged in, and a test for it",
    "record": "write the devices plugged in to a file for --host",
    "import": "convert an xl config or XCP-ng's usb-policy.conf to a policy",
    "xl-cfg": "print the lines for a guest's xl configuration that fit the policy",
    "schema": "print the JSON Schema of a file format",
    "doctor": "check this host for known problems",
    "config": "show every setting and where it comes from",
}

HIDDEN = ("complete",)
"""Commands that only our own programs call (shell completion)."""


class Failure(Exception):
    """Ends a command with one line on stderr (fact; remedy) and an exit code."""

    def __init__(self, text: str, code: int = 1) -> None:
        super().__init__(text)
        self.code = code


class Parser(argparse.ArgumentParser):
    """argparse whose usage errors are Failures and suggest a similar name."""

    def parse_args(self, argv: Sequence[str]) -> argparse.Namespace:  # type: ignore[override]
        """Parse all of argv. Raises Failure."""
        args, rest = self.parse_known_args(argv)
        if rest:
            self.error(f"unknown argument {rest[0]!r}" + meant(rest[0], self._option_string_actions))
        return args

    def error(self, message: str) -> NoReturn:
        """Raise Failure for a usage error."""
        raise Failure(f"{message}; `{self.prog} --help` shows the usage", 2)


def meant(word: str, known: Iterable[str]) -> str:
    """`; did you mean …?`, or nothing."""
    import difflib

    near = difflib.get_close_matches(word, known, 1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _module(command: str) -> str:
    return f"xenplug.cli.{command.replace('-', '_')}"


def _overview() -> argparse.ArgumentParser:
    listing = "\n".join(f"  {name:<11} {words}" for name, words in COMMANDS.items())
    parser = Parser(
        prog="xenplug",
        description="Attaches USB devices to Xen guests by policy.",
        epilog=f"commands:\n{listing}\n\n`xenplug COMMAND --help` describes a command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="xenplug [-h] [--version] COMMAND …",
    )
    parser.add_argument("--version", action="version", version=f"xenplug {__version__}")
    return parser


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments of a command line, with the command's function as `run`.

    Raises Failure, and SystemExit after a help text.
    """
    if not argv or argv[0].startswith("-"):
        _overview().parse_args(argv)
        _overview().print_help(sys.stderr)
        raise SystemExit(2)
    command, *rest = argv
    if command not in COMMANDS and command not in HIDDEN:
        raise Failure(f"unknown command {command!r}{meant(command, COMMANDS)}; `xenplug --help` lists them", 2)
    module = importlib.import_module(_module(command))
    parser = Parser(prog=f"xenplug {command}", description=module.__doc__, allow_abbrev=False)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    module.add_arguments(parser)
    args = parser.parse_args(rest)
    args.run = module.run
    return args


def main(argv: Sequence[str]) -> int:
    """Run one command line; the exit code."""
    try:
        args = parse(argv)
        code = int(args.run(args))
        sys.stdout.flush()
        return code
    except Failure as failure:
        print(f"xenplug: {escaped(str(failure))}", file=sys.stderr)
        return failure.code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Python flushes stdout again at exit and would report the same error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except Exception:
        # The process boundary: any exception here is a bug in xenplug, and its report needs the traceback.
        import traceback

        traceback.print_exc()
        print(f"xenplug: this is a bug in xenplug {__version__}; please report the lines above", file=sys.stderr)
        return 3


def entry() -> None:
    """The console script."""
    # A terminal that is not UTF-8 cannot show every device name. The command must not fail because of that.
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    sys.exit(main(sys.argv[1:]))
