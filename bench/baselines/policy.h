/* A question in the protocol that Postfix asks policy servers in, over a socket of the file system or of loopback. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* What an answer comes to. */
enum { ACCEPT, DEFER, REJECT, NO_ANSWER, ANSWERS };

/* WHERE is a path, or a port of 127.0.0.1. Bound and listened on, or connected; the descriptor, or -1 and errno. */
static int socket_of(const char *where, int listens)
{
    struct sockaddr_in port = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_un path = {.sun_family = AF_UNIX};
    int s, local = where[0] == '/', on = 1, done;
    struct sockaddr *address = local ? (struct sockaddr *)&path : (struct sockaddr *)&port;
    socklen_t size = local ? sizeof path : sizeof port;

    if (local && strlen(where) >= sizeof path.sun_path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    port.sin_port = htons(atoi(where));
    strncpy(path.sun_path, where, sizeof path.sun_path - 1);
    s = socket(local ? AF_UNIX : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (s < 0)
        return -1;
    if (!local)
        setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (listens) {
        setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        done = bind(s, address, size) == 0 && listen(s, SOMAXCONN) == 0;
    } else {
        done = connect(s, address, size) == 0;
    }
    if (!done) {
        close(s);
        return -1;
    }
    return s;
}

static inline int connected(const char *where)
{
    return socket_of(where, 0);
}

/* A question as Postfix 3.7 puts it, of another message each time; its length, or -1. */
static inline int policy_question(char *text, size_t room, const char *client, const char *sender,
                                  const char *recipient)
{
    static unsigned messages;
    int length = snprintf(
        text, room,
        "request=smtpd_access_policy\nprotocol_state=RCPT\nprotocol_name=ESMTP\nclient_address=%s\n"
        "client_name=unknown\nclient_port=40000\nreverse_client_name=unknown\nserver_address=127.0.0.1\n"
        "server_port=25\nhelo_name=mail.example.org\nsender=%s\nrecipient=%s\nrecipient_count=0\nqueue_id=\n"
        "instance=%x.%x.0\nsize=1234\netrn_domain=\nstress=\nsasl_method=\nsasl_username=\nsasl_sender=\n"
        "ccert_subject=\nccert_issuer=\nccert_fingerprint=\nccert_pubkey_fingerprint=\nencryption_protocol=\n"
        "encryption_cipher=\nencryption_keysize=0\npolicy_context=\n\n",
        client, sender, recipient, getpid(), ++messages);

    return length < (int)room ? length : -1;
}

/* Whether what has come is an answer: 0 not yet all of it, -1 that and more. */
static inline int policy_complete(const char *text)
{
    const char *end = strstr(text, "\n\n");

    return !end ? 0 : end[2] ? -1 : 1;
}

static inline int policy_answer(const char *text)
{
    if (strncmp(text, "action=", 7) != 0)
        return NO_ANSWER;
    if (strncasecmp(text + 7, "defer", 5) == 0 || text[7] == '4')
        return DEFER;
    return strncasecmp(text + 7, "reject", 6) == 0 || text[7] == '5' ? REJECT : ACCEPT;
}

/* One question and its answer; the connection stays as it was. */
static inline int policy_asked(int s, const char *client, const char *sender, const char *recipient)
{
    char text[4096];
    int length = policy_question(text, sizeof text, client, sender, recipient), got = 0, n, complete;

    if (length < 0 || write(s, text, length) != length)
        return NO_ANSWER;
    do {
        n = read(s, text + got, sizeof text - 1 - got);
        if (n <= 0)
            return NO_ANSWER;
        got += n;
        text[got] = 0;
    } while ((complete = policy_complete(text)) == 0);
    return complete > 0 ? policy_answer(text) : NO_ANSWER;
}
