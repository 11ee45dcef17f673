#!/bin/bash
# rootfs.sh ROOT KVER PACKAGES PUBKEY: a Debian 12 dom0 in the folder ROOT, from this machine's own Debian sources.
# XENPLUG_LAB_SOURCES names a sources file to take instead.
set -euo pipefail
root=$1 kver=$2 packages=$3 pubkey=$4
sources=${XENPLUG_LAB_SOURCES:-$(grep -rlsE '(^|[[:space:]])bookworm([[:space:]-]|$)' \
    /etc/apt/sources.list /etc/apt/sources.list.d || true)}
[ -n "$sources" ] || { echo "no Debian 12 (bookworm) sources under /etc/apt; name a file in XENPLUG_LAB_SOURCES"; exit 1; }
list=$(sed 's/#.*//' "$packages" | tr -s ' \n' ',' | sed 's/^,//; s/,$//')
# shellcheck disable=SC2086  # several files are several arguments
mmdebstrap --mode=root --variant=minbase --aptopt='APT::Install-Recommends "false"' \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --include="linux-image-$kver,$list" bookworm "$root" $sources

echo dom0 > "$root/etc/hostname"
echo "127.0.0.1 localhost dom0" > "$root/etc/hosts"
echo "/dev/vda / ext4 noatime 0 1" > "$root/etc/fstab"
install -D -m 600 "$pubkey" "$root/root/.ssh/authorized_keys"
chmod 700 "$root/root/.ssh"
cat > "$root/etc/systemd/network/10-all.network" <<'S'
[Match]
Type=ether
[Network]
Address=10.0.2.15/24
S
chroot "$root" systemctl enable systemd-networkd ssh
chroot "$root" passwd -d root
mkdir -p "$root/etc/systemd/system/serial-getty@hvc0.service.d"
cat > "$root/etc/systemd/system/serial-getty@hvc0.service.d/autologin.conf" <<'S'
[Service]
ExecStart=
ExecStart=-/sbin/agetty --autologin root --noclear %I linux
S
for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer fstrim.timer e2scrub_all.timer \
    e2scrub_reap.service systemd-timesyncd.service systemd-networkd-wait-online.service; do
    chroot "$root" systemctl mask "$unit" || true
done

# A small initrd of just what the disk needs: unpacking is slow under emulation.
printf 'virtio_pci\nvirtio_blk\nvirtio_net\next4\n' >> "$root/etc/initramfs-tools/modules"
sed -i 's/^MODULES=.*/MODULES=list/; s/^COMPRESS=.*/COMPRESS=gzip/' "$root/etc/initramfs-tools/initramfs.conf"
chroot "$root" update-initramfs -u -k "$kver"
printf 'xen-pciback\nxen-gntdev\nxen-evtchn\nxen-privcmd\nxenfs\n' > "$root/etc/modules-load.d/xen.conf"

# Every guest's console goes to /var/log/xen/console/guest-NAME.log, across reboots. (Debian's init script knows
# XENCONSOLED_ARGS only.)
echo 'XENCONSOLED_ARGS="--log=guest --log-dir=/var/log/xen/console"' >> "$root/etc/default/xen"
mkdir -p "$root/var/log/xen/console"
rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
