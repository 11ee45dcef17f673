/*
 * Preloaded into Debian's unmodified xl: there is no hypervisor, so the few libxenctrl calls that xl makes are
 * answered here from a text file, and the paths of dom0's state are moved below a scratch folder.
 *
 *   XENPLUG_BENCH_ROOT     the scratch folder; "/sys/bus/usb" becomes "$ROOT/sys/bus/usb" and so on
 *   XENPLUG_BENCH_DOMAINS  lines "DOMID pv|pvh|hvm UUID [FLAGS]"; flags: p paused, s shut down, u suspended,
 *                          d dying
 *
 * Everything else (parsing, libxl, locks, xenstore, QMP) is real.
 */
#define _GNU_SOURCE
#define __XEN_TOOLS__ 1
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <xen/xen.h>
#include <xen/domctl.h>
#include <xen/sched.h>
#include <xen/sysctl.h>
#include <xen/version.h>

/* ---- paths ------------------------------------------------------------------------------------------------- */

static const char *moved(const char *path, char *buffer)
{
    static const char *const prefixes[] = { "/sys/bus/", "/var/lib/xen", "/var/run/xen/", "/var/lock", "/run/lock",
                                            "/etc/xen", NULL };
    const char *root = getenv("XENPLUG_BENCH_ROOT");

    if (!path || !root)
        return path;
    for (int i = 0; prefixes[i]; i++)
        if (!strncmp(path, prefixes[i], strlen(prefixes[i]))) {
            snprintf(buffer, PATH_MAX, "%s%s", root, path);
            return buffer;
        }
    return path;
}

#define REAL(name)                                  \
    static __typeof__(&name) real;                  \
    if (!real)                                      \
        real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

#define MOVE_1(type, name)                          \
    type name(const char *path)                     \
    {                                               \
        char buffer[PATH_MAX];                      \
        REAL(name);                                 \
        return real(moved(path, buffer));           \
    }

#define MOVE_2(type, name, second)                  \
    type name(const char *path, second argument)    \
    {                                               \
        char buffer[PATH_MAX];                      \
        REAL(name);                                 \
        return real(moved(path, buffer), argument); \
    }

#define MOVE_OPEN(name)                             \
    int name(const char *path, int flags, ...)      \
    {                                               \
        char buffer[PATH_MAX];                      \
        mode_t mode = 0;                            \
        REAL(name);                                 \
        if (flags & O_CREAT) {                      \
            va_list rest;                           \
            va_start(rest, flags);                  \
            mode = va_arg(rest, mode_t);            \
            va_end(rest);                           \
        }                                           \
        return real(moved(path, buffer), flags, mode); \
    }

MOVE_OPEN(open)
MOVE_OPEN(open64)
MOVE_1(DIR *, opendir)
MOVE_1(int, unlink)
MOVE_2(int, stat, struct stat *)
MOVE_2(int, lstat, struct stat *)
MOVE_2(int, stat64, struct stat64 *)
MOVE_2(int, lstat64, struct stat64 *)
MOVE_2(int, mkdir, mode_t)
MOVE_2(int, access, int)
MOVE_2(FILE *, fopen, const char *)
MOVE_2(FILE *, fopen64, const char *)
MOVE_2(char *, realpath, char *)

ssize_t readlink(const char *path, char *target, size_t size)
{
    char buffer[PATH_MAX];
    REAL(readlink);
    return real(moved(path, buffer), target, size);
}

int rename(const char *from, const char *to)
{
    char old[PATH_MAX], new[PATH_MAX];
    REAL(rename);
    return real(moved(from, old), moved(to, new));
}

/* The device model's QMP socket lives in /var/run/xen. */
int connect(int fd, const struct sockaddr *address, socklen_t length)
{
    struct sockaddr_un local = { .sun_family = AF_UNIX };
    char buffer[PATH_MAX];
    const char *path;
    static int (*real)(int, const struct sockaddr *, socklen_t);

    if (!real)
        real = (int (*)(int, const struct sockaddr *, socklen_t))dlsym(RTLD_NEXT, "connect");
    if (address->sa_family != AF_UNIX)
        return real(fd, address, length);
    path = ((const struct sockaddr_un *)address)->sun_path;
    if (moved(path, buffer) == path)
        return real(fd, address, length);
    if (strlen(buffer) >= sizeof local.sun_path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    strcpy(local.sun_path, buffer);
    return real(fd, (struct sockaddr *)&local, sizeof local);
}

/* ---- libxenctrl -------------------------------------------------------------------------------------------- */

void *xc_interface_open(void *logger, void *dombuild, unsigned flags)
{
    (void)logger, (void)dombuild, (void)flags;
    return (void *)0x1000;
}

int xc_interface_close(void *xch)
{
    (void)xch;
    return 0;
}

static void set_handle(xen_domctl_getdomaininfo_t *info, const char *uuid)
{
    unsigned byte;

    for (int i = 0; i < 16 && *uuid; uuid += *uuid == '-' ? 1 : 2)
        if (*uuid != '-' && sscanf(uuid, "%2x", &byte) == 1)
            info->handle[i++] = byte;
}

static void set_flags(xen_domctl_getdomaininfo_t *info, const char *type, const char *flags)
{
    if (strcmp(type, "pv"))
        info->flags |= XEN_DOMINF_hvm_guest;
    if (strchr(flags, 'p'))
        info->flags |= XEN_DOMINF_paused;
    if (strchr(flags, 's'))
        info->flags |= XEN_DOMINF_shutdown;
    if (strchr(flags, 'u'))
        info->flags |= XEN_DOMINF_shutdown | SHUTDOWN_suspend << XEN_DOMINF_shutdownshift;
    if (strchr(flags, 'd'))
        info->flags |= XEN_DOMINF_dying;
}

int xc_domain_getinfolist(void *xch, uint32_t first, unsigned max, xen_domctl_getdomaininfo_t *info)
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
        info[count].domain = id;
        info[count].nr_online_vcpus = 1;
        info[count].tot_pages = info[count].max_pages = 65536;
        set_flags(&info[count], type, flags);
        set_handle(&info[count], uuid);
        count++;
    }
    fclose(file);
    return count;
}

int xc_version(void *xch, int command, void *argument)
{
    static const size_t sizes[] = {
        [XENVER_extraversion] = sizeof(xen_extraversion_t), [XENVER_compile_info] = sizeof(xen_compile_info_t),
        [XENVER_capabilities] = sizeof(xen_capabilities_info_t), [XENVER_changeset] = sizeof(xen_changeset_info_t),
        [XENVER_platform_parameters] = sizeof(xen_platform_parameters_t),
        [XENVER_commandline] = sizeof(xen_commandline_t),
    };

    (void)xch;
    if (command == XENVER_version)
        return (4 << 16) | 17;
    if (command == XENVER_pagesize) /* no argument; `xl info` divides by it */
        return 4096;
    if (argument && command < (int)(sizeof sizes / sizeof *sizes))
        memset(argument, 0, sizes[command]);
    return 0;
}

int xc_physinfo(void *xch, struct xen_sysctl_physinfo *info)
{
    (void)xch;
    memset(info, 0, sizeof *info);
    info->nr_cpus = 4;
    info->max_cpu_id = 3;
    info->nr_nodes = info->threads_per_core = 1;
    info->cores_per_socket = 4;
    info->total_pages = 1 << 20;
    info->free_pages = 1 << 19;
    info->capabilities = XEN_SYSCTL_PHYSCAP_hvm | XEN_SYSCTL_PHYSCAP_pv | XEN_SYSCTL_PHYSCAP_directio;
    return 0;
}

int xc_get_max_cpus(void *xch) { (void)xch; return 4; }
int xc_get_max_nodes(void *xch) { (void)xch; return 1; }
int xc_sched_id(void *xch, int *id) { (void)xch; *id = XEN_SCHEDULER_CREDIT; return 0; }
int xc_sched_credit_domain_get(void *xch, uint32_t domid, void *out) { (void)xch, (void)domid, (void)out; return 0; }
int xc_sharing_freed_pages(void *xch) { (void)xch; return 0; }
int xc_sharing_used_frames(void *xch) { (void)xch; return 0; }

int xc_flask_sid_to_context(void *xch, int sid, char *buffer, uint32_t size)
{
    (void)xch, (void)sid, (void)buffer, (void)size;
    errno = ENOSYS;
    return -1;
}

/* One pool holds every domain; xl list asks for it. Layout of xc_cpupoolinfo_t (xenctrl.h). */
void *xc_cpupool_getinfo(void *xch, uint32_t id)
{
    struct { uint32_t id, scheduler, domains; void *cpus; } *pool = calloc(1, sizeof *pool);

    (void)xch;
    pool->id = id;
    pool->scheduler = XEN_SCHEDULER_CREDIT;
    pool->cpus = calloc(1, 8);
    return pool;
}

void xc_cpupool_infofree(void *xch, void *info) { (void)xch, (void)info; }
void *xc_cpupool_freeinfo(void *xch) { (void)xch; return calloc(1, 8); }

/* PCI: an errno from the environment stands for the hypervisor's refusal. */
static int refused(const char *variable)
{
    const char *value = getenv(variable);

    if (!value)
        return 0;
    errno = atoi(value);
    return -1;
}

int xc_assign_device(void *xch, uint32_t domid, uint32_t bdf, uint32_t flags)
{
    (void)xch, (void)domid, (void)bdf, (void)flags;
    return refused("XENPLUG_BENCH_ASSIGN_ERRNO");
}

int xc_deassign_device(void *xch, uint32_t domid, uint32_t bdf)
{
    (void)xch, (void)domid, (void)bdf;
    return refused("XENPLUG_BENCH_DEASSIGN_ERRNO");
}

int xc_test_assign_device(void *xch, uint32_t domid, uint32_t bdf)
{
    (void)xch, (void)domid, (void)bdf;
    return refused("XENPLUG_BENCH_TEST_ASSIGN_ERRNO");
}
