"""Show every setting, and whether it is the default or which line of the settings file it comes from."""

from __future__ import annotations

import argparse
import shlex
from dataclasses import asdict
from typing import Any

from xenplug.cli import common


def add_arguments(parser: argparse.ArgumentParser) -> None:
    common.add_json(parser)
    common.add_settings(parser)


def run(args: argparse.Namespace) -> int:
    from xenplug.core.settings import flat

    settings, origins, problems = common.read_settings(args)
    values = flat(settings)
    if args.json:
        from xenplug.service.policy_store import problem_view

        listed = {key: {"value": _plain(value), "origin": origins[key]} for key, value in values.items()}
        common.print_json({"settings": listed, "problems": [problem_view(p) for p in problems]})
    else:
        print(common.table(("SETTING", "VALUE", "FROM"), [(k, _words(v), origins[k]) for k, v in values.items()]))
        common.print_problems(problems)
    return 1 if problems else 0


def _plain(value: Any) -> Any:
    """The value for JSON: hooks as they are written in the file."""
    return [asdict(hook) for hook in value] if isinstance(value, tuple) else value


def _words(value: Any) -> Any:
    """The value for people: a hook as its command line and its events."""
    if not isinstance(value, tuple):
        return value
    return "; ".join(f"{shlex.join(hook.run)} on {', '.join(hook.on) or 'every change'}" for hook in value)
