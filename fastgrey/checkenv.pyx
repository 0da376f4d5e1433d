# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Assembly of the executable qmail-checkenv. It is linked without Python, so nothing here may need it."""

include "core/core.pxi"
include "core/hook.pxi"
