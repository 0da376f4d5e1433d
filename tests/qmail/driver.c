/*
 * Calls checkenv() as qmail-smtpd would, from the state that the options make, and tells what it gave and left.
 *
 *   driver REPORT [OPTION ...] SENDER RECIPIENT
 *     -n TIMES  -r RELAYCLIENT  -c FD to close before  -a SECONDS of an alarm that runs  -w SECONDS to wait afterwards
 *     -i SIGCHLD is ignored  -b SIGALRM and SIGCHLD are blocked  -f FILES it may open  -p it may start no process
 *     -u UID to become
 *
 * REPORT gets the replies, then lines "name value".
 */

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "checkenv.h"

static volatile sig_atomic_t alarms;

static void on_alarm(int number)
{
  (void) number;
  ++alarms;
}

#ifdef LATE_ALARM
#undef alarm
extern unsigned int alarm(unsigned int);

unsigned int late_alarm(unsigned int seconds)
{
  static int set;

  /* The alarm that comes when the child has ended and just before it is called off. */
  if (set && seconds == 0) raise(SIGALRM);
  set = seconds != 0;
  return alarm(seconds);
}
#endif

static void limit(int what, int most)
{
  struct rlimit limits;

  if (getrlimit(what, &limits) == -1) exit(5);
  limits.rlim_cur = (rlim_t) most;
  if (setrlimit(what, &limits) == -1) exit(5);
}

static void descriptors(char *open_ones, size_t size)
{
  int fd;

  for (fd = 0; fd < (int) size - 1; ++fd) open_ones[fd] = fcntl(fd, F_GETFD) == -1 ? '-' : 'x';
  open_ones[size - 1] = 0;
}

int main(int argc, char **argv)
{
  char *relayclient = 0;
  char before[65], after[65];
  char *replies[1000];
  char *reply;
  int times = 1, running = 0, pause_after = 0, option, i, number, left, fd;
  struct sigaction action, found;
  sigset_t mask, now;
  FILE *report;

  /* Before the descriptors are counted, and out of the way of those that -c frees. */
  fd = open(argv[1], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  report = fd == -1 ? 0 : fdopen(fd, "w");
  if (!report) return 3;
  --argc;
  ++argv;
  while ((option = getopt(argc, argv, "n:r:c:a:w:ibf:pu:")) != -1) {
    switch (option) {
      case 'n': times = atoi(optarg); break;
      case 'r': relayclient = optarg; break;
      case 'c': close(atoi(optarg)); break;
      case 'a': running = atoi(optarg); break;
      case 'w': pause_after = atoi(optarg); break;
      case 'f': limit(RLIMIT_NOFILE, atoi(optarg)); break;
      case 'p': limit(RLIMIT_NPROC, 0); break;
      case 'u': if (setuid((uid_t) atoi(optarg)) == -1) return 5; break;
      case 'i': signal(SIGCHLD, SIG_IGN); break;
      case 'b':
        sigemptyset(&mask);
        sigaddset(&mask, SIGALRM);
        sigaddset(&mask, SIGCHLD);
        sigprocmask(SIG_BLOCK, &mask, 0);
        break;
      default: return 2;
    }
  }
  /* As in qmail-smtpd. */
  signal(SIGPIPE, SIG_IGN);
  if (running) {
    memset(&action, 0, sizeof action);
    action.sa_handler = on_alarm;
    action.sa_flags = SA_RESTART;
    sigaction(SIGALRM, &action, 0);
    alarm((unsigned int) running);
  }
  sigprocmask(SIG_BLOCK, 0, &mask);
  descriptors(before, sizeof before);
  for (i = 0; i < times; ++i) {
    reply = checkenv(argv[optind], argv[optind + 1], relayclient);
    replies[i] = strdup(reply ? reply : "accepted\n");
  }
  descriptors(after, sizeof after);
  left = (int) alarm(0);
  if (left) alarm((unsigned int) left);
  for (number = 0; number < pause_after && !alarms; ++number) sleep(1);

  for (i = 0; i < times; ++i) {
    fputs(replies[i], report);
    free(replies[i]);
  }
  fprintf(report, "descriptors %s\n", strcmp(before, after) ? after : "same");
  i = (int) waitpid(-1, 0, WNOHANG);
  fprintf(report, "children %s\n", i == -1 && errno == ECHILD ? "none" : "some");
  fprintf(report, "left %d\nalarms %d\n", left, (int) alarms);
  sigprocmask(SIG_BLOCK, 0, &now);
  for (number = 1, i = 1; number < 32; ++number)
    if (sigismember(&mask, number) != sigismember(&now, number)) i = 0;
  fprintf(report, "mask %s\n", i ? "same" : "changed");
  sigaction(SIGALRM, 0, &found);
  fprintf(report, "sigalrm %s\n",
          found.sa_handler == SIG_DFL ? "default" : found.sa_handler == on_alarm ? "handled" : "other");
  sigaction(SIGCHLD, 0, &found);
  fprintf(report, "sigchld %s\n",
          found.sa_handler == SIG_DFL ? "default" : found.sa_handler == SIG_IGN ? "ignored" : "other");
  return fclose(report) ? 4 : 0;
}
