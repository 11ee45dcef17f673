/*
 * Preloaded before libumockdev-preload into the process under test. umockdev replaces every netlink uevent socket by
 * a UNIX socket $UMOCKDEV_DIR/eventFD and loses its multicast group, so that a monitor of the
 * kernel's events and one of udev's get the same messages. This notes the group (1 kernel, 2 udev) as the target of a symlink
 * $UMOCKDEV_DIR/groups/FD, and the bench's sender sends each monitor its real messages at the real times.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <linux/netlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static void note(int fd, unsigned groups)
{
    char path[PATH_MAX], value[16];
    const char *root = getenv("UMOCKDEV_DIR");

    if (!root)
        return;
    snprintf(path, sizeof path, "%s/groups", root);
    mkdir(path, 0755);
    snprintf(path, sizeof path, "%s/groups/%d", root, fd);
    snprintf(value, sizeof value, "%u", groups);
    unlink(path);
    if (symlink(value, path) < 0)
        perror("uevent_groups");
}

int bind(int fd, const struct sockaddr *address, socklen_t length)
{
    static int (*real)(int, const struct sockaddr *, socklen_t);

    if (!real)
        real = (int (*)(int, const struct sockaddr *, socklen_t))dlsym(RTLD_NEXT, "bind");
    if (address->sa_family == AF_NETLINK)
        note(fd, ((const struct sockaddr_nl *)address)->nl_groups);
    return real(fd, address, length);
}

/* The bench's message for "messages were lost" (uevents.py), which a UNIX socket cannot report by itself. */
ssize_t recvmsg(int fd, struct msghdr *message, int flags)
{
    static const char overflow[] = "xenplug-bench: netlink overflow";
    static ssize_t (*real)(int, struct msghdr *, int);
    ssize_t size;

    if (!real)
        real = (ssize_t (*)(int, struct msghdr *, int))dlsym(RTLD_NEXT, "recvmsg");
    size = real(fd, message, flags);
    if (size < (ssize_t)sizeof overflow || memcmp(message->msg_iov[0].iov_base, overflow, sizeof overflow - 1))
        return size;
    errno = ENOBUFS;
    return -1;
}
