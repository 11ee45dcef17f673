#!/bin/bash
# gadget.sh: USB devices of any description on dom0's own dummy_hcd buses (high speed), made with configfs.
#   gadget.sh add NAME VID PID [product=TEXT] [serial=TEXT] [manufacturer=TEXT] [function=acm|hid|mass_storage|ecm|...]
#             [class=HEX] [subclass=HEX] [protocol=HEX] [speed=high-speed|full-speed|low-speed] [udc=dummy_udc.N]
#   gadget.sh unplug NAME          the cable is pulled
#   gadget.sh plug NAME            and put back, in the same place
#   gadget.sh del NAME | clear     forget one | all
# "add" prints the controller used: dummy_udc.N.
set -euo pipefail
top=/sys/kernel/config/usb_gadget

prepare() {
    modprobe libcomposite
    mountpoint -q /sys/kernel/config || mount -t configfs none /sys/kernel/config
    lsmod | grep -q '^dummy_hcd' || modprobe dummy_hcd num=4
}

free_udc() {
    for path in /sys/class/udc/*; do
        udc=${path##*/}
        # a pulled gadget keeps its place, noted in /run, so that it can be put back there
        grep -qsx "$udc" /run/gadget-*.udc || { echo "$udc"; return; }
    done
    echo "all dummy_hcd ports are taken" >&2
    return 1
}

# HID: a boot mouse's report descriptor, so that usbhid takes the device
hid() {
    echo 2 > protocol; echo 1 > subclass; echo 4 > report_length
    printf '\x05\x01\x09\x02\xa1\x01\x09\x01\xa1\x00\x05\x09\x19\x01\x29\x03\x15\x00\x25\x01\x95\x03\x75\x01\x81\x02' > report_desc
    printf '\x95\x01\x75\x05\x81\x03\x05\x01\x09\x30\x09\x31\x15\x81\x25\x7f\x75\x08\x95\x02\x81\x06\xc0\xc0' >> report_desc
}

function_of() {
    mkdir "functions/$1.$name"
    case $1 in
        hid) (cd "functions/hid.$name" && hid);;
        mass_storage)
            truncate -s 4M "/run/gadget-$name.img"
            echo "/run/gadget-$name.img" > "functions/mass_storage.$name/lun.0/file";;
    esac
    ln -s "functions/$1.$name" configs/c.1/
}

add() {
    local vid=$1 pid=$2 product="lab gadget" serial="" manufacturer="Lab" function=acm speed="" udc=""
    local class="" subclass="" protocol="" pair
    shift 2
    for pair in "$@"; do printf -v "${pair%%=*}" %s "${pair#*=}"; done
    mkdir "$top/$name" && cd "$top/$name"
    echo "0x$vid" > idVendor; echo "0x$pid" > idProduct
    [ -z "$class" ] || echo "0x$class" > bDeviceClass
    [ -z "$subclass" ] || echo "0x$subclass" > bDeviceSubClass
    [ -z "$protocol" ] || echo "0x$protocol" > bDeviceProtocol
    [ -z "$speed" ] || echo "$speed" > max_speed
    mkdir strings/0x409
    printf %s "$manufacturer" > strings/0x409/manufacturer
    printf %s "$product" > strings/0x409/product
    [ -z "$serial" ] || printf %s "$serial" > strings/0x409/serialnumber
    mkdir configs/c.1
    function_of "$function"
    [ -n "$udc" ] || udc=$(free_udc)
    echo "$udc" > "/run/gadget-$name.udc"
    echo "$udc" > UDC
    echo "$udc"
}

unplug() { [ -z "$(cat "$top/$name/UDC")" ] || echo > "$top/$name/UDC"; }

del() {
    unplug
    cd "$top/$name"
    rm -f configs/c.1/*.*
    rmdir configs/c.1 functions/* strings/0x409
    cd / && rmdir "$top/$name"
    rm -f "/run/gadget-$name".*
}

verb=$1 name=${2:-}
case $verb in
    add) prepare; shift 2; add "$@";;
    plug) cat "/run/gadget-$name.udc" > "$top/$name/UDC";;
    unplug) unplug;;
    del) del;;
    clear) for path in "$top"/*/; do [ -d "$path" ] || continue; name=$(basename "$path"); (del); done;;
    *) sed -n 2,9p "$0" >&2; exit 2;;
esac
