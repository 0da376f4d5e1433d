/* Times spawn to exit of several commands in turn, one process of each after the other, so that whatever the machine
 * does meanwhile hits them alike.
 *
 *   spawn ROUNDS TIMES -- [NAME=VALUE] COMMAND [ARGUMENT ...] [-- COMMAND ...]
 *
 * NAME=VALUE goes into the environment and stays there until another command sets it anew.
 *
 * Prints a line a round: the median of each command in microseconds. A '%' in an argument becomes a number that was
 * never used before, so that every call is a stranger. Any exit status but those a hook gives ends the run.
 */
#include <errno.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

extern char **environ;

enum { COMMANDS = 12, ARGUMENTS = 16, LONGEST = 256 };

static double microseconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* A fixed order would charge each command with the caches that the same other one left behind. */
static void shuffle(int *order, int n)
{
    int i, j, t;

    for (i = n - 1; i > 0; i--) {
        j = random() % (i + 1);
        t = order[i];
        order[i] = order[j];
        order[j] = t;
    }
}

static double run(char **command)
{
    static long serial;
    static char text[ARGUMENTS][LONGEST];
    char *argv[ARGUMENTS + 1];
    int i, status;
    pid_t child;
    double start;

    if (!serial) {
        struct timespec t;
        clock_gettime(CLOCK_REALTIME, &t);
        serial = t.tv_sec * 1000000000L + t.tv_nsec;
    }
    serial++;
    if (command[0][0] != '/')
        putenv(*command++);
    for (i = 0; command[i]; i++) {
        char *mark = strchr(command[i], '%');
        argv[i] = command[i];
        if (mark) {
            snprintf(text[i], LONGEST, "%.*s%ld%s", (int)(mark - command[i]), command[i],
                     serial, mark + 1);
            argv[i] = text[i];
        }
    }
    argv[i] = NULL;
    start = microseconds();
    errno = posix_spawn(&child, argv[0], NULL, NULL, argv, environ);
    if (errno) {
        perror(argv[0]);
        exit(1);
    }
    waitpid(child, &status, 0);
    start = microseconds() - start;
    if (!WIFEXITED(status) || (WEXITSTATUS(status) != 0 && WEXITSTATUS(status) != 111)) {
        fprintf(stderr, "%s: wait status %d\n", argv[0], status);
        exit(1);
    }
    return start;
}

int main(int argc, char **argv)
{
    char **commands[COMMANDS];
    int n = 0, i, round, rounds, times, c;
    double *taken[COMMANDS];
    int order[COMMANDS];

    if (argc < 5)
        return 2;
    rounds = atoi(argv[1]);
    times = atoi(argv[2]);
    for (i = 3; i < argc; i++)
        if (strcmp(argv[i], "--") == 0) {
            argv[i] = NULL;
            if (n < COMMANDS)
                commands[n++] = argv + i + 1;
        }
    for (c = 0; c < n; c++)
        taken[c] = malloc(times * sizeof(double)), order[c] = c;
    for (round = 0; round < rounds; round++) {
        for (i = 0; i < times; i++) {
            shuffle(order, n);
            for (c = 0; c < n; c++)
                taken[order[c]][i] = run(commands[order[c]]);
        }
        for (c = 0; c < n; c++) {
            qsort(taken[c], times, sizeof(double), ascending);
            printf("%.1f%c", taken[c][times / 2], c + 1 < n ? ' ' : '\n');
        }
        fflush(stdout);
    }
    return 0;
}
