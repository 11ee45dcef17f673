/*
 * The `xl` of the agent, installed as SCRATCH/xl: logs its call and runs the real xl with the environment it needs, or
 * fails as SCRATCH/xl-mode says. In C, because the benchmarks measure its start.
 *
 *   SCRATCH/xl-env        lines KEY=VALUE (XL= names the real xl); set before exec
 *   SCRATCH/xl-calls.log  one line a call: CLOCK_MONOTONIC seconds, pid, arguments, tab separated
 *   SCRATCH/xl-mode       lines "SUBCOMMAND|* COUNT|- MODE [ARGUMENT]"; the first match is used, its COUNT decreases
 *     delay SECONDS   wait, then do it            hang      never return, do nothing
 *     refuse TEXT     print TEXT, exit 1          kill      end by SIGKILL, do nothing
 *     nothing         exit 0, do nothing          garbage   print unknown text, exit 0
 *     done-hang       do it, never return         done-kill do it, then end by SIGKILL
 *
 * If XENPLUG_BENCH_CONSOLE is set, the call is a person's: it is not logged and never fails on purpose.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define LINES 64

static char scratch[PATH_MAX];

static void find_scratch(void)
{
    ssize_t length = readlink("/proc/self/exe", scratch, sizeof scratch - 1);

    if (length <= 0)
        exit(127);
    scratch[length] = 0;
    *strrchr(scratch, '/') = 0;
}

static char *in_scratch(const char *name)
{
    static char path[PATH_MAX + 64];

    snprintf(path, sizeof path, "%s/%s", scratch, name);
    return path;
}

static void log_call(int argc, char **argv)
{
    char line[8192];
    struct timespec now;
    size_t used;
    int fd = open(in_scratch("xl-calls.log"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);

    clock_gettime(CLOCK_MONOTONIC, &now);
    used = snprintf(line, sizeof line, "%lld.%09ld\t%d", (long long)now.tv_sec, now.tv_nsec, getpid());
    for (int i = 1; i < argc && used < sizeof line - 1; i++)
        used += snprintf(line + used, sizeof line - used, "\t%s", argv[i]);
    if (used > sizeof line - 2)
        used = sizeof line - 2;
    line[used++] = '\n';
    if (fd < 0 || write(fd, line, used) < 0) /* one write: lines of concurrent calls never mix */
        exit(127);
    close(fd);
}

static void take_environment(void)
{
    char line[PATH_MAX + 64], *equals;
    FILE *file = fopen(in_scratch("xl-env"), "re");

    if (!file)
        exit(127);
    unsetenv("UMOCKDEV_DIR");
    while (fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = 0;
        equals = strchr(line, '=');
        if (equals) {
            *equals = 0;
            setenv(line, equals + 1, 1);
        }
    }
    fclose(file);
}

/* Does this line apply? If so, count it down in place and leave mode and argument in `rest`. */
static int fits(char *line, const char *command, char *rest)
{
    char name[64], count[16];
    int at = 0;

    if (sscanf(line, "%63s %15s %n", name, count, &at) < 2 || !at || !strcmp(count, "0"))
        return 0;
    if (strcmp(name, "*") && strcmp(name, command))
        return 0;
    snprintf(rest, 256, "%s", line + at);
    if (strcmp(count, "-"))
        snprintf(line, 384, "%s %d %s\n", name, atoi(count) - 1, rest);
    return 1;
}

static int find_mode(const char *command, char *rest)
{
    static char lines[LINES][384];
    int count = 0, found = 0;
    FILE *file = fopen(in_scratch("xl-mode"), "r+e");

    if (!file)
        return 0;
    flock(fileno(file), LOCK_EX);
    while (count < LINES && fgets(lines[count], sizeof lines[0], file)) {
        lines[count][strcspn(lines[count], "\n")] = 0;
        if (!found)
            found = fits(lines[count], command, rest);
        lines[count][strcspn(lines[count], "\n")] = 0;
        count++;
    }
    rewind(file);
    if (found && ftruncate(fileno(file), 0) == 0)
        for (int i = 0; i < count; i++)
            fprintf(file, "%s\n", lines[i]);
    fclose(file);
    return found;
}

static void hang(void)
{
    for (;;)
        pause();
}

static void do_it_first(char **argv)
{
    pid_t child = fork();

    if (child == 0) {
        execv(getenv("XL"), argv);
        _exit(127);
    }
    waitpid(child, NULL, 0);
}

static void delay(double seconds)
{
    struct timespec time = { (time_t)seconds, (long)((seconds - (time_t)seconds) * 1e9) };

    nanosleep(&time, NULL);
}

static void misbehave(char *rest, char **argv)
{
    char *mode = strtok(rest, " \n"), *argument = strtok(NULL, "\n");

    if (!strncmp(mode, "done-", 5)) {
        do_it_first(argv);
        mode += 5;
    }
    if (!strcmp(mode, "delay"))
        delay(argument ? atof(argument) : 1.0);
    else if (!strcmp(mode, "hang"))
        hang();
    else if (!strcmp(mode, "kill"))
        raise(SIGKILL);
    else if (!strcmp(mode, "nothing"))
        exit(0);
    else if (!strcmp(mode, "refuse")) {
        fprintf(stderr, "%s\n", argument ? argument : "refused by the bench");
        exit(1);
    } else if (!strcmp(mode, "garbage")) {
        printf("\001\377 Devid?? %%n\n  Port x: Buzz 0zz\n");
        exit(0);
    }
}

int main(int argc, char **argv)
{
    char rest[256] = "";

    find_scratch();
    take_environment();
    if (!getenv("XENPLUG_BENCH_CONSOLE")) {
        log_call(argc, argv);
        if (find_mode(argc > 1 ? argv[1] : "", rest))
            misbehave(rest, argv);
    }
    execv(getenv("XL"), argv);
    perror("xl");
    return 127;
}
