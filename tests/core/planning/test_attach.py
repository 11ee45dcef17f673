"""The plan for a device that dom0's kernel has left without a configuration."""

from dataclasses import replace

from tests.core.make import FREE, MOUSE, NOW, TO_KIOSK, absorbed, planned, snapshot

from xenplug.core.ledger.ledger import Ledger
from xenplug.core.planning.attach import CONFIGURE_TIME
from xenplug.core.planning.steps import Attach, Authorize

UNSET = replace(MOUSE, configured=False)


def test_the_kernel_is_asked_once_more_for_a_configuration():
    shut, same = replace(UNSET, authorized=False), snapshot(UNSET, FREE)
    ledger = absorbed(same, TO_KIOSK, Ledger(at=NOW), NOW, 5.0)
    later = NOW + CONFIGURE_TIME
    assert planned(same, TO_KIOSK, ledger, now=later).steps == (Authorize(UNSET, allowed=False),)
    ledger = absorbed(snapshot(shut, FREE), TO_KIOSK, ledger, later, 5.0)
    assert planned(snapshot(shut, FREE), TO_KIOSK, ledger, now=later).steps == (Authorize(shut, allowed=True),)
    ledger = absorbed(same, TO_KIOSK, ledger, later, 5.0)
    assert planned(same, TO_KIOSK, ledger, now=later).steps == ()
    assert [type(s) for s in planned(same, TO_KIOSK, ledger, now=later + CONFIGURE_TIME).steps] == [Attach]
