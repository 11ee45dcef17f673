/*
 * Preloaded into the agent: simulates a host without free resources. A file in $XENPLUG_BENCH_FAULTS enables a
 * fault for as long as it exists:
 *   disk-full   write and pwrite to regular files below the folder's own parent, except stdout and stderr: ENOSPC
 *   no-fork     fork and vfork: EAGAIN (RLIMIT_NPROC and pids.max, which spare root or need a cgroup)
 * Programs that the agent starts are not affected: the variable is removed from the environment at once.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static char folder[PATH_MAX];

__attribute__((constructor)) static void begin(void)
{
    const char *told = getenv("XENPLUG_BENCH_FAULTS");

    snprintf(folder, sizeof folder, "%s", told ? told : "");
    unsetenv("XENPLUG_BENCH_FAULTS");
}

static int asked(const char *name)
{
    char path[PATH_MAX + 32];
    int before = errno, there;

    if (!*folder)
        return 0;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    there = access(path, F_OK) == 0;
    errno = before;
    return there;
}

static int full(int fd)
{
    char link[64], path[PATH_MAX];
    const char *end = strrchr(folder, '/');
    ssize_t length;

    if (fd <= 2 || !end || !asked("disk-full"))
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    length = readlink(link, path, sizeof path);
    return length > end - folder && strncmp(path, folder, end - folder + 1) == 0;
}

ssize_t write(int fd, const void *data, size_t size)
{
    static ssize_t (*real)(int, const void *, size_t);

    if (!real)
        real = dlsym(RTLD_NEXT, "write");
    if (full(fd)) {
        errno = ENOSPC;
        return -1;
    }
    return real(fd, data, size);
}

static ssize_t pwrite_or_full(int fd, const void *data, size_t size, off64_t at)
{
    static ssize_t (*real)(int, const void *, size_t, off64_t);

    if (!real)
        real = dlsym(RTLD_NEXT, "pwrite64");
    if (full(fd)) {
        errno = ENOSPC;
        return -1;
    }
    return real(fd, data, size, at);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at)
{
    return pwrite_or_full(fd, data, size, at);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at)
{
    return pwrite_or_full(fd, data, size, at);
}

pid_t fork(void)
{
    static pid_t (*real)(void);

    if (!real)
        real = dlsym(RTLD_NEXT, "fork");
    if (asked("no-fork")) {
        errno = EAGAIN;
        return -1;
    }
    return real();
}

/* A vfork cannot be passed on: it returns twice through this frame. fork does as well for a test. */
pid_t vfork(void)
{
    return fork();
}
