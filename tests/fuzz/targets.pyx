# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Assembly of the fuzz targets: the core as the executable has it, and one function for a sanitizer's fuzzer.

FUZZ_TARGET names the target. Like the executable it is linked without Python, so nothing here may need it.
"""

from libc.stdlib cimport abort, getenv, malloc

cdef extern from "lmdb_guard.h" nogil:
    int guarded(void (*step)() noexcept nogil)
    void guard_begin()
    void guard_end()
    void guard_report()

include "fastgrey/core/core.pxi"


cdef int table_open(MDB_env *env, const char *path, unsigned int flags, mode_t mode) noexcept nogil:
    """By its name: nobody leads a fuzzer's own store elsewhere."""
    return mdb_env_open(env, path, flags, mode)

cdef extern from *:
    """
    #define DEFAULT_STORE "/var/lib/fastgrey"
    #define PROGRAM_VERSION "0"
    """
    const char *DEFAULT_STORE
    const char *PROGRAM_VERSION

include "fastgrey/core/manners.pxi"
include "fastgrey/core/reply.pxi"
include "fastgrey/core/caller.pxi"
include "fastgrey/core/policy_request.pxi"
include "fastgrey/core/policy_reply.pxi"
include "fastgrey/core/errand.pxi"

include "targets/input.pxi"
include "targets/address.pxi"
include "targets/client.pxi"
include "targets/envelope.pxi"
include "targets/pattern.pxi"
include "targets/policy.pxi"
include "targets/record.pxi"
include "targets/caller.pxi"
include "targets/log.pxi"
include "targets/reply.pxi"
include "targets/exchange.pxi"
include "targets/asked.pxi"
include "targets/table.pxi"
include "targets/planted.pxi"


cdef public int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) noexcept nogil:
    cdef const char *target = getenv(b"FUZZ_TARGET")
    cdef Input i
    if target == NULL:
        target = b""
    i.data = data
    i.size = size
    if strcmp(target, b"address") == 0:
        fuzz_address(&i)
    elif strcmp(target, b"client") == 0:
        fuzz_client(&i)
    elif strcmp(target, b"envelope") == 0:
        fuzz_envelope(&i)
    elif strcmp(target, b"pattern") == 0:
        fuzz_pattern(&i)
    elif strcmp(target, b"policy") == 0:
        fuzz_policy(&i)
    elif strcmp(target, b"record") == 0:
        fuzz_record(&i)
    elif strcmp(target, b"caller") == 0:
        fuzz_caller(&i)
    elif strcmp(target, b"log") == 0:
        fuzz_log(&i)
    elif strcmp(target, b"reply") == 0:
        fuzz_reply(&i)
    elif strcmp(target, b"exchange") == 0:
        fuzz_exchange(&i)
    elif strcmp(target, b"asked") == 0:
        fuzz_asked(&i)
    elif strcmp(target, b"table") == 0:
        fuzz_table(&i)
    elif strcmp(target, b"planted") == 0:
        fuzz_planted(&i)
    else:
        require(False, b"FUZZ_TARGET names no target")
    release()
    return 0
