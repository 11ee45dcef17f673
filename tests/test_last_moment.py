"""Protection is asked at the moment of the act: what was free for the plan may be in use when its turn comes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.rig import KIOSK, Rig, present, settled, told

from xenplug.core.model import Use

RULES = "version: 1\nauto_protect: [storage, keyboard]\nrules: [{match: {device: '*:*'}, attach: kiosk}]\n"


def use(rig: Rig, port: str, used: Use) -> None:
    """dom0 begins to use it, of which no event tells."""
    plugged = rig.world.kernel._present[present(rig, port).port]
    plugged.device = replace(plugged.device, in_use=frozenset({used}))
    rig.world.bus._seen[plugged.device.port] = plugged.device


@pytest.mark.parametrize("kind, used", [("storage", Use.STORAGE), ("keyboard", Use.KEYBOARD)])
@told
async def test_used_while_the_attach_waits_for_its_turn(kind: str, used: Use) -> None:
    rig = await Rig(RULES, KIOSK).start()
    domid = rig.world.guests.named("kiosk").domid
    turn = rig.agent.reconciler._acts._turns[domid]
    async with turn:
        rig.plug("1-1", kind=kind)
        await rig.until(lambda: bool(rig.agent.reconciler.ledger.entries))
        use(rig, "1-1", used)
    await settled(rig)
    assert rig.stands("1-1")[0] == "protected"
    assert rig.calls("usbdev-attach") == []
    assert not rig.agent.reconciler.ledger.entries
    await rig.kill()
