/* Asks greylisters the same questions: daemons in their own protocols, and a hook by running it.
 *
 *   ask [-u] WAY WHERE CALLERS FILE
 *
 * WAY      policy (Postfix's protocol, a connection for each caller that stays), greylistd (its own: a connection for
 *          each question), or hook (a program run for each question, the client's address in TCPREMOTEIP).
 * WHERE    a path, or a port of 127.0.0.1; of a hook `PROGRAM` or `PROGRAM ARGUMENT`, before sender and recipient.
 * CALLERS  so many processes take turns through the file, each with one question at a time.
 * FILE     questions, with the answer that is due to each (questions.h).
 * -u       again and again through the file until standard input ends; a question that is then without an answer for
 *          two more seconds is given up, and counts with its time so far.
 *
 * Prints one line of JSON: seconds from the first question to the last answer, how often each answer came, how many
 * were not those due, and percentiles of a question's time, in seconds. Who gets no answer at all ends the run.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "questions.h"

enum { CALLERS = 64, SAMPLES = 1 << 22 };

struct shared {
    volatile int stop;
    struct caller {
        struct outcome outcome;
        /* When the question was put that waits for its answer. */
        volatile double asked;
    } callers[CALLERS];
    float times[];
};

static const char *where, *argument;

static int ask_policy(int s, const struct question *q)
{
    return policy_asked(s, q->client, q->sender, q->recipient);
}

static int ask_greylistd(int unused, const struct question *q)
{
    char text[2048];
    int s = connected(where), length, got = 0, n;

    (void)unused;
    if (s < 0)
        return NO_ANSWER;
    length = greylistd_question(text, sizeof text, q->client, q->sender, q->recipient);
    if (write(s, text, length) != length)
        fail(where);
    while ((n = read(s, text + got, sizeof text - 1 - got)) > 0)
        got += n;
    close(s);
    text[got] = 0;
    return greylistd_answer(text);
}

static int ask_hook(int unused, const struct question *q)
{
    static char client[128] = "TCPREMOTEIP=", store[1024] = "FASTGREY_STORE=";
    char *environment[] = {client, store, "PROTO=TCP", NULL};
    char *words[5] = {(char *)where}, **next = words + 1;
    pid_t child;
    int status;

    (void)unused;
    if (argument)
        *next++ = (char *)argument;
    *next++ = (char *)q->sender;
    *next = (char *)q->recipient;
    snprintf(client + 12, sizeof client - 12, "%s", q->client);
    snprintf(store + 15, sizeof store - 15, "%s", getenv("FASTGREY_STORE"));
    if ((errno = posix_spawn(&child, where, NULL, NULL, words, environment)) != 0)
        fail(where);
    if (waitpid(child, &status, 0) != child || !WIFEXITED(status))
        return NO_ANSWER;
    switch (WEXITSTATUS(status)) {
    case 0: return ACCEPT;
    case 100: return REJECT;
    case 111: return DEFER;
    }
    return NO_ANSWER;
}

static const struct way {
    const char *name;
    int (*ask)(int, const struct question *);
    int stays;
} ways[] = {{"policy", ask_policy, 1}, {"greylistd", ask_greylistd, 0}, {"hook", ask_hook, 0}};

static void call(const struct way *way, struct shared *shared, const struct question *all, long number, int which,
                 int callers, int until, int ready, int go)
{
    struct caller *me = &shared->callers[which];
    float *times = shared->times + which * (SAMPLES / callers);
    int s = way->stays ? connected(where) : -1;
    long i;
    char c = 0;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (way->stays && s < 0)
        fail(where);
    if (write(ready, &c, 1) != 1 || close(ready) < 0 || read(go, &c, 1) != 0)
        fail("start");
    for (i = which; until ? !shared->stop : i < number; i += callers) {
        const struct question *q = &all[i % number];
        double start = me->asked = now();
        int answer = way->ask(s, q);

        start = now() - start;
        me->asked = 0;
        if (me->outcome.samples < SAMPLES / callers)
            times[me->outcome.samples++] = start;
        answered(&me->outcome, q, answer, start);
        if (answer == NO_ANSWER)
            exit(1);
    }
    exit(0);
}

int main(int argc, char **argv)
{
    int until = argc > 1 && strcmp(argv[1], "-u") == 0, callers, ended = 0, failed = 0, i, status, ready[2], go[2];
    const struct way *way = ways;
    struct shared *shared;
    struct outcome sum = {.longest = 0};
    struct question *all;
    double start, patience;
    long number, n;
    pid_t child;
    char c;

    argc -= until, argv += until;
    callers = argc == 5 ? atoi(argv[3]) : 0;
    if (callers < 1 || callers > CALLERS)
        return 2;
    while (strcmp(way->name, argv[1]) != 0)
        if (++way == ways + sizeof ways / sizeof *ways)
            return 2;
    where = argv[2];
    if (way->ask == ask_hook && strchr(where, ' ')) {
        where = strtok(argv[2], " ");
        argument = strtok(NULL, " ");
    }
    all = questions(argv[4], &number);
    if ((!until && number > SAMPLES / callers) || (way->ask == ask_hook && !getenv("FASTGREY_STORE")))
        return 2;
    shared = mmap(NULL, sizeof *shared + SAMPLES * sizeof(float), PROT_READ | PROT_WRITE,
                  MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (shared == MAP_FAILED || pipe2(ready, O_CLOEXEC) < 0 || pipe2(go, O_CLOEXEC) < 0)
        fail("memory");
    for (i = 0; i < callers; i++) {
        child = fork();
        if (child < 0)
            fail("fork");
        if (child == 0) {
            close(go[1]);
            call(way, shared, all, number, i, callers, until, ready[1], go[0]);
        }
    }
    close(ready[1]);
    for (i = 0; i < callers; i++)
        if (read(ready[0], &c, 1) != 1)
            return 1;
    start = now();
    close(go[1]);
    while (until && read(0, &c, 1) > 0)
        ;
    shared->stop = until;
    for (patience = now() + 2; ended < callers && (!until || now() < patience); ended += child > 0) {
        child = waitpid(-1, &status, until ? WNOHANG : 0);
        failed |= child > 0 && status != 0;
        if (child == 0)
            usleep(5000);
    }
    start = now() - start;
    for (i = 0; i < callers; i++) {
        struct outcome *one = &shared->callers[i].outcome;
        double asked = shared->callers[i].asked, waits = asked ? now() - asked : 0;

        if (ended < callers && waits > one->longest)
            one->longest = waits;
        memmove(shared->times + sum.samples, shared->times + i * (SAMPLES / callers), one->samples * sizeof(float));
        sum.samples += one->samples;
        sum.wrong += one->wrong;
        sum.longest = one->longest > sum.longest ? one->longest : sum.longest;
        for (n = 0; n < ANSWERS; n++)
            sum.answers[n] += one->answers[n];
    }
    print_outcome(start, &sum, shared->times);
    return failed;
}
