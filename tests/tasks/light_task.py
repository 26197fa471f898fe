"""A Task that imports nothing itself."""

import sys


def imported():
    """Give the names of all modules that are imported when a Task begins."""
    return sorted(sys.modules)
