"""USB devices that dom0 makes itself (dummy_hcd and configfs, dom0/gadget.sh): any tag, class and text."""

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Gadget:
    """A device made in dom0. `place` is its controller ("dummy_udc.0"), which it keeps over unplug and plug."""

    name: str
    place: str
    must: Callable[[str], str]

    def unplug(self) -> None:
        self.must(f"gadget.sh unplug {self.name}")

    def plug(self) -> None:
        """Puts it back in the same place."""
        self.must(f"gadget.sh plug {self.name}")

    def delete(self) -> None:
        """Unplugs and removes it; its place is free for another."""
        self.must(f"gadget.sh del {self.name}")


def add(must: Callable[[str], str], name: str, tag: str, texts: Mapping[str, str]) -> Gadget:
    """Makes and plugs the device; `must` runs a command in dom0."""
    vendor, product = tag.split(":")
    pairs = [f"{key.rstrip('_')}={value}" for key, value in texts.items()]
    return Gadget(name, must("gadget.sh add " + shlex.join([name, vendor, product, *pairs])).strip(), must)
