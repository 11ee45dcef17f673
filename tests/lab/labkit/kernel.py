"""Takes the ELF kernel out of a compressed bzImage. Xen and xl load either, but decompressing under emulation costs
seconds for dom0 and for every guest."""

import lzma
import struct
from pathlib import Path

from labkit.config import LabError

# Linux boot protocol 2.08: offsets of setup_sects, payload_offset and payload_length (Documentation/x86/boot.rst)
SETUP_SECTS, PAYLOAD_OFFSET, PAYLOAD_LENGTH = 0x1F1, 0x248, 0x24C


def extract(vmlinuz: Path, vmlinux: Path) -> None:
    """Writes the ELF kernel in `vmlinuz` to `vmlinux`; LabError when it is not xz-compressed (Debian 12's is)."""
    image = vmlinuz.read_bytes()
    start = (image[SETUP_SECTS] + 1) * 512 + struct.unpack_from("<I", image, PAYLOAD_OFFSET)[0]
    payload = image[start : start + struct.unpack_from("<I", image, PAYLOAD_LENGTH)[0]]
    if not payload.startswith(b"\xfd7zXZ\0"):
        raise LabError(f"{vmlinuz}: its payload is not xz; only Debian 12's kernels are understood")
    # the payload is followed by the size of what it unpacks to
    vmlinux.write_bytes(lzma.LZMADecompressor().decompress(payload))
