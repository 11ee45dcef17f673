"""Stores the ledger in a file, so that it survives restarts of the agent: JSON, replaced as a whole, in a folder that a
reboot empties.

Little is lost if the ledger cannot be read: the attachments are read from xenstore and adopted (core/ledger/update).
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

from xenplug.adapters.files import Unfit, read_bounded, write_atomic
from xenplug.adapters.kept_folder import KeptFolder
from xenplug.core.ledger.ledger import Ledger
from xenplug.core.ledger.serialize import from_json, to_json
from xenplug.core.protocols import Clock

log = logging.getLogger("xenplug")

UNREADABLE = (OSError, Unfit, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)
"""The errors of reading a ledger that was edited or damaged."""

MAX_LEDGER_BYTES = 4 << 20
"""Bytes; a ledger of a thousand ports is a tenth of that."""


class LedgerFile:
    """The ledger's file."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._failed = False
        self._folder = KeptFolder(path.parent)

    def load(self) -> Ledger:
        """The stored ledger; an empty one, with a log message, if none can be read."""
        now = self._clock.now()
        try:
            return from_json(json.loads(read_bounded(self._path, MAX_LEDGER_BYTES, follow=False)), now)
        except FileNotFoundError:
            pass
        except UNREADABLE as error:
            log.warning("%s: cannot be read (%s); the attachments are taken from xenstore", self._path, error)
        return Ledger(at=now)

    def save(self, ledger: Ledger) -> None:
        """Replace the file. A failure is logged once, until a write succeeds again."""
        try:
            self._folder.ensure()
            write_atomic(self._path, json.dumps(to_json(ledger)).encode(), 0o600)
            self._failed = False
        except (OSError, Unfit) as error:
            if not self._failed:
                log.error(
                    "%s: cannot be written (%s); after a restart the attachments are taken from xenstore",
                    self._path,
                    error,
                )
            self._failed = True

    def restore(self, ledger: Ledger) -> None:
        """Save again if the file was removed."""
        if not os.path.lexists(self._path):
            self.save(ledger)


class NoLedger:
    """A store that stores nothing, for runs that must leave no trace (--dry-run, simulations)."""

    def load(self) -> Ledger:
        """An empty ledger."""
        return Ledger()

    def save(self, ledger: Ledger) -> None:
        """Keep nothing."""
