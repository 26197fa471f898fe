"""What a check is: a function of a Subject, with data about it.

A check proves one clause of the contract. Its documentation says what it does and, behind the word "Mended:", how what
it finds is usually mended. It ends in one of three ways: it returns; it raises `Skipped`, with the reason; or it raises
`ConformanceError`, whose text holds the clause, what was seen, and how to mend it. Whatever else comes out of it is
what a communicator did that it must not do, and becomes a ConformanceError as well.

A check that does not end within its deadline, and is not at work any more, has found that something hangs.
"""

from __future__ import annotations

import inspect
import sys
import textwrap
import traceback
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from tasklink.testing.contract import CLAUSES
from tasklink.testing.work import Work, waited

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tasklink.testing.subject import Subject

    Need = Callable[[Subject], str | None]

_REMEDY = "Mended:"
# For what a check needs beside its waits, each of which the patience bounds.
_DEADLINE = 4.0


class ConformanceError(AssertionError):
    """A communicator does not keep a clause of the contract."""


class Skipped(Exception):  # noqa: N818 - it is no error, and says why a check does not apply
    """A check does not apply; its text is the reason."""


@attrs.frozen(eq=False)
class Check:
    """One check. To call it is to run it.

    Attributes:
        function: what it does.
        clause: the number of the clause that it proves.
        group: what it belongs to, for `--only`.
        needs: each says why the check does not apply to a Subject, or None when it does.
        soak: it is for long runs only.
        deadline: after how many times the patience of the Subject it counts as hanging.
    """

    function: Callable[[Subject], None]
    clause: str
    group: str
    needs: Sequence[Need] = ()
    soak: bool = False
    deadline: float = _DEADLINE

    @property
    def name(self) -> str:
        """The name of its function."""
        return self.function.__name__

    @property
    def title(self) -> str:
        """What it proves, in a line."""
        return _paragraphs(self.function)[0]

    @property
    def remedy(self) -> str:
        """How what it finds is usually mended."""
        found = [text for text in _paragraphs(self.function) if text.startswith(_REMEDY)]
        return found[0].removeprefix(_REMEDY).strip() if found else ""

    def __call__(self, subject: Subject) -> None:
        """Run it.

        Raises:
            ConformanceError: the communicator does not keep the clause, or the check hangs.
            Skipped: it does not apply.
        """
        for need in self.needs:
            reason = need(subject)
            if reason is not None:
                raise Skipped(reason)
        subject = subject.fresh()
        work = Work(self._run, subject)
        try:
            deadline = subject.patience * self.deadline
            if not waited(work.ended, deadline, subject.worked):
                raise self._error(f"it hangs: it has not ended after {deadline:g} s\n{_stacks(work, subject)}")
        finally:
            started = subject.children[:]
            subject.end_children()
        error = work.error
        if error is None:
            return
        if isinstance(error, Skipped):
            raise error
        seen = str(error) if isinstance(error, ConformanceError) else _unexpected(error)
        seen += "".join(
            f"\n    {note}" for note in getattr(error, "__notes__", ())
        )  # hypothesis shows an example there
        seen += "".join(f"\n  process {child.pid} ({child.errand}): {child.fate}" for child in started if child.fate)
        raise self._error(seen) from (None if isinstance(error, ConformanceError) else error)

    def _run(self, subject: Subject) -> None:
        with warnings.catch_warnings():
            # What a communicator warns of when it is closed with messages that nobody reads is no failure of a check.
            warnings.simplefilter("ignore")
            self.function(subject)

    def _error(self, seen: str) -> ConformanceError:
        text = CLAUSES.get(self.clause, "")
        lines = [f"clause {self.clause}: {text}", f"  seen: {seen}", f"  usually mended by: {self.remedy}"]
        return ConformanceError("\n".join(lines))


def clause(
    number: str, *, group: str, needs: Sequence[Need] = (), soak: bool = False, deadline: float = _DEADLINE
) -> Callable[[Callable[[Subject], None]], Check]:
    """Make a check of a function.

    Args:
        number: of the clause that it proves.
        group: what it belongs to.
        needs: each says why the check does not apply to a Subject, or None when it does.
        soak: it is for long runs only.
        deadline: after how many times the patience of the Subject it counts as hanging.
    """

    def decorate(function: Callable[[Subject], None]) -> Check:
        return Check(function, number, group, tuple(needs), soak, deadline)

    return decorate


def expect(kept: object, seen: str) -> None:
    """Fail a check unless something is true.

    Args:
        kept: what has to be true.
        seen: what there is to see when it is not.

    Raises:
        ConformanceError: it is not true.
    """
    if not kept:
        raise ConformanceError(seen)


def expect_error(
    kinds: type[BaseException] | tuple[type[BaseException], ...], call: Callable[..., object], *arguments: object
) -> BaseException:
    """Fail a check unless a call raises what it should; gives what it raised.

    Raises:
        ConformanceError: it returned, or raised something else.
    """
    wanted = " or ".join(kind.__name__ for kind in (kinds if isinstance(kinds, tuple) else (kinds,)))
    name = getattr(call, "__name__", str(call))
    try:
        value = call(*arguments)
    except kinds as error:
        return error
    except Exception as error:
        raise ConformanceError(f"{name} raised {_told(error)} instead of {wanted}") from error
    raise ConformanceError(f"{name} returned {value!r} instead of raising {wanted}")


def _paragraphs(function: Callable[..., object]) -> list[str]:
    return [" ".join(text.split()) for text in inspect.cleandoc(function.__doc__ or "?").split("\n\n")]


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _unexpected(error: BaseException) -> str:
    """Say what came out of a check that it did not ask for, and where."""
    frames = traceback.extract_tb(error.__traceback__)
    where = " < ".join(f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames[:-6:-1])
    return f"{_told(error)} (at {where})"


def _stacks(work: Work[None], subject: Subject) -> str:
    """Say where everything stands that ought to have ended."""
    frames = sys._current_frames()
    stacks = []
    for thread in (work.thread, *subject.threads()):
        frame = frames.get(thread.ident or 0)
        if frame is not None and thread.is_alive():
            stacks.append(f"thread {thread.name} of this process:\n{''.join(traceback.format_stack(frame)[-8:])}")
    stacks += [f"process {child.pid} ({child.errand}):\n{child.stacks()}" for child in subject.children]
    return textwrap.indent("\n".join(stacks), "    ")
