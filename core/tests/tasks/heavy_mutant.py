"""A communicator whose module needs what a Task's interpreter may not have."""

import attrs  # noqa: F401
from mutants import IsHeavy  # noqa: F401
