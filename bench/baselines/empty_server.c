/* A policy server that decides nothing: it reads until the empty line and writes the same answer to everybody. What is
 * left is the protocol and the kernel, the limit of any server that is asked this way.
 *
 *   empty_server PROCESSES WHERE ...
 *
 * WHERE is a path, or a port of 127.0.0.1. Connections go to the processes in turn. The first that fails ends them all.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "policy.h"

enum { LISTENERS = 4, DESCRIPTORS = 8192, TOGETHER = 64 };

static const char answer[] = "action=DUNNO\n\n";

static void watch(int queue, int s)
{
    struct epoll_event wanted = {.events = EPOLLIN, .data.fd = s};

    if (epoll_ctl(queue, EPOLL_CTL_ADD, s, &wanted) < 0)
        exit(1);
}

/* turn: whose the next connection is, modulo the number of processes. The others look again until it is taken. */
static void serve(const int *listeners, int number, int which, int processes, volatile unsigned *turn)
{
    /* The last byte that came in on a connection. */
    static char last[DESCRIPTORS];
    struct epoll_event ready[TOGETHER];
    char text[65536];
    int queue = epoll_create1(EPOLL_CLOEXEC), n, i, k, got, s;

    for (k = 0; k < number; k++)
        watch(queue, listeners[k]);
    while ((n = epoll_wait(queue, ready, TOGETHER, -1)) > 0 || errno == EINTR) {
        for (i = 0; i < n; i++) {
            s = ready[i].data.fd;
            for (k = 0; k < number && s != listeners[k]; k++)
                ;
            if (k < number) {
                if (*turn % processes == (unsigned)which && (s = accept(s, NULL, NULL)) >= 0) {
                    if (s >= DESCRIPTORS)
                        exit(1);
                    last[s] = 0;
                    watch(queue, s);
                    ++*turn;
                }
                continue;
            }
            got = read(s, text, sizeof text);
            if (got <= 0) {
                close(s);
                continue;
            }
            if (text[got - 1] == '\n' && (got > 1 ? text[got - 2] : last[s]) == '\n'
                && write(s, answer, sizeof answer - 1) < 0)
                close(s);
            last[s] = text[got - 1];
        }
    }
    exit(1);
}

int main(int argc, char **argv)
{
    int processes = argc > 2 && argc <= 2 + LISTENERS ? atoi(argv[1]) : 0, listeners[LISTENERS], i;
    volatile unsigned *turn = mmap(NULL, sizeof *turn, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    if (processes < 1 || turn == MAP_FAILED)
        return 2;
    signal(SIGPIPE, SIG_IGN);
    for (i = 2; i < argc; i++) {
        listeners[i - 2] = socket_of(argv[i], 1);
        /* Another process may have taken the connection that this one was woken for. */
        if (listeners[i - 2] < 0 || fcntl(listeners[i - 2], F_SETFL, O_NONBLOCK) < 0) {
            perror(argv[i]);
            return 1;
        }
    }
    for (i = 0; i < processes; i++)
        if (fork() == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            serve(listeners, argc - 2, i, processes, turn);
        }
    wait(NULL);
    return 1;
}
