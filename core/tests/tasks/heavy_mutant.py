"""A communicator whose module needs what a Task's interpreter may not have."""

import attrs  # noqa: F401 - that it is imported is the fault
from mutants import IsHeavy

__all__ = ["IsHeavy"]
