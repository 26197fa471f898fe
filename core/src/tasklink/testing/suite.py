"""The checks as tests of pytest: a class to derive from.

    class TestPigeon(CommunicatorConformance):
        def subject(self):
            return Subject(PigeonCommunicator, PigeonSettings())

There is a test for each check, `test_order_of_one_writer` for `check_order_of_one_writer`. None of them can be replaced
or left out. What is known to fail is said so, with the reason:

        xfail = {"check_a_wrong_key": "the key is checked from version 0.2 on"}

and fails again on the day on which it passes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import pytest

from tasklink.testing.catalogue import CHECKS
from tasklink.testing.verification import run

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tasklink.testing.check import Check
    from tasklink.testing.subject import Subject


def _test_name(check: Check) -> str:
    return check.name.replace("check_", "test_", 1)


class CommunicatorConformance:
    """Proves the contract of a communicator; derive from it, and define `subject`.

    Attributes:
        xfail: by the names of checks, why they are known to fail.
    """

    xfail: ClassVar[Mapping[str, str]] = {}

    def subject(self) -> Subject:
        """Say what is checked; called for each test."""
        raise NotImplementedError(f"{type(self).__name__} has to define subject(self), which gives a Subject")

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        tests = {_test_name(check): check.name for check in CHECKS}
        for name in tests.keys() & vars(cls).keys():
            raise TypeError(
                f"{cls.__name__} replaces {name}, which is a clause of the contract. What is known to fail is named: "
                f'xfail = {{"{tests[name]}": "the reason"}}'
            )
        for name, reason in cls.xfail.items():
            if name not in tests.values():
                raise TypeError(f"{cls.__name__}.xfail names {name!r}, which is no check")
            if not isinstance(reason, str) or not reason.strip():
                raise TypeError(f"{cls.__name__}.xfail[{name!r}] has no reason: say why it is known to fail")


class CommunicatorSoak(CommunicatorConformance):
    """The checks that take long. Mark what you derive from it as your project marks long runs."""


def _test_of(check: Check) -> Callable[[CommunicatorConformance], None]:
    def test(self: CommunicatorConformance) -> None:
        finding = run(check, self.subject())
        known = self.xfail.get(check.name)
        if finding.outcome == "skipped":
            pytest.skip(finding.reason)
        if finding.outcome == "fail":
            if known is not None:
                pytest.xfail(known)
            pytest.fail(finding.reason, pytrace=False)
        if known is not None:
            pytest.fail(f"{check.name} passes now; take it out of xfail, where it says: {known}", pytrace=False)

    test.__name__ = _test_name(check)
    test.__doc__ = check.title
    return test


for _check in CHECKS:
    setattr(CommunicatorSoak if _check.soak else CommunicatorConformance, _test_name(_check), _test_of(_check))
