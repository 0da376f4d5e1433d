# How the executable opens a table: by its name, as LMDB does, and without following a link.
#
# The linker sends every open() of the executable here (--wrap), LMDB's too, which itself follows links; what was
# compiled for large files, as the core is, calls it open64(). It costs no system call more. A directory of the store
# that is a link is followed: what a hook makes there is its user's anyway.

cdef extern int straight_real "__real_open"(const char *path, int flags, mode_t mode) noexcept nogil
cdef extern int straight_real64 "__real_open64"(const char *path, int flags, mode_t mode) noexcept nogil


cdef public int straight_open "__wrap_open"(const char *path, int flags, mode_t mode) noexcept nogil:
    """open(2), whose third argument need not be there, by the name itself and not by where a link leads."""
    return straight_real(path, flags | O_NOFOLLOW, mode)


cdef public int straight_open64 "__wrap_open64"(const char *path, int flags, mode_t mode) noexcept nogil:
    """The same for files whose size takes 64 bits, be it on a machine of 32."""
    return straight_real64(path, flags | O_NOFOLLOW, mode)


cdef int table_open(MDB_env *env, const char *path, unsigned int flags, mode_t mode) noexcept nogil:
    return mdb_env_open(env, path, flags, mode)
