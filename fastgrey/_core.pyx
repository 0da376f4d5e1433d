# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Assembly of the extension: the core behind Python objects. Nothing here decides anything."""

import os
import threading
import time as clock
from pathlib import Path

from . import inside
from .errors import ClosedError, CompactionError, ForkedError, RequestError, StoreError, VerificationError
from .verdict import Verdict

include "core/core.pxi"
include "core/view.pxi"
include "core/compact.pxi"
include "core/walk.pxi"
include "core/amend.pxi"
include "core/case.pxi"
include "core/slots.pxi"
include "core/policy_request.pxi"
include "core/policy_reply.pxi"
include "core/log_queue.pxi"
include "core/errand.pxi"
include "core/connections.pxi"
include "core/tally.pxi"
include "core/difference.pxi"

include "binding/convert.pxi"
include "binding/functions.pxi"
include "binding/policy.pxi"
include "binding/create.pxi"
include "binding/counters.pxi"
include "binding/store.pxi"
include "binding/slots.pxi"
include "binding/case.pxi"
include "binding/connections.pxi"
include "binding/windows.pxi"
include "binding/keys.pxi"
include "binding/explain.pxi"
include "binding/copy.pxi"
include "binding/records.pxi"
include "binding/generation.pxi"
include "binding/succession.pxi"
include "binding/health.pxi"
