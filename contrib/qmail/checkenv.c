/*
 * CHECKENV: a program decides about every recipient.
 *
 *   CHECKENV               unset: no check. Empty: bin/qmail-checkenv below the working directory, which is qmail's
 *                          home. Else an absolute path, without arguments.
 *   CHECKENV_TIMEOUT       seconds until a program that does not end is killed: 1 to 240, default 10. A client waits
 *                          five minutes for the reply to RCPT TO (RFC 5321 section 4.5.3.2.3). The other recipients of
 *                          that session are not checked: with a hundred of them the client would wait for an hour.
 *   CHECKENV_ON_ERROR      accept (default) or defer: what a recipient gets whose check failed
 *   CHECKENV_DEFER_TEXT    what follows 451 4.7.1
 *   CHECKENV_REJECT_TEXT   what follows 553 5.7.1
 *
 * The program gets the sender and the recipient as arguments and the environment as it is. Exit 0 accepts, 100 rejects
 * for good, anything else defers. It is no child of a shell, nothing is searched in PATH, and it cannot reach the SMTP
 * connection: 0 and 1 are /dev/null. Descriptor 2 is its log. Others, such as that of morercpthosts.cdb, are inherited.
 */

/* What is used here is POSIX; a strict compiler (-std=c90) shows it only on demand. */
#ifndef _POSIX_C_SOURCE
#define _POSIX_C_SOURCE 200112L
#endif

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include "checkenv.h"

#define DEFAULT_PROGRAM "bin/qmail-checkenv"
#define DEFAULT_TIMEOUT 10
#define LONGEST_TIMEOUT 240
/* A killed program that is still there is asleep in the kernel or has changed its user; it is not waited for. */
#define GRACE 2

#define REPLY_SIZE 512 /* RFC 5321 section 4.5.3.1.5 */
/* With these the longest line is below 4096 bytes, which Linux writes to a pipe in one piece. */
#define LINE_SIZE 4096
#define SHOWN_CLIENT 64
#define SHOWN_PATH 200
#define SHOWN_ADDRESS 300

extern char **environ;

struct text {
  char *start;
  size_t size;
  size_t used;
};

/* Why there is no answer. The child sends it through a pipe: its addresses are those of the parent. */
struct fault {
  const char *what;
  int error; /* errno, or 0 */
  const char *remedy;
};

static volatile sig_atomic_t alarmed;

static void on_alarm(int number)
{
  (void) number;
  alarmed = 1;
}

static void on_child(int number)
{
  (void) number;
}

static void add_byte(struct text *t, char byte)
{
  if (t->used < t->size) t->start[t->used++] = byte;
}

static void add(struct text *t, const char *string)
{
  while (*string) add_byte(t, *string++);
}

static void add_number(struct text *t, unsigned int number)
{
  if (number >= 10) add_number(t, number / 10);
  add_byte(t, (char) ('0' + number % 10));
}

/* What others wrote, in a line of ours: no byte of it ends the line or looks like the next word. */
static void add_escaped(struct text *t, const char *string, size_t most)
{
  static const char digits[] = "0123456789abcdef";
  unsigned char byte;

  for (; *string && most; --most) {
    byte = (unsigned char) *string++;
    if (byte > ' ' && byte < 127 && byte != '\\')
      add_byte(t, (char) byte);
    else {
      add(t, "\\x");
      add_byte(t, digits[byte >> 4]);
      add_byte(t, digits[byte & 15]);
    }
  }
  if (*string) add(t, "...");
}

static void put_line(struct text *t)
{
  t->start[t->used++] = '\n';
  /* Without a log there is nobody to tell. */
  if (write(2, t->start, t->used) == -1) return;
}

static void begin_line(struct text *t)
{
  static char line[LINE_SIZE];

  t->start = line;
  t->size = sizeof line - 1;
  t->used = 0;
  add(t, "checkenv: ");
}

/* A setting that cannot be used. Every recipient of the session would tell the same. */
static void complain(int *told, const char *name, const char *value, const char *wanted)
{
  struct text t;

  if (*told) return;
  *told = 1;
  begin_line(&t);
  add(&t, name);
  add_byte(&t, '=');
  add_escaped(&t, value, SHOWN_PATH);
  add(&t, " is not ");
  add(&t, wanted);
  put_line(&t);
}

static unsigned int bound(void)
{
  static int told;
  const char *value = getenv("CHECKENV_TIMEOUT");
  const char *digit;
  unsigned int seconds = 0;

  if (!value) return DEFAULT_TIMEOUT;
  for (digit = value; *digit >= '0' && *digit <= '9' && seconds <= LONGEST_TIMEOUT; ++digit)
    seconds = seconds * 10 + (unsigned int) (*digit - '0');
  if (!*digit && seconds >= 1 && seconds <= LONGEST_TIMEOUT) return seconds;
  complain(&told, "CHECKENV_TIMEOUT", value, "a number of seconds from 1 to 240; 10 is used");
  return DEFAULT_TIMEOUT;
}

static int faults_defer(void)
{
  static int told;
  const char *value = getenv("CHECKENV_ON_ERROR");

  if (!value || !strcmp(value, "accept")) return 0;
  if (!strcmp(value, "defer")) return 1;
  complain(&told, "CHECKENV_ON_ERROR", value, "accept or defer; accept is used");
  return 0;
}

/* SMTP replies are printable ASCII (RFC 5321 section 4.2), and a CR LF inside would be a reply of its own. */
static char *reply(const char *codes, const char *name, const char *usual)
{
  static char line[REPLY_SIZE + 1];
  struct text t;
  const char *value = name ? getenv(name) : 0;
  size_t i;

  if (!value || !*value) value = usual;
  t.start = line;
  t.size = REPLY_SIZE - 2;
  t.used = 0;
  add(&t, codes);
  add(&t, value);
  for (i = 0; i < t.used; ++i)
    if (line[i] < ' ' || line[i] > '~') line[i] = '?';
  t.size = REPLY_SIZE;
  add(&t, "\r\n");
  line[t.used] = 0;
  return line;
}

/* One line, in the form of qmail-checkenv's own. */
static char *answer_fault(char *sender, char *recipient, const char *program, const struct fault *fault)
{
  int defer = faults_defer();
  const char *client = getenv("TCPREMOTEIP");
  struct text t;

  if (!client) client = getenv("TCP6REMOTEIP");
  begin_line(&t);
  add(&t, defer ? "defer" : "accept");
  add(&t, " error client=");
  add_escaped(&t, client ? client : "", SHOWN_CLIENT);
  add(&t, " sender=");
  add_escaped(&t, sender, SHOWN_ADDRESS);
  add(&t, " recipient=");
  add_escaped(&t, recipient, SHOWN_ADDRESS);
  add(&t, ": ");
  add_escaped(&t, program, SHOWN_PATH);
  add_byte(&t, ' ');
  add(&t, fault->what);
  if (fault->error) {
    add(&t, ": ");
    add(&t, strerror(fault->error));
  }
  add(&t, "; ");
  add(&t, fault->remedy);
  put_line(&t);
  if (!defer) return 0;
  return reply("451 4.3.0 ", 0, "sorry, this recipient could not be checked, please try again later");
}

static void set_fault(struct fault *fault, const char *what, int error, const char *remedy)
{
  fault->what = what;
  fault->error = error;
  fault->remedy = remedy;
}

static const char *numbered(const char *before, unsigned int number, const char *after)
{
  static char what[80];
  struct text t;

  t.start = what;
  t.size = sizeof what - 1;
  t.used = 0;
  add(&t, before);
  add_number(&t, number);
  add(&t, after);
  what[t.used] = 0;
  return what;
}

/* A descriptor above 2 that exec closes. One of 0, 1 and 2 may be free, and the child fills these. */
static int out_of_the_way(int fd)
{
  int higher = fd;
  int error;

  if (fd <= 2) {
    higher = fcntl(fd, F_DUPFD, 3);
    error = errno;
    close(fd);
    errno = error;
    if (higher == -1) return -1;
  }
  fcntl(higher, F_SETFD, FD_CLOEXEC);
  return higher;
}

static int make_pipe(int ends[2])
{
  int error;

  if (pipe(ends) == -1) return -1;
  ends[0] = out_of_the_way(ends[0]);
  ends[1] = out_of_the_way(ends[1]);
  if (ends[0] != -1 && ends[1] != -1) return 0;
  error = errno;
  if (ends[0] != -1) close(ends[0]);
  if (ends[1] != -1) close(ends[1]);
  errno = error;
  return -1;
}

static void handle(int number, void (*handler)(int), struct sigaction *before)
{
  struct sigaction action;

  action.sa_handler = handler;
  action.sa_flags = 0;
  sigemptyset(&action.sa_mask);
  sigaction(number, &action, before);
}

static void give_up(int pipe_end, const char *what)
{
  struct fault fault;

  set_fault(&fault, what, errno, "check the file that CHECKENV names, and that qmail-smtpd's user may run it");
  if (write(pipe_end, &fault, sizeof fault) == -1) _exit(127);
  _exit(127);
}

static void become(char **arguments, int pipe_end, const sigset_t *mask)
{
  int null;

  setpgid(0, 0);
  null = open("/dev/null", O_RDWR);
  if (null == -1 || dup2(null, 0) == -1 || dup2(null, 1) == -1) give_up(pipe_end, "was not run, no /dev/null");
  /* Else the first file that the program opens would become its log. */
  if (fcntl(2, F_GETFD) == -1) dup2(null, 2);
  if (null > 2) close(null);
  /* What is ignored or blocked stays so through exec. */
  handle(SIGPIPE, SIG_DFL, 0);
  handle(SIGALRM, SIG_DFL, 0);
  handle(SIGCHLD, SIG_DFL, 0);
  sigprocmask(SIG_SETMASK, mask, 0);
  execve(arguments[0], arguments, environ);
  give_up(pipe_end, "cannot be run");
}

/*
 * Waits for the child, and kills its group when the time is over. The signals that end the wait are blocked but in
 * sigsuspend: neither gets lost before it, and no kill meets a number that was given back already.
 * Returns the child's number, or -1 where it outlived its kill.
 */
static pid_t await(pid_t child, int *status, unsigned int seconds, const sigset_t *waiting, int *killed)
{
  pid_t ended;

  *killed = 0;
  alarmed = 0;
  alarm(seconds);
  while ((ended = waitpid(child, status, WNOHANG)) == 0) {
    if (alarmed) {
      if (*killed) return -1;
      *killed = 1;
      alarmed = 0;
      kill(-child, SIGKILL);
      kill(child, SIGKILL);
      alarm(GRACE);
    }
    sigsuspend(waiting);
  }
  return ended;
}

/* Runs the program, and leaves signals, alarm and descriptors as they were. Returns its exit status, or -1: a fault. */
static int run(char **arguments, unsigned int seconds, struct fault *fault)
{
  static int hung;
  static const char limits[] = "check the limits of processes, open files and memory";
  static const char slow[] = "see what it waits for, or set CHECKENV_TIMEOUT";
  unsigned int alarm_before;
  unsigned int passed = 0;
  struct sigaction alarm_action;
  struct sigaction child_action;
  sigset_t mask;
  sigset_t blocked;
  sigset_t waiting;
  int ends[2];
  int status = 0;
  int killed = 0;
  int failed = 0;
  int error;
  pid_t child;
  pid_t ended = -1;

  if (hung) {
    set_fault(fault, "was not run, it hung for another recipient of this session", 0, slow);
    return -1;
  }
  if (make_pipe(ends) == -1) {
    set_fault(fault, "was not run, no pipe", errno, limits);
    return -1;
  }
  alarm_before = alarm(0);
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGALRM);
  sigaddset(&blocked, SIGCHLD);
  sigprocmask(SIG_BLOCK, &blocked, &mask);
  waiting = mask;
  sigdelset(&waiting, SIGALRM);
  sigdelset(&waiting, SIGCHLD);
  handle(SIGALRM, on_alarm, &alarm_action);
  /* Where SIGCHLD is ignored, a child leaves no exit status. */
  handle(SIGCHLD, on_child, &child_action);

  child = fork();
  if (child == 0) become(arguments, ends[1], &waiting);
  error = errno;
  close(ends[1]);
  if (child != -1) {
    /* Also here, because the child may not have come so far when it is killed. */
    setpgid(child, child);
    ended = await(child, &status, seconds, &waiting, &killed);
    error = errno;
    passed = seconds - (killed ? 0 : alarm(0));
    alarm(0);
  }
  /* An alarm that came after the end is pending, and by default it would end this process. */
  handle(SIGALRM, SIG_IGN, 0);
  sigaction(SIGALRM, &alarm_action, 0);
  sigaction(SIGCHLD, &child_action, 0);
  if (alarm_before) alarm(alarm_before > passed ? alarm_before - passed : 1);
  sigprocmask(SIG_SETMASK, &mask, 0);
  /* This waits for nothing: the other end was closed by exec or by the child's end. */
  if (ended != -1) failed = read(ends[0], fault, sizeof *fault) == (ssize_t) sizeof *fault;
  close(ends[0]);
  hung = killed;

  if (child == -1) set_fault(fault, "was not run, no process", error, limits);
  else if (failed) return -1;
  else if (ended == -1 && killed) set_fault(fault, numbered("does not die, killed after ", seconds, " s"), 0, slow);
  else if (ended == -1) set_fault(fault, "left no exit status", error, "look at its log");
  else if (WIFEXITED(status)) return WEXITSTATUS(status);
  else if (killed) set_fault(fault, numbered("was killed after ", seconds, " s"), 0, slow);
  else
    set_fault(fault, numbered("died of signal ", (unsigned int) WTERMSIG(status), ""), 0,
              "look at its log, and at its memory limit (softlimit)");
  return -1;
}

char *checkenv(char *sender, char *recipient, char *relayclient)
{
  static char usual[] = DEFAULT_PROGRAM;
  char *arguments[4];
  struct fault fault;

  arguments[0] = getenv("CHECKENV");
  arguments[1] = sender;
  arguments[2] = recipient;
  arguments[3] = 0;
  if (relayclient || !arguments[0]) return 0;
  if (!*arguments[0]) arguments[0] = usual;
  else if (*arguments[0] != '/') {
    set_fault(&fault, "is no absolute path", 0, "set CHECKENV to one, without arguments");
    return answer_fault(sender, recipient, arguments[0], &fault);
  }
  switch (run(arguments, bound(), &fault)) {
    case -1: return answer_fault(sender, recipient, arguments[0], &fault);
    case 0: return 0;
    case 100: return reply("553 5.7.1 ", "CHECKENV_REJECT_TEXT", "sorry, your mail is not wanted here");
    default: return reply("451 4.7.1 ", "CHECKENV_DEFER_TEXT", "greylisted, please try again later");
  }
}
