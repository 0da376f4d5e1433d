# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Assembly of the executable qmail-checkenv. It is linked without Python, so nothing here may need it."""

from libc.stdlib cimport getenv

include "core/core.pxi"

cdef extern from *:
    """
    #ifndef FASTGREY_DEFAULT_STORE
    #define FASTGREY_DEFAULT_STORE "/var/lib/fastgrey"
    #endif
    #ifndef FASTGREY_VERSION
    #define FASTGREY_VERSION "unknown"
    #endif
    """
    const char *DEFAULT_STORE "FASTGREY_DEFAULT_STORE"
    const char *PROGRAM_VERSION "FASTGREY_VERSION"

include "core/straight.pxi"
include "core/manners.pxi"
include "core/reply.pxi"
include "core/caller.pxi"
include "core/help.pxi"
include "core/hook.pxi"
