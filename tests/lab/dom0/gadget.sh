#!/bin/bash
# gadget.sh: USB devices of any description on dom0's own dummy_hcd buses, made with configfs. Eight controllers with one
# socket each: a high speed bus, and a SuperSpeed bus for its other side.
#   gadget.sh prepare              makes the controllers
#   gadget.sh add NAME VID PID [product=TEXT] [serial=TEXT] [manufacturer=TEXT] [revision=HEX]
#             [class=HEX] [subclass=HEX] [protocol=HEX] [udc=dummy_udc.N]
#             [speed=super-speed|high-speed|full-speed|low-speed]       high-speed unless given
#             [function=acm|hid|mass_storage|ecm|...] or [interfaces="03:01:01 0b:00:00"]
#   gadget.sh unplug NAME          unplug it
#   gadget.sh plug NAME            plug it in again, in the same place
#   gadget.sh become NAME VID PID  replace it by another device in the same place
#   gadget.sh del NAME | clear     remove one | all
# "add" prints the controller used: dummy_udc.N. Interfaces that are neither a boot HID nor a disk come from ffs.py.
set -euo pipefail
top=/sys/kernel/config/usb_gadget

prepare() {
    modprobe libcomposite
    mountpoint -q /sys/kernel/config || mount -t configfs none /sys/kernel/config
    lsmod | grep -q '^dummy_hcd' || modprobe dummy_hcd num=8 is_super_speed=1
}

free_udc() {
    for path in /sys/class/udc/*; do
        udc=${path##*/}
        # an unplugged gadget keeps its place, noted in /run, so that it can be plugged in there again
        grep -qsx "$udc" /run/gadget-*.udc || { echo "$udc"; return; }
    done
    echo "all dummy_hcd ports are taken" >&2
    return 1
}

# HID: a boot mouse's report descriptor, so that usbhid takes the device; $1 and $2: its subclass and protocol
hid() {
    echo "$1" > subclass; echo "$2" > protocol; echo 4 > report_length
    printf '\x05\x01\x09\x02\xa1\x01\x09\x01\xa1\x00\x05\x09\x19\x01\x29\x03\x15\x00\x25\x01\x95\x03\x75\x01\x81\x02' > report_desc
    printf '\x95\x01\x75\x05\x81\x03\x05\x01\x09\x30\x09\x31\x15\x81\x25\x7f\x75\x08\x95\x02\x81\x06\xc0\xc0' >> report_desc
}

function_of() {
    mkdir "functions/$1.$name"
    case $1 in
        hid) (cd "functions/hid.$name" && hid "${2:-1}" "${3:-2}");;
        mass_storage)
            truncate -s 4M "/run/gadget-$name.img"
            echo "/run/gadget-$name.img" > "functions/mass_storage.$name/lun.0/file";;
    esac
    ln -s "functions/$1.$name" configs/c.1/
}

interfaces_of() {
    local triple rest=()
    for triple in "$@"; do
        case $triple in
            03:*) function_of hid "$((16#${triple:3:2}))" "$((16#${triple:6:2}))";;
            08:06:50) function_of mass_storage;;
            *) rest+=("$triple");;
        esac
    done
    [ ${#rest[@]} -gt 0 ] || return 0
    mkdir "functions/ffs.$name"
    mkdir -p "/run/gadget-$name.ffs"
    mount -t functionfs "$name" "/run/gadget-$name.ffs"
    ffs.py "/run/gadget-$name.ffs" "${rest[@]}" > /dev/null
    ln -s "functions/ffs.$name" configs/c.1/
}

add() {
    local vid=$1 pid=$2 product="lab gadget" serial="" manufacturer="Lab" function=acm interfaces="" udc=""
    local speed=high-speed class="" subclass="" protocol="" revision="" pair
    shift 2
    for pair in "$@"; do printf -v "${pair%%=*}" %s "${pair#*=}"; done
    mkdir "$top/$name" && cd "$top/$name"
    echo "0x$vid" > idVendor; echo "0x$pid" > idProduct
    [ -z "$class" ] || echo "0x$class" > bDeviceClass
    [ -z "$subclass" ] || echo "0x$subclass" > bDeviceSubClass
    [ -z "$protocol" ] || echo "0x$protocol" > bDeviceProtocol
    [ -z "$revision" ] || echo "0x$revision" > bcdDevice
    echo "$speed" > max_speed
    mkdir strings/0x409
    [ -z "$manufacturer" ] || printf %s "$manufacturer" > strings/0x409/manufacturer
    [ -z "$product" ] || printf %s "$product" > strings/0x409/product
    [ -z "$serial" ] || printf %s "$serial" > strings/0x409/serialnumber
    mkdir configs/c.1
    # shellcheck disable=SC2086
    if [ -n "$interfaces" ]; then interfaces_of $interfaces; else function_of "$function"; fi
    [ -n "$udc" ] || udc=$(free_udc)
    echo "$udc" > "/run/gadget-$name.udc"
    echo "$udc" > UDC
    echo "$udc"
}

# Disconnect first, which returns the waiting requests: unbinding frees them while they are still in dummy_hcd's queue,
# and its next access to the queue crashes the kernel (Linux 6.1: composite_dev_cleanup, then stop_activity).
unplug() {
    local udc
    udc=$(cat "$top/$name/UDC")
    [ -n "$udc" ] || return 0
    echo disconnect > "/sys/class/udc/$udc/soft_connect"
    echo > "$top/$name/UDC"
}

del() {
    unplug
    cd "$top/$name"
    rm -f configs/c.1/*.*
    rmdir configs/c.1
    if mountpoint -q "/run/gadget-$name.ffs"; then
        kill "$(cat "/run/gadget-$name.ffs.pid")" || true
        umount -l "/run/gadget-$name.ffs"
        rmdir "/run/gadget-$name.ffs"
    fi
    rmdir functions/* strings/0x409
    cd / && rmdir "$top/$name"
    rm -f "/run/gadget-$name".*
}

become() {
    unplug
    echo "0x$1" > "$top/$name/idVendor"; echo "0x$2" > "$top/$name/idProduct"
    cat "/run/gadget-$name.udc" > "$top/$name/UDC"
}

verb=$1 name=${2:-}
case $verb in
    prepare) prepare;;
    become) shift 2; become "$@";;
    add) prepare; shift 2; add "$@";;
    plug) cat "/run/gadget-$name.udc" > "$top/$name/UDC";;
    unplug) unplug;;
    del) del;;
    clear) for path in "$top"/*/; do [ -d "$path" ] || continue; name=$(basename "$path"); (del); done;;
    *) sed -n 2,15p "$0" >&2; exit 2;;
esac
