/* LD_PRELOAD: system calls that change what is below one directory are counted, and the one with a given number ends the
 * process by SIGKILL, stops it by SIGSTOP, or fails. fault_begin() starts it, so a process may get ready first, and fork. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static char root[PATH_MAX];
static int at, error, lasting, own_count, *count = &own_count, log_to = -1;
static pid_t leader;

/* error 0: SIGKILL at the call. error -1: SIGSTOP, and after SIGCONT the call is made. lasting 1: every later call that takes room fails too; 2: every later call at all. log:
 * a descriptor that gets a line for each call, or -1. */
void fault_begin(const char *directory, int number, int code, int how_long, int log)
{
    snprintf(root, sizeof(root), "%s", directory);
    at = number, error = code, lasting = how_long, log_to = log, *count = 0;
}

int fault_count(void)
{
    return *count;
}

/* Before fault_begin: what this process forks counts on with it, and a SIGKILL ends both. */
void fault_share(void)
{
    count = mmap(NULL, sizeof(*count), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    leader = getpid();
}

static int hit(const char *call, const char *path, int takes_room)
{
    char line[PATH_MAX + 100];
    size_t n = strlen(root);
    int turn;
    if (!n || strncmp(path, root, n) != 0 || (path[n] && path[n] != '/'))
        return 0;
    turn = ++*count;
    if (log_to >= 0) {
        int size = snprintf(line, sizeof(line), "%s %s\n", call, path + n);
        ssize_t (*plain)(int, const void *, size_t) = dlsym(RTLD_NEXT, "write");
        if (plain(log_to, line, size) != size)
            _exit(99);
    }
    if (!at || turn < at || (lasting == 1 && !takes_room) || (!lasting && turn > at))
        return 0;
    if (error <= 0) {
        if (leader && !error)
            kill(leader, SIGKILL);
        raise(error ? SIGSTOP : SIGKILL);
        return 0;
    }
    errno = error;
    return 1;
}

static int hit_at(const char *call, int directory, const char *name, int takes_room)
{
    char link[64], path[PATH_MAX];
    ssize_t n;
    if (directory == AT_FDCWD || name[0] == '/')
        return hit(call, name, takes_room);
    snprintf(link, sizeof(link), "/proc/self/fd/%d", directory);
    n = readlink(link, path, sizeof(path) - 256);
    if (n < 0)
        return 0;
    path[n] = 0;
    if (name[0]) {
        strcat(path, "/");
        strncat(path, name, 250);
    }
    return hit(call, path, takes_room);
}

#define REAL(name) static __typeof__(&name) real; if (!real) real = (__typeof__(&name)) dlsym(RTLD_NEXT, #name)

#define ON_FILE(type, name, room, declared, passed) \
    type name declared { REAL(name); return hit_at(#name, fd, "", room) ? -1 : real passed; }
#define ON_PATH(name, room, path, declared, passed) \
    int name declared { REAL(name); return hit(#name, path, room) ? -1 : real passed; }

ON_FILE(ssize_t, write, 1, (int fd, const void *b, size_t n), (fd, b, n))
ON_FILE(ssize_t, pwrite, 1, (int fd, const void *b, size_t n, off_t o), (fd, b, n, o))
ON_FILE(ssize_t, pwrite64, 1, (int fd, const void *b, size_t n, off64_t o), (fd, b, n, o))
ON_FILE(ssize_t, writev, 1, (int fd, const struct iovec *v, int n), (fd, v, n))
ON_FILE(ssize_t, pwritev, 1, (int fd, const struct iovec *v, int n, off_t o), (fd, v, n, o))
ON_FILE(ssize_t, pwritev64, 1, (int fd, const struct iovec *v, int n, off64_t o), (fd, v, n, o))
ON_FILE(int, ftruncate, 1, (int fd, off_t n), (fd, n))
ON_FILE(int, ftruncate64, 1, (int fd, off64_t n), (fd, n))
ON_FILE(int, fsync, 0, (int fd), (fd))
ON_FILE(int, fdatasync, 0, (int fd), (fd))

ON_PATH(mkdir, 1, path, (const char *path, mode_t m), (path, m))
ON_PATH(rmdir, 0, path, (const char *path), (path))
ON_PATH(unlink, 0, path, (const char *path), (path))
ON_PATH(symlink, 1, path, (const char *target, const char *path), (target, path))
ON_PATH(rename, 0, path, (const char *path, const char *to), (path, to))

int renameat(int directory, const char *name, int to_directory, const char *to)
{
    REAL(renameat);
    return hit_at("rename", directory, name, 0) ? -1 : real(directory, name, to_directory, to);
}

int unlinkat(int directory, const char *name, int flags)
{
    REAL(unlinkat);
    return hit_at("unlinkat", directory, name, 0) ? -1 : real(directory, name, flags);
}

/* Only what makes a file is counted. */
#define OPENS(name, parameters, is_hit, call) \
    int name parameters \
    { \
        va_list more; \
        mode_t mode = 0; \
        REAL(name); \
        if (flags & O_CREAT) { \
            va_start(more, flags); \
            mode = va_arg(more, mode_t); \
            va_end(more); \
            if (is_hit) \
                return -1; \
        } \
        return call; \
    }
#define OPEN(name) \
    OPENS(name, (const char *path, int flags, ...), hit(#name, path, 1), real(path, flags, mode))
#define OPEN_AT(name, told) \
    OPENS(name, (int directory, const char *path, int flags, ...), hit_at(told, directory, path, 1), \
          real(directory, path, flags, mode))

OPEN(open)
OPEN(open64)
OPEN_AT(openat, "open")
OPEN_AT(openat64, "open")
