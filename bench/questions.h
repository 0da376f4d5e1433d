/* What those that ask have in common: questions out of a file, greylistd's protocol, and what the answers came to.
 *
 * A file has a question a line: `accept CLIENT SENDER RECIPIENT` or `defer ...`, with the answer that is due.
 * To be included after _GNU_SOURCE is defined.
 */
#include <time.h>

#include "baselines/policy.h"

struct question {
    int due;
    const char *client, *sender, *recipient;
};

/* Of the questions asked so far; times, in seconds, are kept elsewhere. */
struct outcome {
    long answers[ANSWERS], wrong, samples;
    double longest;
};

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void fail(const char *what)
{
    fprintf(stderr, "%s: %s: %s\n", program_invocation_short_name, what, errno ? strerror(errno) : "cannot be");
    exit(1);
}

static struct question *questions(const char *file, long *number)
{
    FILE *in = fopen(file, "r");
    char *line = NULL;
    size_t room = 0;
    struct question *all = NULL;

    if (!in)
        fail(file);
    for (*number = 0; getline(&line, &room, in) > 0; line = NULL) {
        struct question *q;
        char *due = strtok(line, " \n");

        if ((*number & (*number - 1)) == 0 && !(all = realloc(all, (*number ? 2 * *number : 1) * sizeof *all)))
            fail(file);
        q = &all[(*number)++];
        q->client = strtok(NULL, " \n");
        q->sender = strtok(NULL, " \n");
        q->recipient = strtok(NULL, " \n");
        if (!q->recipient || (strcmp(due, "accept") != 0 && strcmp(due, "defer") != 0))
            errno = 0, fail(file);
        q->due = due[0] == 'a' ? ACCEPT : DEFER;
    }
    fclose(in);
    if (*number == 0)
        errno = 0, fail(file);
    return all;
}

static int greylistd_question(char *text, size_t room, const char *client, const char *sender, const char *recipient)
{
    int length = snprintf(text, room, "update %s %s %s", client, sender, recipient);

    return length < (int)room ? length : -1;
}

static int greylistd_answer(const char *text)
{
    static const char *const words[NO_ANSWER] = {[ACCEPT] = "white", [DEFER] = "grey", [REJECT] = "black"};
    int answer;

    for (answer = 0; answer < NO_ANSWER && strcmp(text, words[answer]) != 0; answer++)
        ;
    return answer;
}

/* Takes down the answer to a question; the first that is not the one due is said. */
static void answered(struct outcome *outcome, const struct question *q, int answer, double took)
{
    if (took > outcome->longest)
        outcome->longest = took;
    outcome->answers[answer]++;
    if (answer != q->due && !outcome->wrong++)
        fprintf(stderr, "%s: not the answer due: %s %s %s\n", program_invocation_short_name, q->client, q->sender,
                q->recipient);
}

static int ascending(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* The line of JSON; the times are sorted. */
static void print_outcome(double seconds, const struct outcome *outcome, float *times)
{
    qsort(times, outcome->samples, sizeof *times, ascending);
    printf("{\"seconds\": %.6f, \"accept\": %ld, \"defer\": %ld, \"reject\": %ld, \"none\": %ld, \"wrong\": %ld, "
           "\"longest\": %.6f", seconds, outcome->answers[ACCEPT], outcome->answers[DEFER], outcome->answers[REJECT],
           outcome->answers[NO_ANSWER], outcome->wrong, outcome->longest);
    if (outcome->samples)
        printf(", \"p50\": %.6f, \"p99\": %.6f, \"p999\": %.6f", times[outcome->samples / 2],
               times[outcome->samples * 99 / 100], times[outcome->samples * 999 / 1000]);
    printf("}\n");
}
