"""What failed is named by a key: which act, for which domain, on what."""

from __future__ import annotations

import pytest
from tests.core.make import NOW, device

from xenplug.core.ledger.ledger import Ledger, fail, retry_given_up
from xenplug.core.ledger.troubles import Act, Backoff, TroubleKey
from xenplug.core.model import Bdf

MOUSE = device()
BDF, OTHER = Bdf("0000:00:14.0"), Bdf("0000:03:00.0")
KEYS = {
    Act.ATTACH: TroubleKey.attach(MOUSE.key, 1),
    Act.DETACH: TroubleKey.detach(MOUSE.key, 1),
    Act.AUTHORIZE: TroubleKey.authorize(MOUSE.key),
    Act.INTERFACES: TroubleKey.interfaces(MOUSE.key),
    Act.ADD_CONTROLLER: TroubleKey.add_controller(1),
    Act.REMOVE_CONTROLLER: TroubleKey.remove_controller(1, 0),
    Act.PCI: TroubleKey.pass_pci(BDF, 1),
}


def test_each_act_has_its_own_key():
    assert [key.act for key in KEYS.values()] == list(Act)
    assert len({*KEYS.values(), TroubleKey.return_pci(BDF), TroubleKey.remove_controller(1, 1)}) == len(Act) + 2


@pytest.mark.parametrize("act", Act)
def test_whom_a_failure_concerns(act):
    about_mouse = act in (Act.ATTACH, Act.DETACH, Act.AUTHORIZE, Act.INTERFACES, Act.PCI)
    assert KEYS[act].concerns(MOUSE) is about_mouse
    assert KEYS[act].concerns(device(number=6, controller=OTHER)) is False
    assert KEYS[act].concerns(device("1-2", controller=BDF)) is (act is Act.PCI), "its host controller is the same"


@pytest.mark.parametrize("act", Act)
def test_a_device_without_host_controller_is_concerned_by_none(act):
    assert KEYS[act].concerns(device("1-2", controller=None)) is False


def test_what_was_given_up_is_retried_in_its_domain_only():
    ledger = Ledger(at=NOW)
    for key in KEYS.values():
        ledger = fail(ledger, key, ("refused", ""), NOW, Backoff(tries=1))
    left = retry_given_up(ledger, {1}).troubles
    assert set(left) == {KEYS[Act.AUTHORIZE], KEYS[Act.INTERFACES]}
    assert retry_given_up(ledger, {2}).troubles == ledger.troubles
