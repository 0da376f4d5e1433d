# The core in the order of its parts. Each file uses only what stands above it.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memchr, memcmp, memcpy, memmove, memset, strcmp, strcpy, strlen, strncmp

from fastgrey.includes.atomic cimport *
from fastgrey.includes.lmdb cimport *
from fastgrey.includes.posix cimport *
from fastgrey.includes.xxhash cimport *

include "limits.pxi"
include "text.pxi"
include "verdict.pxi"
include "address.pxi"
include "client.pxi"
include "record.pxi"
include "head.pxi"
include "envelope.pxi"
include "key.pxi"
include "counters.pxi"
include "rings.pxi"
include "environment.pxi"
include "regexes.pxi"
include "store.pxi"
include "passed.pxi"
include "policy.pxi"
include "pattern.pxi"
include "rules.pxi"
include "window.pxi"
include "judge.pxi"
include "known.pxi"
include "partition.pxi"
include "room.pxi"
include "rollover.pxi"
include "pending.pxi"
include "question.pxi"
include "ask.pxi"
include "decide.pxi"
include "log.pxi"
include "log_json.pxi"
include "trace.pxi"
