"""Configuration: the only reader of TOML files and of the environment.

    configuration   Config: everything together, checked
    document        file, environment and command line, laid over one another
    variable        the environment
    spec            TaskSpec: one Task
    structure       tables to attrs classes
    problem         what is wrong, and where
    position        the lines of keys
    notation        how TOML writes keys and values
    quantity        sizes and durations

A module imports only from those below its own.
"""

from tasklink.config.configuration import Config, Entry, parse_overrides
from tasklink.config.problem import nearest
from tasklink.config.quantity import Duration, Size, format_duration, format_size, parse_duration, parse_size
from tasklink.config.spec import UNTRUSTED, Limits, TaskSpec
from tasklink.config.structure import Table, structure
from tasklink.config.variable import environment, unbound_environment

__all__ = (
    "UNTRUSTED",
    "Config",
    "Duration",
    "Entry",
    "Limits",
    "Size",
    "Table",
    "TaskSpec",
    "environment",
    "format_duration",
    "format_size",
    "nearest",
    "parse_duration",
    "parse_overrides",
    "parse_size",
    "structure",
    "unbound_environment",
)
