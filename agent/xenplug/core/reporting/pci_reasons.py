"""Reasons for the state of a device that is or will be passed through with its whole controller, for explain."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from xenplug.core.planning.steps import Cause, Verdict


def _bdf(verdict: Verdict) -> str:
    return f"its controller {verdict.device.controller}"


PCI_REASONS: Mapping[Cause, Callable[[Verdict], str]] = {
    Cause.WITH_CONTROLLER: lambda v: (
        f"{_bdf(v)} is with {v.guest}, and dom0 does not see devices that are plugged in there; "
        f"`xenplug detach {v.device.controller}` returns it to the host"
    ),
    Cause.CONTROLLER_MOVING: lambda v: (
        f"{_bdf(v)} is moving to {v.target}" if v.target else f"{_bdf(v)} is returning to dom0"
    ),
    Cause.CONTROLLER_BY_HAND: lambda v: (
        f"{_bdf(v)} was detached manually; after `xenplug release {v.device.controller}` the rules decide again"
    ),
    Cause.ASKING_XL: lambda v: f"asking xl whether {_bdf(v)} can be passed to {v.target}",
    Cause.SIBLING: lambda v: f"{_bdf(v)} cannot be passed to {v.target} because of other devices or functions",
    Cause.NO_HOST_CONTROLLER: lambda v: (
        "its host controller is not a PCI device and cannot be passed through; plug it into a port of this machine"
    ),
    Cause.NO_IOMMU: lambda v: (
        f"{_bdf(v)} cannot be passed to a guest: Xen uses no IOMMU; enable VT-d or AMD-Vi in the firmware "
        f"(`xl info` then shows hvm_directio or pv_directio under virt_caps)"
    ),
    Cause.NO_PCIBACK: lambda v: (
        f"{_bdf(v)} cannot be passed to a guest: dom0 has no pciback driver; run `modprobe xen-pciback`"
    ),
    Cause.NO_PASSTHROUGH: lambda v: (
        f'{v.target} was created without PCI passthrough; add passthrough="enabled" to its config and restart it '
        f"(`xenplug xl-cfg {v.target}` prints the lines)"
    ),
    Cause.UNFIT_GUEST: lambda v: f"{v.target} is a PVH guest, and Xen passes it no PCI devices; make it PV or HVM",
}
