/* Runs the hook for one request after the other, as fast as they are answered, each in a process of its own.
 *
 *   replay HOOK <REQUESTS
 *
 * A request is a line: client, sender and recipient with tabs between them. Prints for each: Unix seconds when it was
 * begun and when it had ended, exit status, microseconds from spawn to exit.
 */
#include <errno.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

extern char **environ;

int main(int argc, char **argv)
{
    char line[4096];
    struct timespec begun, ended, from, to;
    pid_t child;
    int status;

    if (argc != 2)
        return 2;
    while (fgets(line, sizeof line, stdin)) {
        char *sender = strchr(line, '\t'), *recipient = sender ? strchr(sender + 1, '\t') : NULL;
        char *words[] = {argv[1], NULL, NULL, NULL};

        if (!recipient)
            return 2;
        *sender = *recipient = 0;
        recipient[1 + strcspn(recipient + 1, "\n")] = 0;
        words[1] = sender + 1;
        words[2] = recipient + 1;
        if (setenv("TCPREMOTEIP", line, 1) != 0)
            return 2;
        clock_gettime(CLOCK_REALTIME, &begun);
        clock_gettime(CLOCK_MONOTONIC, &from);
        errno = posix_spawn(&child, argv[1], NULL, NULL, words, environ);
        if (errno) {
            perror(argv[1]);
            return 1;
        }
        waitpid(child, &status, 0);
        clock_gettime(CLOCK_MONOTONIC, &to);
        clock_gettime(CLOCK_REALTIME, &ended);
        if (!WIFEXITED(status))
            return 1;
        printf("%ld %ld %d %.1f\n", (long)begun.tv_sec, (long)ended.tv_sec, WEXITSTATUS(status),
               (to.tv_sec - from.tv_sec) * 1e6 + (to.tv_nsec - from.tv_nsec) / 1e3);
    }
    return 0;
}
