"""Check the policy and report all errors and warnings.

A policy with an error is not used. Warnings do not prevent its use: they are about rules that never win, that share a
device, that depend on values which change, or that do not fit the devices and guests of this host. Needs no root and
no Xen. Exit code 1 if there are errors (with --strict: or warnings).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xenplug.cli import common

if TYPE_CHECKING:
    from xenplug.core.documents.problems import Problem
    from xenplug.core.policy.digest import PolicyIdentity
    from xenplug.core.policy.rules import Policy

INSTALLED = Path("/etc")
"""The agent reads policies below this folder, so only root may write there. A policy elsewhere is a draft."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", nargs="?", metavar="PATH", help="policy file or folder (same as --policy)")
    parser.add_argument("--strict", action="store_true", help="exit with code 1 for warnings too")
    parser.add_argument("--elsewhere", action="store_true", help="the policy is for another machine: ignore this host")
    formats = ("text", "github", "json")
    parser.add_argument("--format", choices=formats, default="text", help="github: annotations for GitHub Actions")
    common.add_policy(parser)
    common.add_json(parser)
    common.add_host(parser)
    common.add_socket(parser)


def run(args: argparse.Namespace) -> int:
    from xenplug.core.policy.digest import PolicyIdentity
    from xenplug.service.policy_store import read_policy

    path = Path(args.path) if args.path else args.policy or common.POLICY
    loaded = read_policy(path, guarded=path.absolute().is_relative_to(INSTALLED))
    problems = [*loaded.problems, *(_warnings(args, loaded.policy) if loaded.policy else ())]
    identity = PolicyIdentity(loaded.digest, loaded.policy.label if loaded.policy else None)
    _print(problems, "json" if args.json else args.format, identity)
    if loaded.policy and not args.json and args.format == "text":
        warned = f", {common.counted(len(problems), 'warning')}" if problems else ""
        print(f"{path}: good, {common.counted(len(loaded.policy.rules), 'rule')}{warned}")
    return 1 if loaded.policy is None or (args.strict and problems) else 0


def _warnings(args: argparse.Namespace, policy: Policy) -> list[Problem]:
    from xenplug.core.matching.lint import lint, lint_here

    problems = lint(policy)
    if not args.elsewhere:
        problems += lint_here(policy, list(common.devices_of(args).values()), _guests(args))
    return sorted(problems, key=lambda problem: (problem.file, problem.line, problem.column))


def _guests(args: argparse.Namespace) -> list[str]:
    """The guests of this host: those with a configuration file and, if an agent answers, those that run."""
    from xenplug.adapters.client import ClientError
    from xenplug.adapters.host_files import HostFiles, configs
    from xenplug.core.doctor.configs import name_of

    found = [name_of(config) for config in configs(HostFiles(Path("/"))) or () if not config.file.endswith("/xl.conf")]
    try:
        status = common.client(args).call("Status")["status"]
    except ClientError:
        return found
    return [*found, *(guest["name"] for guest in status["guests"] if guest["domid"] is not None)]


def _print(problems: Iterable[Problem], form: str, identity: PolicyIdentity) -> None:
    from xenplug.service.policy_store import problem_view

    if form == "json":
        listed = [problem_view(problem) for problem in problems]
        common.print_json({"problems": listed, "digest": identity.digest, "label": identity.label})
    for problem in problems if form == "github" else ():
        print(_annotation(problem))
    for problem in problems if form == "text" else ():
        print(f"{problem}" if problem.severity == "error" else _warning(problem), file=sys.stderr)


def _warning(problem: Problem) -> str:
    return f"{problem.file}:{problem.line}:{problem.column}: warning: {problem.message}"


def _annotation(problem: Problem) -> str:
    """A workflow command of GitHub Actions; escaped as in actions/toolkit (command.ts)."""
    place: dict[str, Any] = {"file": problem.file, "line": problem.line, "col": problem.column, "title": "xenplug"}
    values = ",".join(f"{key}={_escaped(str(value), ':,')}" for key, value in place.items())
    path = f"{problem.path}: " if problem.path else ""
    return f"::{problem.severity} {values}::{_escaped(path + problem.message)}"


def _escaped(text: str, more: str = "") -> str:
    for char in f"%\r\n{more}":
        text = text.replace(char, f"%{ord(char):02X}")
    return text
