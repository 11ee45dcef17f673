"""What libxl and a started qemu leave on disk and in xenstore for a guest, and the file the shims take domains from."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

GuestKind = Literal["pv", "pvh", "hvm"]


@dataclass(frozen=True, slots=True)
class Domain:
    """A guest of the bench. `flags`: p paused, s shut down, u suspended, d dying (the shims read them)."""

    domid: int
    name: str
    kind: GuestKind
    uuid: str
    flags: str = ""


def nodes(domain: Domain, backend: str | None, pid: int | None) -> dict[str, str]:
    """The xenstore nodes of a started guest (xen-facts 2.3, 2.8); pid: its device model, None for none."""
    home, domid, uuid = f"/local/domain/{domain.domid}", domain.domid, domain.uuid
    found = {
        f"{home}/name": domain.name,
        f"{home}/domid": str(domid),
        f"{home}/vm": f"/vm/{uuid}",
        f"/vm/{uuid}/name": domain.name,
        f"/vm/{uuid}/uuid": uuid,
        f"/libxl/{domid}/type": domain.kind,
    }
    if pid is not None:
        found[f"{home}/image/device-model-pid"] = str(pid)
        found[f"/local/domain/0/device-model/{domid}/state"] = "running"
    if backend:
        found[f"/local/domain/0/device-model/{domid}/backends/{backend}"] = ""
    return found


def trees(domain: Domain) -> list[str]:
    """Everything that is removed with a destroyed guest."""
    return [
        f"/local/domain/{domain.domid}",
        f"/libxl/{domain.domid}",
        f"/local/domain/0/backend/qusb/{domain.domid}",
        f"/local/domain/0/backend/vusb/{domain.domid}",
        f"/local/domain/0/device-model/{domain.domid}",
        f"/vm/{domain.uuid}",
    ]


def userdata(xen_lib: Path, domain: Domain) -> Path:
    """The file whose existence shows that libxl has finished creating the guest."""
    return xen_lib / f"userdata-d.{domain.domid}.{domain.uuid}.libxl-json"


def write_userdata(xen_lib: Path, domain: Domain) -> None:
    """Enough of a libxl configuration for every hotplug command to work on."""
    config = {
        "c_info": {"type": domain.kind, "name": domain.name, "uuid": domain.uuid},
        "b_info": {f"type.{domain.kind}": {}},
    }
    userdata(xen_lib, domain).write_text(json.dumps(config))


def write_domains(path: Path, domains: list[Domain]) -> None:
    """doms.txt for the shims, replaced in one step because a running xl may be reading it."""
    lines = [f"{d.domid} {d.kind} {d.uuid} {d.flags}\n" for d in sorted(domains, key=lambda d: d.domid)]
    scratch = path.with_name(f"{path.name}.{os.getpid()}")
    scratch.write_text("".join(lines))
    scratch.replace(path)
