"""Why a device that is to go, or went, with its whole controller stands as it does, for core/reporting/explain."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from xenplug.core.planning.steps import Cause, Verdict


def _bdf(verdict: Verdict) -> str:
    return f"its controller {verdict.device.controller}"


PCI_REASONS: Mapping[Cause, Callable[[Verdict], str]] = {
    Cause.WITH_CONTROLLER: lambda v: (
        f"{_bdf(v)} is with {v.guest}, and dom0 sees nothing of what is plugged there; "
        f"`xenplug detach {v.device.controller}` brings it back"
    ),
    Cause.CONTROLLER_MOVING: lambda v: (
        f"{_bdf(v)} is on its way to {v.target}" if v.target else f"{_bdf(v)} is on its way back to dom0"
    ),
    Cause.CONTROLLER_BY_HAND: lambda v: (
        f"{_bdf(v)} was taken back by hand; `xenplug release {v.device.controller}` lets it go again"
    ),
    Cause.ASKING_XL: lambda v: f"xl is asked whether {_bdf(v)} can go to {v.target}",
    Cause.SIBLING: lambda v: f"{_bdf(v)} cannot go to {v.target} as long as others stand in its way",
    Cause.NO_HOST_CONTROLLER: lambda v: (
        "it hangs on no PCI host controller, so there is none to give away; plug it into a socket of this machine"
    ),
    Cause.NO_IOMMU: lambda v: (
        f"{_bdf(v)} cannot go to a guest: Xen uses no IOMMU; switch on VT-d or AMD-Vi in the firmware, "
        f"`xl info` shows hvm_directio or pv_directio under virt_caps when it is"
    ),
    Cause.NO_PCIBACK: lambda v: f"{_bdf(v)} cannot go to a guest: dom0 has no pciback driver; `modprobe xen-pciback`",
    Cause.NO_PASSTHROUGH: lambda v: (
        f'{v.target} was made without PCI passthrough; add passthrough="enabled" to its config and start it anew '
        f"(`xenplug xl-cfg {v.target}` prints the lines)"
    ),
    Cause.UNFIT_GUEST: lambda v: f"{v.target} is a PVH guest, and Xen gives those no PCI devices; make it PV or HVM",
}
