"""Which policy this is: a digest of its files, the same on every host that has the same files.

docs/reference/control-interface.md shows how to compute it with sha256sum.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

SHORT = 12
"""Hex digits of a digest in a line for people; JSON and metrics have all 64."""


def digest(files: Mapping[str, bytes]) -> str:
    """SHA-256 over the names (without their folder) and contents of the files, in reading order, as 64 hex digits.

    Each name and each content is a netstring, `LENGTH:BYTES,` with the length in decimal, so no two different policies
    have the same input.
    """
    from hashlib import sha256  # loads OpenSSL, which those that only show a digest do not need

    hashed = sha256()
    for file, content in files.items():
        name = file.rpartition("/")[2].encode("utf-8", "surrogateescape")
        for part in (name, content):
            hashed.update(b"%d:%b," % (len(part), part))
    return hashed.hexdigest()


@dataclass(frozen=True, slots=True)
class PolicyIdentity:
    """What distinguishes a policy from others."""

    digest: str | None = None
    """None for a policy that is not in files of its own (inside a scenario)."""
    label: str | None = None
    """The policy's own word for itself."""

    def __str__(self) -> str:
        """For people: `kiosk-2026.48 (digest 0123456789ab)`."""
        short = f"digest {self.digest[:SHORT]}" if self.digest else ""
        if self.label:
            return f"{self.label} ({short})" if short else self.label
        return short or "without a digest"
