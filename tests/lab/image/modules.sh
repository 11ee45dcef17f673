#!/bin/bash
# modules.sh KVER OUTDIR: builds xen-hcd.ko, the PVUSB frontend of the lab's guests. No Debian kernel ships it
# (CONFIG_USB_XEN_HCD is not set), so it is built out of tree from linux-source-6.1 against Debian's headers.
set -euo pipefail
kver=$1 out=$2
mkdir -p "$out/src"
cd "$out/src"
tar xf /usr/src/linux-source-6.1.tar.xz --strip-components=4 linux-source-6.1/drivers/usb/host/xen-hcd.c
echo 'obj-m += xen-hcd.o' > Makefile
make -C "/lib/modules/$kver/build" M="$PWD" CC=gcc-12 modules
strip --strip-debug xen-hcd.ko
mv xen-hcd.ko "$out/"
rm -rf "$out/src"
