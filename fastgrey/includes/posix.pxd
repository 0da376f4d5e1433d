"""The operating system, as POSIX and Linux declare it: only what the core calls."""

cdef extern from "errno.h" nogil:
    int errno
    int ENOENT, EACCES, EROFS, ENOMEM, EBADF, EINVAL, ENOTDIR, EISDIR, ENAMETOOLONG, EEXIST, EINTR, EAGAIN, ELOOP, EMLINK, EPIPE
    int EPROTO, ECONNRESET, ETIMEDOUT

cdef extern from "fcntl.h" nogil:
    int O_RDONLY, O_RDWR, O_CLOEXEC, O_ACCMODE, O_NOFOLLOW, O_NONBLOCK, O_CREAT, O_EXCL, O_PATH, AT_FDCWD
    int F_GETFD, F_GETFL
    int open(const char *path, int flags, ...)
    int openat(int directory, const char *path, int flags, ...)
    int fcntl(int fd, int command, ...)

cdef extern from "unistd.h" nogil:
    char **environ
    int close(int fd)
    ssize_t read(int fd, void *data, size_t size)
    ssize_t pread(int fd, void *data, size_t size, long offset)
    ssize_t write(int fd, const void *data, size_t size)
    int symlink(const char *target, const char *path)
    int unlink(const char *path)
    int rmdir(const char *path)
    unsigned int geteuid()
    ssize_t readlink(const char *path, char *target, size_t size)
    unsigned int alarm(unsigned int seconds)
    int getpid()
    void _exit(int code)
    long syscall(long number, ...)

cdef extern from "sys/syscall.h" nogil:
    long SYS_clock_gettime

cdef extern from "sys/types.h" nogil:
    ctypedef unsigned int mode_t

cdef extern from "sys/stat.h" nogil:
    int mkdir(const char *path, mode_t mode)
    mode_t umask(mode_t mask)
    cdef struct stat_t "stat":
        mode_t st_mode
        unsigned long st_nlink
        unsigned int st_uid
        unsigned int st_gid
        long st_size
    int fstat(int fd, stat_t *status)
    int fstatat(int directory, const char *path, stat_t *status, int flags)
    bint S_ISFIFO(mode_t mode)
    bint S_ISREG(mode_t mode)
    bint S_ISDIR(mode_t mode)
    bint S_ISLNK(mode_t mode)

cdef extern from "stdlib.h" nogil:
    char *mkdtemp(char *template)

cdef extern from "sys/mman.h" nogil:
    int PROT_READ, PROT_WRITE, MAP_SHARED, MS_SYNC
    void *MAP_FAILED
    void *mmap(void *address, size_t size, int protection, int flags, int fd, long offset)
    int munmap(void *address, size_t size)
    int msync(void *address, size_t size, int flags)

cdef extern from "signal.h" nogil:
    ctypedef void (*handler_t)(int) noexcept nogil
    ctypedef struct sigset_t:
        pass
    cdef struct sigaction_t "sigaction":
        handler_t sa_handler
        sigset_t sa_mask
        int sa_flags
    handler_t SIG_IGN
    int SIGALRM, SIGBUS, SIGSEGV, SIGABRT, SIGFPE, SIGILL, SIGPIPE, SIGXFSZ, SIGPROF, SIG_UNBLOCK, SA_NODEFER
    int sigaction(int number, const sigaction_t *new, sigaction_t *old)
    int sigemptyset(sigset_t *set)
    int sigaddset(sigset_t *set, int number)
    int sigprocmask(int how, const sigset_t *set, sigset_t *old)

cdef extern from "sys/time.h" nogil:
    cdef struct timeval:
        long tv_sec
        long tv_usec
    cdef struct itimerval:
        timeval it_interval
        timeval it_value
    int ITIMER_PROF
    int setitimer(int which, const itimerval *new, itimerval *old)

cdef extern from "regex.h" nogil:
    ctypedef struct regex_t:
        pass
    ctypedef struct regmatch_t:
        pass
    int REG_EXTENDED, REG_ICASE, REG_NOSUB
    int regcomp(regex_t *regex, const char *pattern, int flags)
    int regexec(const regex_t *regex, const char *text, size_t size, regmatch_t *found, int flags)
    size_t regerror(int code, const regex_t *regex, char *text, size_t size)
    void regfree(regex_t *regex)

cdef extern from "locale.h" nogil:
    ctypedef void *locale_t
    int LC_ALL_MASK
    locale_t newlocale(int mask, const char *name, locale_t base)
    locale_t uselocale(locale_t new)
    void freelocale(locale_t old)

cdef extern from "time.h" nogil:
    ctypedef long time_t
    cdef struct timespec:
        time_t tv_sec
        long tv_nsec
    int CLOCK_REALTIME, CLOCK_MONOTONIC
    int clock_gettime(int clock, timespec *now)
    cdef struct tm:
        int tm_sec
        int tm_min
        int tm_hour
        int tm_mday
        int tm_mon
        int tm_year
    tm *gmtime_r(const time_t *when, tm *out)
    int nanosleep(const timespec *wanted, timespec *left)

cdef extern from "sys/socket.h" nogil:
    cdef struct sockaddr:
        pass
    int AF_UNIX, SOCK_STREAM, SOCK_CLOEXEC, SOL_SOCKET, SO_SNDTIMEO, MSG_DONTWAIT, MSG_NOSIGNAL
    int socket(int domain, int kind, int protocol)
    int connect(int fd, const sockaddr *address, unsigned int size)
    int setsockopt(int fd, int level, int name, const void *value, unsigned int size)
    ssize_t send(int fd, const void *data, size_t size, int flags)
    ssize_t recv(int fd, void *data, size_t size, int flags)

cdef extern from "sys/un.h" nogil:
    cdef struct sockaddr_un:
        unsigned short sun_family
        char sun_path[108]

cdef extern from "poll.h" nogil:
    cdef struct pollfd:
        int fd
        short events
        short revents
    int POLLIN, POLLOUT, POLLERR
    int poll(pollfd *descriptors, unsigned long number, int milliseconds)

cdef extern from "arpa/inet.h" nogil:
    int AF_INET6
    int inet_pton(int family, const char *text, void *out)

cdef extern from "sys/epoll.h" nogil:
    int EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_MOD, EPOLL_CTL_DEL, EPOLLIN, EPOLLOUT, EPOLLERR, EPOLLHUP
    ctypedef union epoll_data_t:
        unsigned long long u64
    cdef struct epoll_event:
        unsigned int events
        epoll_data_t data
    int epoll_create1(int flags)
    int epoll_ctl(int epoll, int operation, int fd, epoll_event *event)
    int epoll_wait(int epoll, epoll_event *events, int most, int milliseconds)
