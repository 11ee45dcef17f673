/*
 * Preloaded into Debian's unmodified xenstored: grants and event channels are stubs, domain states come from the
 * same text file as in xl_shim.c, and the hypervisor's "some domain changed" interrupt (VIRQ_DOM_EXC) is a FIFO,
 * $XENPLUG_BENCH_ROOT/run/virq: writing the int 1 to it makes xenstored check its domains, as on a real host, and
 * fire @releaseDomain by itself.
 */
#define _GNU_SOURCE
#define __XEN_TOOLS__ 1
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xenctrl.h>

#define VIRQ_PORT 1

static int virq = -1;

/* /proc/xen/xsd_{port,kva}: dom0's own ring, which is not used here. */
int open(const char *path, int flags, ...)
{
    static int (*real)(const char *, int, ...);
    char buffer[PATH_MAX];
    mode_t mode = 0;

    if (!real)
        real = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, "open");
    if (flags & O_CREAT) {
        va_list rest;
        va_start(rest, flags);
        mode = va_arg(rest, mode_t);
        va_end(rest);
    }
    if (!strncmp(path, "/proc/xen/", 10)) {
        snprintf(buffer, sizeof buffer, "%s%s", getenv("XENPLUG_BENCH_ROOT"), path);
        path = buffer;
    }
    return real(path, flags, mode);
}

xc_interface *xc_interface_open(xentoollog_logger *logger, xentoollog_logger *dombuild, unsigned flags)
{
    (void)logger, (void)dombuild, (void)flags;
    return (xc_interface *)0x1000;
}

int xc_interface_close(xc_interface *xch) { (void)xch; return 0; }

int xc_domain_getinfo(xc_interface *xch, uint32_t first, unsigned int max, xc_dominfo_t *info)
{
    char line[256];
    unsigned count = 0;
    FILE *file = fopen(getenv("XENPLUG_BENCH_DOMAINS"), "r");

    (void)xch;
    if (!file)
        return -1;
    while (count < max && fgets(line, sizeof line, file)) {
        unsigned id;
        char type[16], uuid[64], flags[16] = "";

        if (sscanf(line, "%u %15s %63s %15s", &id, type, uuid, flags) < 3 || id < first)
            continue;
        memset(&info[count], 0, sizeof info[count]);
        info[count].domid = id;
        info[count].shutdown = strpbrk(flags, "su") != NULL;
        info[count].dying = strchr(flags, 'd') != NULL;
        count++;
    }
    fclose(file);
    return count;
}

void *xengnttab_open(void *logger, unsigned flags) { (void)logger, (void)flags; return (void *)0x2000; }
int xengnttab_close(void *handle) { (void)handle; return 0; }
int xengnttab_set_max_grants(void *handle, uint32_t count) { (void)handle, (void)count; return 0; }
int xengnttab_unmap(void *handle, void *page, uint32_t count) { (void)handle; return munmap(page, 4096 * count); }

/* A domain's own ring: an empty page, so that the domain is known and sends nothing. */
void *xengnttab_map_grant_ref(void *handle, uint32_t domid, uint32_t ref, int prot)
{
    (void)handle, (void)domid, (void)ref, (void)prot;
    return mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

void *xenevtchn_open(void *logger, unsigned flags)
{
    char path[PATH_MAX];

    (void)logger, (void)flags;
    snprintf(path, sizeof path, "%s/run/virq", getenv("XENPLUG_BENCH_ROOT"));
    virq = open(path, O_RDWR | O_NONBLOCK);
    return virq < 0 ? NULL : (void *)0x3000;
}

int xenevtchn_pending(void *handle)
{
    int port;

    (void)handle;
    return read(virq, &port, sizeof port) == sizeof port ? port : -1;
}

int xenevtchn_close(void *handle) { (void)handle; return 0; }
int xenevtchn_fd(void *handle) { (void)handle; return virq; }
int xenevtchn_notify(void *handle, uint32_t port) { (void)handle, (void)port; return 0; }
int xenevtchn_unbind(void *handle, uint32_t port) { (void)handle, (void)port; return 0; }
int xenevtchn_unmask(void *handle, uint32_t port) { (void)handle, (void)port; return 0; }
int xenevtchn_bind_virq(void *handle, unsigned virq_number) { (void)handle, (void)virq_number; return VIRQ_PORT; }

int xenevtchn_bind_interdomain(void *handle, uint32_t domid, uint32_t port)
{
    static int next = 10;

    (void)handle, (void)domid, (void)port;
    return next++;
}
