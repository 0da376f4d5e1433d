/* A mail server for tests: one SMTP session on descriptors 0 and 1, as tcpserver starts it, with checkenv() in the
   place that it has in qmail-smtpd. It runs in what stands for qmail's home.

   SPOOL names a directory. It gets a file for each message taken: the envelope as qmail-queue reads it ("F", sender,
   NUL; "T", recipient, NUL for each; NUL), then the message with LF at the end of its lines. */

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "checkenv.h"

#ifndef TIMEOUT_MS
#define TIMEOUT_MS 30000
#endif

enum { LINE_SIZE = 65536, ADDRESS_SIZE = 900 };

struct bytes {
  char *start;
  size_t size;
  size_t room;
};

static struct bytes output;
static struct bytes sender;
static struct bytes recipients;
static struct bytes message;
static char line[LINE_SIZE];
static char *relayclient;
static int seen_mail;

static void add(struct bytes *to, const char *from, size_t size)
{
  if (to->room - to->size < size) {
    to->room = 2 * (to->size + size);
    to->start = realloc(to->start, to->room);
    if (!to->start) _exit(111);
  }
  memcpy(to->start + to->size, from, size);
  to->size += size;
}

static void say(const char *text)
{
  add(&output, text, strlen(text));
}

static void await(int descriptor, short event)
{
  struct pollfd wanted = { descriptor, event, 0 };
  int ready;

  do ready = poll(&wanted, 1, TIMEOUT_MS); while (ready < 0 && errno == EINTR);
  if (ready <= 0) _exit(1);
}

static void write_all(int descriptor, const char *from, size_t size)
{
  ssize_t written;

  while (size) {
    await(descriptor, POLLOUT);
    written = write(descriptor, from, size);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) _exit(1);
    from += written;
    size -= written;
  }
}

static void flush(void)
{
  write_all(1, output.start, output.size);
  output.size = 0;
}

/* RFC 2920, 3.2: replies may gather as long as input is at hand, and must go out before the server waits for more. */
static char next(void)
{
  static char block[4096];
  static ssize_t size, at;

  while (at >= size) {
    flush();
    await(0, POLLIN);
    at = 0;
    size = read(0, block, sizeof block);
    if (size < 0 && errno == EINTR) continue;
    if (size <= 0) _exit(1);
  }
  return block[at++];
}

static int read_line(void)
{
  size_t size = 0;
  int whole = 1;
  char c;

  while ((c = next()) != '\n') {
    if (size < sizeof line - 1) line[size++] = c;
    else whole = 0;
  }
  if (size && line[size - 1] == '\r') size--;
  line[size] = 0;
  return whole;
}

/* Quotes and a source route go, case stays. Without angle brackets the address is what follows the colon. */
static int parse_address(const char *from, struct bytes *address)
{
  const char *open = strchr(from, '<');
  const char *colon = strchr(from, ':');
  char end = open ? '>' : ' ';
  int quoted = 0;

  if (open) from = open + 1;
  else if (colon) from = colon + 1 + strspn(colon + 1, " ");
  else from = "";
  if (*from == '@') {
    colon = strchr(from, ':');
    from = colon ? colon + 1 : "";
  }
  address->size = 0;
  for (; *from && (quoted || *from != end); from++) {
    if (*from == '"') {
      quoted = !quoted;
      continue;
    }
    if (*from == '\\' && !*++from) break;
    add(address, from, 1);
  }
  add(address, "", 1);
  return address->size <= ADDRESS_SIZE;
}

static void forget(void)
{
  seen_mail = 0;
  recipients.size = 0;
}

static void helo(const char *argument)
{
  (void)argument;
  forget();
  say("250 mx.example\r\n");
}

static void ehlo(const char *argument)
{
  (void)argument;
  forget();
  say("250-mx.example\r\n250-PIPELINING\r\n250 8BITMIME\r\n");
}

static void mail(const char *argument)
{
  forget();
  if (!parse_address(argument, &sender)) {
    say("555 syntax error (#5.5.4)\r\n");
    return;
  }
  seen_mail = 1;
  say("250 ok\r\n");
}

static void rcpt(const char *argument)
{
  static struct bytes recipient;
  const char *reply;

  if (!seen_mail) {
    say("503 MAIL first (#5.5.1)\r\n");
    return;
  }
  if (!parse_address(argument, &recipient)) {
    say("555 syntax error (#5.5.4)\r\n");
    return;
  }
  if (relayclient) {
    recipient.size--;
    add(&recipient, relayclient, strlen(relayclient) + 1);
  }
  reply = checkenv(sender.start, recipient.start, relayclient);
  if (reply) {
    say(reply);
    return;
  }
  add(&recipients, "T", 1);
  add(&recipients, recipient.start, recipient.size);
  say("250 ok\r\n");
}

/* RFC 5321, 4.5.2: a line of one dot is the end, another dot at the start of a line goes. Only CR LF ends a line. */
static void read_message(void)
{
  size_t begin = 0;
  char c;

  message.size = 0;
  for (;;) {
    c = next();
    add(&message, &c, 1);
    if (c != '\n' || message.size - begin < 2 || message.start[message.size - 2] != '\r') continue;
    message.size -= 2;
    if (message.size > begin && message.start[begin] == '.') {
      if (message.size == begin + 1) {
        message.size = begin;
        return;
      }
      memmove(message.start + begin, message.start + begin + 1, --message.size - begin);
    }
    add(&message, "\n", 1);
    begin = message.size;
  }
}

static int spool(void)
{
  static unsigned long number;
  char unfinished[4096], finished[4096];
  const char *directory = getenv("SPOOL");
  int file;

  if (!directory) return 0;
  snprintf(unfinished, sizeof unfinished, "%s/.%ld.%lu", directory, (long)getpid(), number);
  snprintf(finished, sizeof finished, "%s/%ld.%lu", directory, (long)getpid(), number++);
  file = open(unfinished, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (file < 0) return 0;
  write_all(file, "F", 1);
  write_all(file, sender.start, sender.size);
  write_all(file, recipients.start, recipients.size);
  write_all(file, "", 1);
  write_all(file, message.start, message.size);
  return close(file) == 0 && rename(unfinished, finished) == 0;
}

static void data(const char *argument)
{
  (void)argument;
  if (!seen_mail || !recipients.size) {
    say(seen_mail ? "503 RCPT first (#5.5.1)\r\n" : "503 MAIL first (#5.5.1)\r\n");
    return;
  }
  say("354 go ahead\r\n");
  read_message();
  say(spool() ? "250 ok taken\r\n" : "451 cannot keep it (#4.3.0)\r\n");
  forget();
}

static void rset(const char *argument)
{
  (void)argument;
  forget();
  say("250 flushed\r\n");
}

static void noop(const char *argument)
{
  (void)argument;
  say("250 ok\r\n");
}

static void quit(const char *argument)
{
  (void)argument;
  say("221 mx.example\r\n");
  flush();
  _exit(0);
}

static const struct {
  const char *verb;
  void (*act)(const char *argument);
} commands[] = {
  { "EHLO", ehlo }, { "HELO", helo }, { "MAIL", mail }, { "RCPT", rcpt }, { "DATA", data },
  { "RSET", rset }, { "NOOP", noop }, { "QUIT", quit },
};

static void obey(void)
{
  size_t verb = strcspn(line, " ");
  size_t i;

  for (i = 0; i < sizeof commands / sizeof *commands; i++) {
    if (verb == strlen(commands[i].verb) && !strncasecmp(line, commands[i].verb, verb)) {
      commands[i].act(line + verb + strspn(line + verb, " "));
      return;
    }
  }
  say("502 unimplemented (#5.5.1)\r\n");
}

int main(void)
{
  signal(SIGPIPE, SIG_IGN);
  relayclient = getenv("RELAYCLIENT");
  say("220 mx.example ESMTP\r\n");
  for (;;) {
    if (read_line()) obey();
    else say("500 line too long (#5.5.2)\r\n");
  }
}
