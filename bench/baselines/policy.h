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

/* WHERE is a path, or a port of 127.0.0.1. The descriptor, or -1 and errno. */
static int connected(const char *where)
{
    struct sockaddr_in port = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_un path = {.sun_family = AF_UNIX};
    int s, local = where[0] == '/', on = 1;

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
    if ((local ? connect(s, (struct sockaddr *)&path, sizeof path)
               : connect(s, (struct sockaddr *)&port, sizeof port)) < 0) {
        close(s);
        return -1;
    }
    return s;
}

/* One question and its answer; the connection stays as it was. */
static int policy_asked(int s, const char *client, const char *sender, const char *recipient)
{
    char text[4096];
    int length, got, n;

    length = snprintf(text, sizeof text,
                      "request=smtpd_access_policy\nprotocol_state=RCPT\nprotocol_name=ESMTP\n"
                      "client_address=%s\nclient_name=unknown\nhelo_name=mail.example.org\n"
                      "sender=%s\nrecipient=%s\n\n", client, sender, recipient);
    if (length >= (int)sizeof text || write(s, text, length) != length)
        return NO_ANSWER;
    for (got = 0; got < 2 || memcmp(text + got - 2, "\n\n", 2) != 0; got += n) {
        n = read(s, text + got, sizeof text - 1 - got);
        if (n <= 0)
            return NO_ANSWER;
    }
    text[got] = 0;
    if (strncmp(text, "action=", 7) != 0)
        return NO_ANSWER;
    if (strncasecmp(text + 7, "defer", 5) == 0 || text[7] == '4')
        return DEFER;
    return strncasecmp(text + 7, "reject", 6) == 0 || text[7] == '5' ? REJECT : ACCEPT;
}
