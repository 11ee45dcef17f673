"""Where the lab keeps its files and how large its machine is. Everything big lives in one cache folder outside the
repository: $XENPLUG_LAB_CACHE, by default ~/.cache/xenplug-lab."""

import os
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
REPOSITORY = HERE.parent.parent
IMAGE_SOURCES = HERE / "image"
DOM0_SOURCES = HERE / "dom0"

# Two kinds of machine come from one image, each with a run folder and logs of its own: "xen", the lab; "hvm", without
# Xen (labkit/hvm.py).
KIND = os.environ.get("XENPLUG_LAB_MACHINE") or "xen"
OF_KIND = "" if KIND == "xen" else f"-{KIND}"
BENCH = REPOSITORY / "tests" / "bench"
HVM_SOURCES = (
    *(HERE / "labkit" / "hvm.py", HERE / "hvm" / "host.py"),
    *(BENCH / "__init__.py", BENCH / "domains.py", BENCH / "xswire.py"),
    *sorted((BENCH / "shim").glob("x*.c")),
)

CACHE = Path(os.environ.get("XENPLUG_LAB_CACHE") or Path.home() / ".cache" / "xenplug-lab")
RUN = CACHE / f"run{OF_KIND}"
LOGS = CACHE / f"logs{OF_KIND}"
KEY = CACHE / "id_lab"

# HVM guests need the whole machine below 2816 MB, so that no memory lies above 4 GiB.
MEMORY_MB = 2560
DOM0_MB = 1280
# Anything with XSAVE or AVX silently corrupts dom0's user space under TCG; EPYC makes Xen panic.
CPU = "Opteron_G3,+svm,+npt"
BUILD_DISK_GB = 6
SNAPSHOT = "up"

PV_GUESTS = ("kiosk", "desk", "plain", "bare")
FRONTEND_GUESTS = ("kiosk", "desk")
GUESTS = (*PV_GUESTS, "bios")


class LabError(Exception):
    """The obstacle and the remedy, in one line."""


def check_cache() -> None:
    """Refuses a cache path too long for the sockets below it (AF_UNIX paths end at 107 bytes)."""
    longest = len(str(RUN / "ssh.master.0123456789abcdef"))
    if longest > 107:
        raise LabError(f"{CACHE}: path too long for sockets by {longest - 107}; set XENPLUG_LAB_CACHE to a shorter one")
