/* LMDB with its own faults kept apart from those of the core.
 *
 * LMDB trusts its pages: on damaged ones it may read or write anywhere, abort or go round in circles. What happens
 * within a call of LMDB is its own, is counted and ends the step that made the call; everything else is the core's.
 * What LMDB hands out is copied to blocks of exactly its size, so that a look of the core beyond a value is seen. */

#ifndef FUZZ_LMDB_GUARD_H
#define FUZZ_LMDB_GUARD_H

#include <lmdb.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

/* LMDB's own copying and allocating, unwatched: tests/fuzzing.py has its archive call these. */
#define GUARD_UNWATCHED __attribute__((no_sanitize("address"), no_sanitize("undefined"), noinline, used))

GUARD_UNWATCHED void *guard_memmove(void *to, const void *from, size_t size) {
    unsigned char *t = to;
    const unsigned char *f = from;
    /* The empty statement keeps the compiler from making a call of memmove out of it. */
    if (t <= f)
        for (size_t i = 0; i < size; i++) {
            t[i] = f[i];
            __asm__ volatile("" ::: "memory");
        }
    else
        while (size--) {
            t[size] = f[size];
            __asm__ volatile("" ::: "memory");
        }
    return to;
}

GUARD_UNWATCHED void *guard_memcpy(void *to, const void *from, size_t size) {
    return guard_memmove(to, from, size);
}

GUARD_UNWATCHED void *guard_memset(void *to, int byte, size_t size) {
    unsigned char *t = to;
    for (size_t i = 0; i < size; i++) {
        t[i] = (unsigned char)byte;
        __asm__ volatile("" ::: "memory");
    }
    return to;
}

GUARD_UNWATCHED int guard_memcmp(const void *a, const void *b, size_t size) {
    const unsigned char *p = a, *q = b;
    for (size_t i = 0; i < size; i++) {
        if (p[i] != q[i])
            return p[i] - q[i];
        __asm__ volatile("" ::: "memory");
    }
    return 0;
}

/* Blocks know each other: so what LMDB gives back and never got is told from the rest, and what it lost is freed. */
struct guard_block {
    struct guard_block *next, *before;
    size_t size, mark;
};

enum { GUARD_MARK = 0x67756172 };
static struct guard_block guard_blocks = {&guard_blocks, &guard_blocks, 0, 0};

GUARD_UNWATCHED void *guard_malloc(size_t size) {
    struct guard_block *block = calloc(1, sizeof(*block) + size);
    if (block == NULL)
        return NULL;
    block->size = size;
    block->mark = GUARD_MARK;
    block->next = guard_blocks.next;
    block->before = &guard_blocks;
    block->next->before = block;
    guard_blocks.next = block;
    return block + 1;
}

GUARD_UNWATCHED void *guard_calloc(size_t number, size_t size) {
    return guard_malloc(number * size);
}

GUARD_UNWATCHED void guard_free(void *data) {
    struct guard_block *block;
    if (data == NULL)
        return;
    block = (struct guard_block *)data - 1;
    if (block->mark != GUARD_MARK)
        raise(SIGABRT);
    block->mark = 0;
    block->next->before = block->before;
    block->before->next = block->next;
    free(block);
}

GUARD_UNWATCHED void *guard_realloc(void *data, size_t size) {
    void *fresh = guard_malloc(size);
    if (fresh != NULL && data != NULL) {
        size_t old = ((struct guard_block *)data - 1)->size;
        guard_memcpy(fresh, data, old < size ? old : size);
        guard_free(data);
    }
    return fresh;
}

GUARD_UNWATCHED char *guard_strdup(const char *text) {
    size_t size = 0;
    char *copy;
    while (text[size])
        size++;
    copy = guard_malloc(size + 1);
    return copy == NULL ? NULL : guard_memcpy(copy, text, size + 1);
}

static void guard_forget(void) {
    while (guard_blocks.next != &guard_blocks)
        guard_free(guard_blocks.next + 1);
}

enum { GUARD_COPIES = 4096, GUARD_VALUE_MAX = 1 << 24, GUARD_SECONDS = 2, GUARD_SIGNALS = 5 };

static const int guard_signals[GUARD_SIGNALS] = {SIGSEGV, SIGBUS, SIGFPE, SIGABRT, SIGVTALRM};
static struct sigaction guard_before[GUARD_SIGNALS];
static sigjmp_buf guard_back;
static volatile sig_atomic_t guard_active, guard_within;
static MDB_txn *guard_writing;
static void *guard_copies[GUARD_COPIES];
static int guard_copied;
/* Steps that were begun, that ended in a fault of LMDB, and that were cut off because they took too long. */
static unsigned long guard_steps, guard_faults, guard_slow;

static void guard_signal(int number, siginfo_t *info, void *context) {
    (void)info;
    (void)context;
    if (guard_active && (guard_within || number == SIGVTALRM)) {
        if (number == SIGVTALRM)
            guard_slow++;
        else
            guard_faults++;
        guard_within = 0;
        siglongjmp(guard_back, 1);
    }
    /* Not LMDB's: whoever reports faults gets it. A fault of memory happens again on return. */
    for (int i = 0; i < GUARD_SIGNALS; i++)
        if (guard_signals[i] == number)
            sigaction(number, &guard_before[i], NULL);
    if (number == SIGABRT)
        raise(number);
}

static void guard_begin(void) {
    /* Late, so that what a fuzzer set up is known and gets what is not LMDB's. */
    static int installed;
    struct sigaction action;
    if (installed)
        return;
    installed = 1;
    memset(&action, 0, sizeof(action));
    action.sa_sigaction = guard_signal;
    action.sa_flags = SA_SIGINFO | SA_NODEFER;
    for (int i = 0; i < GUARD_SIGNALS; i++)
        sigaction(guard_signals[i], &action, &guard_before[i]);
}

static void guard_end(void) {
    while (guard_copied)
        free(guard_copies[--guard_copied]);
}

static void guard_report(void) {
    fprintf(stderr, "lmdb: %lu steps, %lu faults within, %lu cut off\n", guard_steps, guard_faults, guard_slow);
}

/* 1 where the step was left because of a fault within LMDB, or of its time. */
static int guarded(void (*step)(void)) {
    struct itimerval timer = {{0, 0}, {GUARD_SECONDS, 0}}, off = {{0, 0}, {0, 0}};
    int faulty;
    guard_steps++;
    guard_active = 1;
    faulty = sigsetjmp(guard_back, 1);
    if (!faulty) {
        setitimer(ITIMER_VIRTUAL, &timer, NULL);
        step();
    }
    guard_active = 0;
    setitimer(ITIMER_VIRTUAL, &off, NULL);
    return faulty;
}

#define GUARD(call) ({ guard_within++; __typeof__(call) answer_ = (call); guard_within--; answer_; })
#define GUARD_VOID(call) ({ guard_within++; (call); guard_within--; })

static void guard_copy(MDB_val *value) {
    void *copy;
    if (value->mv_size > GUARD_VALUE_MAX || guard_copied == GUARD_COPIES)
        raise(SIGABRT);
    copy = malloc(value->mv_size);
    memcpy(copy, value->mv_data, value->mv_size);
    guard_copies[guard_copied++] = copy;
    value->mv_data = copy;
}

static int guard_get(MDB_txn *txn, MDB_dbi dbi, MDB_val *key, MDB_val *value) {
    int rc = mdb_get(txn, dbi, key, value);
    if (rc == 0)
        guard_copy(value);
    return rc;
}

static int guard_cursor_get(MDB_cursor *cursor, MDB_val *key, MDB_val *value, MDB_cursor_op op) {
    int rc = mdb_cursor_get(cursor, key, value, op);
    if (rc == 0) {
        guard_copy(key);
        guard_copy(value);
    }
    return rc;
}

static int guard_begin_txn(MDB_env *env, MDB_txn *parent, unsigned int flags, MDB_txn **txn) {
    int rc = mdb_txn_begin(env, parent, flags, txn);
    if (rc == 0 && !(flags & MDB_RDONLY))
        guard_writing = *txn;
    return rc;
}

static int guard_commit(MDB_txn *txn) {
    int rc = mdb_txn_commit(txn);
    guard_writing = NULL;
    return rc;
}

static void guard_abort(MDB_txn *txn) {
    mdb_txn_abort(txn);
    if (txn == guard_writing)
        guard_writing = NULL;
}

static void guard_abort_writing(void) {
    if (guard_writing != NULL) {
        guard_within++;
        guard_abort(guard_writing);
        guard_within--;
    }
}

#define mdb_env_create(...) GUARD(mdb_env_create(__VA_ARGS__))
#define mdb_env_open(...) GUARD(mdb_env_open(__VA_ARGS__))
#define mdb_env_close(...) GUARD_VOID(mdb_env_close(__VA_ARGS__))
#define mdb_env_info(...) GUARD(mdb_env_info(__VA_ARGS__))
#define mdb_env_set_mapsize(...) GUARD(mdb_env_set_mapsize(__VA_ARGS__))
#define mdb_reader_check(...) GUARD(mdb_reader_check(__VA_ARGS__))
#define mdb_txn_begin(...) GUARD(guard_begin_txn(__VA_ARGS__))
#define mdb_txn_commit(...) GUARD(guard_commit(__VA_ARGS__))
#define mdb_txn_abort(...) GUARD_VOID(guard_abort(__VA_ARGS__))
#define mdb_txn_reset(...) GUARD_VOID(mdb_txn_reset(__VA_ARGS__))
#define mdb_txn_renew(...) GUARD(mdb_txn_renew(__VA_ARGS__))
#define mdb_dbi_open(...) GUARD(mdb_dbi_open(__VA_ARGS__))
#define mdb_dbi_close(...) GUARD_VOID(mdb_dbi_close(__VA_ARGS__))
#define mdb_stat(...) GUARD(mdb_stat(__VA_ARGS__))
#define mdb_drop(...) GUARD(mdb_drop(__VA_ARGS__))
#define mdb_get(...) GUARD(guard_get(__VA_ARGS__))
#define mdb_put(...) GUARD(mdb_put(__VA_ARGS__))
#define mdb_cursor_open(...) GUARD(mdb_cursor_open(__VA_ARGS__))
#define mdb_cursor_close(...) GUARD_VOID(mdb_cursor_close(__VA_ARGS__))
#define mdb_cursor_get(...) GUARD(guard_cursor_get(__VA_ARGS__))

#endif
