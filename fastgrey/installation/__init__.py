"""A hook in its place on a mail server: the program, its store, what to write where, and whether all of it fits.

Every hook gets a copy of its own. A mail server has one of them as a rule, and a copy can be exchanged and taken away
without a look at the others; links would save a megabyte for each further one.
"""

from .job import Job, plan

__all__ = ["Job", "plan"]
