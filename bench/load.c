/* Asks a daemon many questions at once out of one process: each connection puts the next question as soon as the one
 * before has its answer.
 *
 *   load WAY WHERE CONNECTIONS FILE
 *
 * WAY          policy or greylistd, as of ask (ask.c).
 * WHERE        a path, or a port of 127.0.0.1.
 * CONNECTIONS  so many at once; greylistd's are new for each question.
 * FILE         questions, with the answer that is due to each (questions.h); more of them than connections.
 *
 * The bytes of all questions are made before the first is put. The first one of each connection is checked and not
 * timed: making a connection is not what is measured. Prints the line of JSON that ask prints, of the questions that
 * were timed. Who gets no answer within PATIENCE milliseconds, or more than an answer, ends the run.
 */
#define _GNU_SOURCE
#include <sys/epoll.h>
#include <sys/resource.h>

#include "questions.h"

enum { CONNECTIONS = 4096, PATIENCE = 10000, TOGETHER = 64, ANSWER_MAX = 1024 };

static const struct way {
    const char *name;
    int (*question)(char *, size_t, const char *, const char *, const char *);
    int (*answer)(const char *);
    int stays;
} ways[] = {{"policy", policy_question, policy_answer, 1}, {"greylistd", greylistd_question, greylistd_answer, 0}};

static struct connection {
    int s, got;
    long question;
    double asked;
    char text[ANSWER_MAX];
} connections[CONNECTIONS];

static const struct way *way = ways;
static const char *where;
static struct question *all;
/* All that is sent, and where in it each question begins. */
static char *sent;
static size_t *begins;
static int queue;

static void prepare(long number)
{
    char text[4096];
    size_t size;
    FILE *out = open_memstream(&sent, &size);
    long i;

    begins = calloc(number + 1, sizeof *begins);
    if (!out || !begins)
        fail("memory");
    for (i = 0; i < number; i++) {
        const struct question *q = &all[i];
        int length = way->question(text, sizeof text, q->client, q->sender, q->recipient);

        if (length < 0 || fwrite(text, 1, length, out) != (size_t)length)
            fail(q->sender);
        begins[i + 1] = begins[i] + length;
    }
    if (fclose(out) != 0)
        fail("memory");
}

static void join(struct connection *c)
{
    struct epoll_event wanted = {.events = EPOLLIN, .data.ptr = c};

    if ((c->s = connected(where)) < 0 || epoll_ctl(queue, EPOLL_CTL_ADD, c->s, &wanted) < 0)
        fail(where);
}

static void put(struct connection *c, long question, double when)
{
    size_t length = begins[question + 1] - begins[question];

    c->question = question;
    c->asked = when;
    c->got = 0;
    if (!way->stays)
        join(c);
    if (write(c->s, sent + begins[question], length) != (ssize_t)length)
        fail(where);
}

/* Whether all of the answer is there. */
static int heard(struct connection *c)
{
    int n = read(c->s, c->text + c->got, sizeof c->text - 1 - c->got), complete;

    if (n < 0)
        fail(where);
    c->got += n;
    c->text[c->got] = 0;
    complete = way->stays ? policy_complete(c->text) : n == 0;
    if (way->stays && (n == 0 || complete < 0)) {
        errno = n == 0 ? ECONNRESET : EPROTO;
        fail(where);
    }
    if (complete && !way->stays)
        close(c->s);
    return complete;
}

/* Asks these questions over so many connections, until each has its answer; seconds from the first to the last. */
static double ask(long question, long end, int number, struct outcome *outcome, float *times)
{
    struct epoll_event ready[TOGETHER];
    double start = now(), when = start;
    int waiting = 0, n, i;

    while (waiting < number && question < end)
        put(&connections[waiting++], question++, now());
    while (waiting) {
        n = epoll_wait(queue, ready, TOGETHER, PATIENCE);
        if (n <= 0) {
            errno = n < 0 ? errno : ETIMEDOUT;
            fail(where);
        }
        for (i = 0; i < n; i++) {
            struct connection *c = ready[i].data.ptr;

            if (!heard(c))
                continue;
            when = now();
            times[outcome->samples++] = when - c->asked;
            answered(outcome, &all[c->question], way->answer(c->text), when - c->asked);
            if (outcome->answers[NO_ANSWER])
                exit(1);
            if (question < end)
                put(c, question++, when);
            else
                waiting--;
        }
    }
    return when - start;
}

int main(int argc, char **argv)
{
    struct rlimit files;
    struct outcome untimed = {.longest = 0}, timed = untimed;
    double seconds;
    float *times;
    long number;
    int callers = argc == 5 ? atoi(argv[3]) : 0, i;

    if (callers < 1 || callers > CONNECTIONS)
        return 2;
    while (strcmp(way->name, argv[1]) != 0)
        if (++way == ways + sizeof ways / sizeof *ways)
            return 2;
    where = argv[2];
    all = questions(argv[4], &number);
    if (number <= callers)
        return 2;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    prepare(number);
    times = calloc(number, sizeof *times);
    queue = epoll_create1(EPOLL_CLOEXEC);
    if (!times || queue < 0)
        fail("memory");
    for (i = 0; i < callers && way->stays; i++)
        join(&connections[i]);
    ask(0, callers, callers, &untimed, times);
    seconds = ask(callers, number, callers, &timed, times);
    timed.wrong += untimed.wrong;
    print_outcome(seconds, &timed, times);
    return 0;
}
