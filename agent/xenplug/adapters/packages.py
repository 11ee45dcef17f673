"""Which version of a distribution's package a file belongs to; asked of dpkg, rpm, pacman and apk."""

from __future__ import annotations

import os
import re

from xenplug.core.protocols import Commands

TIME = 10.0
"""Seconds for one call."""
_OWNED = re.compile(r"is owned by (\S+?)[ -]v?(\d\S*)$", re.M)


async def package_of(commands: Commands, path: str) -> str | None:
    """The version as the package manager writes it (`4.17.7+13-g2445b30a44-0+deb12u1`); None if no package has the
    file, or there is no package manager.
    """
    if not path.startswith("/"):
        return None
    path = os.path.realpath(path)
    return await _dpkg(commands, path) or await _rpm(commands, path) or await _owned(commands, path)


async def _dpkg(commands: Commands, path: str) -> str | None:
    found = await commands.run(["dpkg-query", "-S", path], TIME)
    package = found.stdout.partition(": ")[0].partition(",")[0].strip()
    if not found.ok or not package or "\n" in package:
        return None
    said = await commands.run(["dpkg-query", "-W", "-f", "${Version}", package], TIME)
    return _word(said.stdout) if said.ok else None


async def _rpm(commands: Commands, path: str) -> str | None:
    said = await commands.run(["rpm", "-qf", "--queryformat", "%{VERSION}-%{RELEASE}\\n", path], TIME)
    return _word(said.stdout.partition("\n")[0]) if said.ok else None


async def _owned(commands: Commands, path: str) -> str | None:
    """pacman: `/usr/bin/xl is owned by xen 4.20.1-1`; apk: `/usr/sbin/xl is owned by xen-4.20.1-r0`."""
    for argv in (["pacman", "-Qo", path], ["apk", "info", "--who-owns", path]):
        said = await commands.run(argv, TIME)
        if said.ok and (found := _OWNED.search(said.stdout)):
            return _word(found[2])
    return None


def _word(text: str) -> str | None:
    """One word of a version: the output of a tool is not trusted more than that."""
    found = re.fullmatch(r"[A-Za-z0-9.+~:_^-]{1,100}", text.strip())
    return found[0] if found else None
