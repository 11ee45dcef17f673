"""Run the agent in the foreground until SIGTERM or ^C. SIGHUP reloads the policy.

On a machine without Xen, `--toolstack simulated` tries a policy with the real USB devices and simulated guests, and
changes nothing. On a Xen host, `--dry-run` prints what would be done and changes nothing.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from xenplug.cli import common
from xenplug.cli.main import Failure

if TYPE_CHECKING:
    from xenplug.core.settings import Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    common.add_policy(parser)
    common.add_settings(parser)
    common.add_host(parser)
    parser.add_argument(
        "--toolstack",
        choices=("xl", "simulated"),
        default="xl",
        help="Xen itself (xl, the default), or a simulated Xen",
    )
    parser.add_argument(
        "--guests",
        type=Path,
        metavar="FILE",
        help="file of guests for --toolstack simulated (default: those in the policy)",
    )
    parser.add_argument("--dry-run", action="store_true", help="print what would be done, and change nothing")
    parser.add_argument("--debug", action="store_true", help="log every action")


def run(args: argparse.Namespace) -> int:
    # asyncio and hashlib would load OpenSSL (4 MB). Without it asyncio lacks TLS, and hashlib uses Python's own hashes.
    for module in ("ssl", "_hashlib"):
        sys.modules.setdefault(module, None)  # type: ignore[arg-type]
    from xenplug.adapters.control import SocketProblem
    from xenplug.adapters.files import Locked
    from xenplug.core.protocols import StoreLost
    from xenplug.daemon import CannotStart, Options, serve

    if args.guests and args.toolstack != "simulated":
        raise Failure("--guests needs --toolstack simulated; without it Xen itself reports the guests", 2)
    if args.host not in (None, "udev") and args.toolstack == "xl" and not args.dry_run:
        raise Failure("--host FILE needs --toolstack simulated or --dry-run; real guests get real devices", 2)
    args.guarded = args.toolstack == "xl" and not args.dry_run and os.geteuid() == 0
    settings = common.settings_of(args)
    if args.guarded:
        _refuse_unsafe(settings)
    _log(args.debug)
    options = Options(args.policy or common.POLICY, args.toolstack, args.host or "udev", args.guests, args.dry_run)
    try:
        return serve(options, settings)
    except CannotStart as error:
        *first, last = str(error).splitlines()
        common.print_problems(first)
        raise Failure(last) from None
    except (StoreLost, Locked, SocketProblem) as error:
        raise Failure(str(error)) from None
    except OSError as error:
        raise Failure(f"{error.filename or 'the host'}: {error.strerror}; {_remedy(args)}") from None


def _refuse_unsafe(settings: Settings) -> None:
    """Raise Failure if users other than root can write the ledger (it holds orders), a hook or xl (run as root)."""
    from xenplug.adapters.path_permissions import faults
    from xenplug.adapters.programs import unsafe

    state = Path(settings.state)
    with suppress(OSError):  # created before the check, so that no other user can create it in between; serve() reports
        state.mkdir(mode=0o755, parents=True, exist_ok=True)
    common.refuse_unsafe("the folder of the ledger (setting `state`) is", faults([state / "ledger.json"]))
    common.refuse_unsafe("the programs that the settings name (hooks, `toolstack.xl`) are", unsafe(settings))


def _remedy(args: argparse.Namespace) -> str:
    if args.toolstack == "simulated":
        return "run it as root, or with --settings FILE that sets `state` and `control: {socket}` to writable paths"
    return "xenplug run needs root and a Linux dom0"


def _log(debug: bool) -> None:
    """Log to stderr. The journal adds the time itself, a terminal does not."""
    handler = logging.StreamHandler(sys.stderr)
    stamp = "%(asctime)s " if sys.stderr.isatty() else ""
    handler.setFormatter(logging.Formatter(f"{stamp}%(levelname)s %(message)s", "%H:%M:%S"))
    logging.basicConfig(handlers=[handler], level=logging.DEBUG if debug else logging.INFO)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
