/* A checker that decides nothing itself: it asks a postgrey that is running, as qmails do that have a program run for
 * every recipient and leave the decision to that daemon.
 *
 *   ask_postgrey SOCKET SENDER RECIPIENT        the client's address in TCPREMOTEIP
 *
 * SOCKET is a path, or a port of 127.0.0.1. Ends with 0 to accept, 100 to reject, 111 to defer, 2 without an answer,
 * and says so in a line on standard error, as a hook does.
 */
#include "policy.h"

int main(int argc, char **argv)
{
    static const int statuses[ANSWERS] = {[ACCEPT] = 0, [DEFER] = 111, [REJECT] = 100, [NO_ANSWER] = 2};
    static const char *const words[ANSWERS] = {"accept", "defer", "reject", "no answer"};
    const char *client = getenv("TCPREMOTEIP");
    int s, answer;

    if (argc != 4 || !client || (s = connected(argv[1])) < 0)
        return 2;
    answer = policy_asked(s, client, argv[2], argv[3]);
    dprintf(2, "ask_postgrey: %s client=%s sender=%s recipient=%s\n", words[answer], client, argv[2], argv[3]);
    return statuses[answer];
}
