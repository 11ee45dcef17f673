#!/bin/bash
# prepare.sh: run once in a freshly booted dom0, before the guests start.
set -euo pipefail
# A disk for the firmware-only guest: without one SeaBIOS reboots it every minute. The boot sector is sti; hlt; jmp hlt.
disk=/guest/halt.img
truncate -s 1M "$disk"
printf '\xfb\xf4\xeb\xfd' | dd of="$disk" conv=notrunc status=none
printf '\x55\xaa' | dd of="$disk" bs=1 seek=510 conv=notrunc status=none
