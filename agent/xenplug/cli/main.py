"""Entry point: finds the command, imports only that, and turns every ending into one line and one exit code.

0 good, 1 findings or a failed act, 2 usage, 3 a bug, 130 ^C.
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
    "check": "read the policy and tell everything that is wrong with it",
    "devices": "list the USB devices of this host",
    "explain": "tell which rule decides over a device, and why",
    "status": "what is where, and why not",
    "attach": "give a device to a guest by hand",
    "detach": "take a device from its guest by hand",
    "release": "drop what was ordered by hand, and what was given up: the rules decide again",
    "pause": "leave everything, a guest or a device alone",
    "resume": "end a pause",
    "prefer": "read lists of guests as if this one stood first",
    "reload": "have the agent read its policy anew",
    "history": "what happened to devices, when and why",
    "simulate": "tell the story of a scenario on the simulated host",
    "test": "run scenarios like a test suite",
    "udev-rules": "print udev rules that keep dom0's services off devices meant for guests",
    "init": "write a first policy from what is plugged in, and a test of it",
    "record": "write what is plugged in to a file that --host reads",
    "import": "make a policy of an xl config or XCP-ng's usb-policy.conf",
    "xl-cfg": "print the lines of a guest's xl configuration that fit the policy",
    "schema": "print the JSON Schema of a file format",
    "doctor": "look for everything that is known to go wrong on a Xen host",
    "config": "show every setting and where it comes from",
}

HIDDEN = ("complete",)
"""Commands for programs of our own, which no user types."""


class Failure(Exception):
    """An ending a user is told of in one line: the fact; the remedy."""

    def __init__(self, text: str, code: int = 1) -> None:
        super().__init__(text)
        self.code = code


class Parser(argparse.ArgumentParser):
    """argparse, but a usage error is a Failure like any other, and knows what was meant."""

    def parse_args(self, argv: Sequence[str]) -> argparse.Namespace:  # type: ignore[override]
        """Parse all of argv. Raises Failure."""
        args, rest = self.parse_known_args(argv)
        if rest:
            self.error(f"unknown argument {rest[0]!r}" + meant(rest[0], self._option_string_actions))
        return args

    def error(self, message: str) -> NoReturn:
        """Raise it as a Failure."""
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
        description="Gives USB devices to Xen guests by policy.",
        epilog=f"commands:\n{listing}\n\n`xenplug COMMAND --help` tells more.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="xenplug [-h] [--version] COMMAND …",
    )
    parser.add_argument("--version", action="version", version=f"xenplug {__version__}")
    return parser


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments of a command line, with the command's function as `run`.

    Raises Failure, and SystemExit where argparse has printed a help text.
    """
    if not argv or argv[0].startswith("-"):
        _overview().parse_args(argv)
        _overview().print_help(sys.stderr)
        raise SystemExit(2)
    command, *rest = argv
    if command not in COMMANDS and command not in HIDDEN:
        raise Failure(f"no command {command!r}{meant(command, COMMANDS)}; `xenplug --help` lists them", 2)
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
        # Python flushes stdout once more at its end, and would complain of it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except Exception:
        # The process boundary: what comes here is a bug of ours, and the report must hold all that is known of it.
        import traceback

        traceback.print_exc()
        print(f"xenplug: this is a bug in xenplug {__version__}; please report the lines above", file=sys.stderr)
        return 3


def entry() -> None:
    """The console script."""
    # A terminal that is not UTF-8 cannot show every name a device may have; that must not end a command.
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    sys.exit(main(sys.argv[1:]))
