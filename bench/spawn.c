/* Times spawn to exit of several commands in turn, so that whatever the machine does meanwhile hits them alike.
 *
 *   spawn TIMES CALLERS -- [NAME=VALUE ...] COMMAND [ARGUMENT ...] [-- ...]
 *
 * NAME=VALUE goes into the environment and stays there until another command sets it anew. A '%' in an argument becomes
 * a number that was never used before, so that every call is a stranger; a '#' becomes the next of the numbers 0 to 199.
 *
 * With one caller a process of each command runs after the other, and printed is the median of each in microseconds. With
 * more, each command has so many callers at once for a while and then the next command has: what a process takes then
 * depends on whom it meets, so printed is the time of all by their number (the median of BLOCKS such turns). TIMES
 * processes of each are run by each caller. Any exit status but those a hook gives ends the run.
 */
#include <errno.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

enum { COMMANDS = 12, ARGUMENTS = 16, LONGEST = 256, BLOCKS = 5, KNOWN = 200 };

static long serial;

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
    static char text[ARGUMENTS][LONGEST];
    char *argv[ARGUMENTS + 1];
    int i, status;
    pid_t child;
    double start;

    serial++;
    for (; command[0][0] != '/'; command++)
        putenv(command[0]);
    for (i = 0; command[i] && i < ARGUMENTS; i++) {
        char *mark = strpbrk(command[i], "%#");
        argv[i] = command[i];
        if (mark) {
            snprintf(text[i], LONGEST, "%.*s%ld%s", (int)(mark - command[i]), command[i],
                     *mark == '#' ? serial % KNOWN : serial, mark + 1);
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
    if (!WIFEXITED(status)
        || (WEXITSTATUS(status) != 0 && WEXITSTATUS(status) != 100 && WEXITSTATUS(status) != 111)) {
        fprintf(stderr, "%s: wait status %d\n", argv[0], status);
        exit(1);
    }
    return start;
}

/* The time of so many callers at once, by the number of processes. The callers are there before the clock is. */
static double together(char **command, int times, int callers)
{
    int i, k, gate[2], status, failed = 0;
    double start;
    char end;

    if (pipe(gate) != 0)
        exit(1);
    for (i = 0; i < callers; i++)
        if (fork() == 0) {
            serial += (long)i * 1000003;
            close(gate[1]);
            /* Ends when the parent closes the gate. */
            if (read(gate[0], &end, 1) != 0)
                _exit(1);
            close(gate[0]);
            for (k = 0; k < times; k++)
                run(command);
            _exit(0);
        }
    close(gate[0]);
    start = microseconds();
    close(gate[1]);
    for (i = 0; i < callers; i++)
        if (wait(&status) < 0 || status != 0)
            failed = 1;
    if (failed)
        exit(1);
    serial += (long)callers * 1000003;
    return (microseconds() - start) / ((double)times * callers);
}

int main(int argc, char **argv)
{
    char **commands[COMMANDS];
    int n = 0, i, c, times, callers, order[COMMANDS];
    double *taken[COMMANDS];
    struct timespec t;

    if (argc < 5)
        return 2;
    times = atoi(argv[1]);
    callers = atoi(argv[2]);
    for (i = 3; i < argc; i++)
        if (strcmp(argv[i], "--") == 0) {
            argv[i] = NULL;
            if (n == COMMANDS || i + 1 == argc)
                return 2;
            commands[n++] = argv + i + 1;
        }
    clock_gettime(CLOCK_REALTIME, &t);
    serial = t.tv_sec * 1000000000L + t.tv_nsec;
    if (callers > 1)
        times = (times + BLOCKS - 1) / BLOCKS;
    for (c = 0; c < n; c++)
        taken[c] = malloc((callers > 1 ? BLOCKS : times) * sizeof(double)), order[c] = c;
    for (i = 0; i < (callers > 1 ? BLOCKS : times); i++) {
        shuffle(order, n);
        for (c = 0; c < n; c++)
            taken[order[c]][i] = callers > 1 ? together(commands[order[c]], times, callers) : run(commands[order[c]]);
    }
    times = callers > 1 ? BLOCKS : times;
    for (c = 0; c < n; c++) {
        qsort(taken[c], times, sizeof(double), ascending);
        printf("%.1f%c", taken[c][times / 2], c + 1 < n ? ' ' : '\n');
    }
    return 0;
}
