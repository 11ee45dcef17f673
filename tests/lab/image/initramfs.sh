#!/bin/bash
# initramfs.sh ROOT KVER MODULES OUT: the lab guests' whole system, busybox and USB drivers, taken from dom0's ROOT.
set -euo pipefail
root=$1 kver=$2 modules=$3 out=$4
here=$(cd "$(dirname "$0")" && pwd)
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
# what the kernel runs for `xl shutdown` and `xl reboot`; there is no init to ask
mkdir "$tree/sbin"
for name in poweroff reboot; do
    printf '#!/bin/sh\nexec /bin/busybox %s -f\n' "$name" > "$tree/sbin/$name"
    chmod +x "$tree/sbin/$name"
done
from=$root/lib/modules/$kver to=$tree/lib/modules/$kver
mkdir -p "$tree"/{bin,proc,sys,dev,etc} "$to/extra"
cp "$root/bin/busybox" "$tree/bin/"
for name in sh mount mkdir insmod modprobe lsmod cat ls sleep echo mkfifo dmesg uname grep tr setsid hexdump dd \
    lspci lsusb ps kill readlink; do
    ln -s busybox "$tree/bin/$name"
done
cp "$from"/modules.{order,builtin,builtin.modinfo} "$to/"
wanted="xen-pcifront xhci-pci ehci-pci uhci-hcd ohci-pci usbhid hid-generic usb-storage sd_mod cdc-acm ftdi_sio"
for module in $wanted; do
    modprobe -d "$root" -S "$kver" --show-depends "$module" | sed -n 's/^insmod \([^ ]*\).*/\1/p'
done | sort -u | while read -r file; do
    install -D "$file" "$to/${file#*/lib/modules/"$kver"/}"
done
cp "$modules/xen-hcd.ko" "$to/extra/"
depmod -b "$tree" "$kver"
install -m 755 "$here/guest-init" "$tree/init"
# Not compressed: unpacking under emulation costs more than reading.
(cd "$tree" && find . | sort | cpio -o -H newc --quiet) > "$out"
