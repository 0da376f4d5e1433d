"""LMDB, as lmdb.h declares it: only what the core calls."""

cdef extern from "lmdb.h" nogil:
    ctypedef struct MDB_env
    ctypedef struct MDB_txn
    ctypedef struct MDB_cursor
    ctypedef unsigned int MDB_dbi

    ctypedef struct MDB_val:
        size_t mv_size
        void *mv_data

    ctypedef struct MDB_stat:
        unsigned int ms_psize
        size_t ms_entries
        size_t ms_branch_pages
        size_t ms_leaf_pages
        size_t ms_overflow_pages

    ctypedef struct MDB_envinfo:
        size_t me_mapsize
        size_t me_last_pgno
        size_t me_last_txnid
        unsigned int me_maxreaders
        unsigned int me_numreaders

    ctypedef enum MDB_cursor_op:
        MDB_FIRST
        MDB_LAST
        MDB_NEXT
        MDB_PREV
        MDB_SET_KEY
        MDB_SET_RANGE

    unsigned int MDB_NOSUBDIR
    unsigned int MDB_NOLOCK
    unsigned int MDB_NOSYNC
    unsigned int MDB_RDONLY
    unsigned int MDB_NOTLS

    unsigned int MDB_CP_COMPACT
    unsigned int MDB_CREATE
    unsigned int MDB_APPEND

    int MDB_NOTFOUND
    int MDB_VERSION_MISMATCH
    int MDB_INVALID
    int MDB_CORRUPTED
    int MDB_PAGE_NOTFOUND
    int MDB_MAP_FULL
    int MDB_READERS_FULL
    int MDB_MAP_RESIZED

    const char *mdb_version(int *major, int *minor, int *patch)
    const char *mdb_strerror(int err)

    int mdb_env_create(MDB_env **env)
    int mdb_env_open(MDB_env *env, const char *path, unsigned int flags, unsigned int mode)
    void mdb_env_close(MDB_env *env)
    int mdb_env_copyfd2(MDB_env *env, int fd, unsigned int flags)
    int mdb_env_sync(MDB_env *env, int force)
    int mdb_env_set_flags(MDB_env *env, unsigned int flags, int on)
    int mdb_env_info(MDB_env *env, MDB_envinfo *info)
    int mdb_env_set_mapsize(MDB_env *env, size_t size)
    int mdb_env_set_maxreaders(MDB_env *env, unsigned int readers)
    int mdb_env_set_maxdbs(MDB_env *env, MDB_dbi dbs)
    int mdb_env_set_assert(MDB_env *env, void (*function)(MDB_env *env, const char *text) noexcept nogil)
    int mdb_reader_check(MDB_env *env, int *dead)
    ctypedef int (*MDB_msg_func)(const char *message, void *context)
    int mdb_reader_list(MDB_env *env, MDB_msg_func tell, void *context)

    int mdb_txn_begin(MDB_env *env, MDB_txn *parent, unsigned int flags, MDB_txn **txn)
    size_t mdb_txn_id(MDB_txn *txn)
    int mdb_txn_commit(MDB_txn *txn)
    void mdb_txn_abort(MDB_txn *txn)
    void mdb_txn_reset(MDB_txn *txn)
    int mdb_txn_renew(MDB_txn *txn)

    int mdb_dbi_open(MDB_txn *txn, const char *name, unsigned int flags, MDB_dbi *dbi)
    void mdb_dbi_close(MDB_env *env, MDB_dbi dbi)
    int mdb_stat(MDB_txn *txn, MDB_dbi dbi, MDB_stat *stat)
    int mdb_drop(MDB_txn *txn, MDB_dbi dbi, int delete)
    int mdb_get(MDB_txn *txn, MDB_dbi dbi, MDB_val *key, MDB_val *data)
    int mdb_put(MDB_txn *txn, MDB_dbi dbi, MDB_val *key, MDB_val *data, unsigned int flags)
    int mdb_del(MDB_txn *txn, MDB_dbi dbi, MDB_val *key, MDB_val *data)

    int mdb_cursor_open(MDB_txn *txn, MDB_dbi dbi, MDB_cursor **cursor)
    int mdb_cursor_put(MDB_cursor *cursor, MDB_val *key, MDB_val *value, unsigned int flags)
    void mdb_cursor_close(MDB_cursor *cursor)
    int mdb_cursor_get(MDB_cursor *cursor, MDB_val *key, MDB_val *data, MDB_cursor_op op)
