"""The conformance kit: the contract of `tasklink.communicator` as checks that anyone can run.

Whoever writes a communicator proves it in one file, with pytest:

    from tasklink.testing import CommunicatorConformance, Subject

    class TestPigeon(CommunicatorConformance):
        def subject(self):
            return Subject(PigeonCommunicator, PigeonSettings())

or without a file, once it is installed: `tasklink verify pigeon`.

    contract        the clauses, as they stand in `tasklink.communicator`
    check           what a check is, and how it fails
    subject         what is checked: both ends in one process, or the other one in a process of its own
    checks/         the checks, a module for each part of the contract
    catalogue       all of them
    verification    running them: outcomes, deadlines, stacks of what hangs
    suite           a thin class for pytest
    machine         hypothesis state machines: over a transport that an adversary holds, and over real processes
    memory          the model: a communicator that passes everything, in few lines
    child, errand   what runs in the processes that the kit starts
    chaos, mortal   Tasks that end in every way, for as long as one likes: `tasklink verify --soak`
    tally           counts that survive who keeps them
    stacks, hangs   where every thread of other processes stands; for tests that hang, as a plugin of pytest
    holdings,
    growth          what is left behind, and memory that is

A check is a plain function of a `Subject` and needs no pytest; `pip install tasklink[testing]` brings pytest for the
class, and hypothesis for what is proved by examples that it thinks of. Whatever is not checked says why.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tasklink.testing.catalogue import CHECKS, GROUPS
    from tasklink.testing.check import Check, ConformanceError, Skipped
    from tasklink.testing.subject import Subject
    from tasklink.testing.suite import CommunicatorConformance
    from tasklink.testing.verification import Finding, verify

_HOMES = {
    "CHECKS": "tasklink.testing.catalogue",
    "GROUPS": "tasklink.testing.catalogue",
    "Check": "tasklink.testing.check",
    "CommunicatorConformance": "tasklink.testing.suite",
    "ConformanceError": "tasklink.testing.check",
    "Finding": "tasklink.testing.verification",
    "Skipped": "tasklink.testing.check",
    "Subject": "tasklink.testing.subject",
    "verify": "tasklink.testing.verification",
}

__all__ = [
    "CHECKS",
    "GROUPS",
    "Check",
    "CommunicatorConformance",
    "ConformanceError",
    "Finding",
    "Skipped",
    "Subject",
    "verify",
]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"tasklink.testing has no {name!r}; it has {', '.join(__all__)}")
    __import__(home)
    return getattr(sys.modules[home], name)
