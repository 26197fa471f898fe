"""Conversations that hypothesis thinks of, compared with a list: over an adversary, and between two processes.

Each is a state machine: whatever can be done at a moment is a rule, and hypothesis looks for an order of a few steps
that breaks the contract. When it has found one, it shows the shortest.

    adversary_machine(make)    two ends of a StreamCommunicator, over a transport that an adversary holds
    process_machine(subject)   any communicator; the Task's end is in another process, which is stopped and killed

With pytest: `TestPigeon = adversary_machine(PigeonCommunicator).TestCase`; or by `hypothesis.stateful`.
"""

from __future__ import annotations

import signal
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from tasklink.message import Message
from tasklink.testing.adversary import Adversary
from tasklink.testing.check import ConformanceError, expect
from tasklink.testing.errand import attempt, heard, obey, pattern

if TYPE_CHECKING:
    from collections.abc import Callable

    from tasklink.communicator import Communicator
    from tasklink.testing.subject import Child, Subject

SIZES = st.sampled_from([0, 1, 100, 4095, 4096, 5000, 20_000, 65_536, 300_000]) | st.integers(0, 70_000)
SIGNALS = st.sampled_from([None, "cancel", "pause"])
WAYS = st.sampled_from([0, 1])
# A conversation is to go on for a while before somebody closes or dies.
CHANCES = st.integers(0, 99).map(lambda number: number >= 80)


class Sent:
    """The list that one direction is compared with: what was written and has not been read."""

    def __init__(self) -> None:
        self._waiting: list[tuple[int, int, str | None, bool]] = []
        self._count = 0

    def next_number(self) -> int:
        """The number of the next message."""
        self._count += 1
        return self._count

    def wrote(self, number: int, size: int, name: str | None, *, certain: bool) -> None:
        """Take note of a message: its `write` has returned, or has run out of time."""
        self._waiting.append((number, size, name, certain))

    @property
    def owed(self) -> int:
        """How many messages have to come."""
        return sum(certain for *_, certain in self._waiting)

    @property
    def unsure(self) -> bool:
        """Whether a message may come of which a part may have come."""
        return len(self._waiting) > self.owed

    def came(self, name: str | None, contents: Any) -> None:
        """Compare what was read with what is next.

        Raises:
            ConformanceError: it is another one, or torn; or one that has to come before it is missing.
        """
        number, data = contents
        while self._waiting:
            wanted, size, signal_name, certain = self._waiting.pop(0)
            if wanted == number:
                whole = data == pattern(size, number) and name == signal_name
                expect(whole, f"message {number} came with other bytes, or another signal, than were written")
                return
            expect(not certain, f"message {number} came, and message {wanted} before it did not")
        raise ConformanceError(f"message {number} came again, or was never written")

    def forget(self) -> None:
        """Nobody will read the rest."""
        self._waiting.clear()


class Conversation(RuleBasedStateMachine):
    """What both machines have: two ends by number, the list for each direction, and what an outcome may be."""

    delivers_when_closed = False

    def __init__(self) -> None:
        super().__init__()
        self.begin()

    def begin(self) -> None:
        """Begin with two new ends."""
        self.sent = [Sent(), Sent()]  # by who wrote
        self.living = [True, True]
        self.killed = [False, False]

    def wrote(self, end: int, size: int, name: str | None, number: int, outcome: tuple[str, Any]) -> None:
        """Judge the outcome of a write."""
        kind, value = outcome
        if kind == "value" or value == "TimeoutError":
            self.sent[end].wrote(number, size, name, certain=kind == "value")
        else:
            expect(not self.living[1 - end] and value == "BrokenError", f"`write` raised {value}, and its peer lives")

    def read(self, end: int, outcome: tuple[str, Any], *, patient: bool) -> bool:
        """Judge the outcome of a read; whether there may be more."""
        kind, value = outcome
        sent, writer_lives = self.sent[1 - end], self.living[1 - end]
        if kind == "value":
            sent.came(*value)
            return True
        if value == "TimeoutError":
            expect(not patient or not sent.owed, f"{sent.owed} messages were written, and none comes")
            return False
        lost = self.killed[1 - end] and self.delivers_when_closed
        expect(not writer_lives, f"`read` raised {value}, and its peer lives")
        expect(not sent.owed or lost, f"`read` raised {value}, and {sent.owed} messages have not come")
        allowed = value == "EndOfMessages" or (value == "BrokenError" and (sent.unsure or self.killed[1 - end]))
        expect(allowed, f"`read` raised {value} after the last message of a peer that closed")
        return False


def adversary_machine(make: Callable[[int, int], Communicator]) -> type[RuleBasedStateMachine]:
    """Make a machine of two ends over a transport that an adversary holds.

    Args:
        make: makes an end of a connected socket: `make(reader, writer)`, as a StreamCommunicator is made.
    """

    class OverAnAdversary(Conversation):
        def begin(self) -> None:
            super().begin()
            self.adversary = Adversary(make)

        @precondition(lambda self: not all(self.living))
        @rule()
        def open_again(self) -> None:
            self.teardown()
            self.begin()

        @rule(end=WAYS, size=SIZES, name=SIGNALS, timeout=st.sampled_from([0, 0.001]))
        def write(self, end: int, size: int, name: str | None, timeout: float) -> None:
            if self.living[end]:
                number = self.sent[end].next_number()
                message = Message((number, pattern(size, number)), name)
                outcome = attempt(self.adversary.ends[end].write, message, timeout)
                self.wrote(end, size, name, number, outcome)

        @rule(end=WAYS, count=st.integers(1, 5))
        def receive(self, end: int, count: int) -> None:
            for _ in range(count if self.living[end] else 0):
                if not self.read(end, self._read(end), patient=False):
                    return

        @rule(end=WAYS, count=st.sampled_from([1, 2, 15, 16, 17, 55, 57, 1000, 4096]) | st.integers(1, 70_000))
        def deliver(self, end: int, count: int) -> None:
            self.adversary.deliver(end, count)

        @rule(end=WAYS)
        def deliver_and_read_all(self, end: int) -> None:
            self._drain(end)

        @precondition(lambda self: all(self.living))
        @rule(end=WAYS, chance=CHANCES)
        def close_one(self, end: int, chance: bool) -> None:
            if chance:
                self.adversary.ends[end].close()
                self._gone(end)

        @precondition(lambda self: all(self.living))
        @rule(end=WAYS, chance=CHANCES)
        def kill_one(self, end: int, chance: bool) -> None:
            if chance:
                self.killed[end] = True
                self._gone(end)

        def _gone(self, end: int) -> None:
            self.living[end] = False
            self.adversary.end(end)
            self.sent[1 - end].forget()

        def _read(self, end: int) -> tuple[str, Any]:
            return attempt(lambda: heard(self.adversary.ends[end].read(0)))

        def _drain(self, writer: int) -> None:
            """Pass on everything, until its reader has read it."""
            if not self.living[1 - writer]:
                return
            idle = 0
            while idle < 2:  # a read that gives nothing may have made room
                moved = self.adversary.deliver_all(writer)
                more = self.read(1 - writer, self._read(1 - writer), patient=False)
                idle = 0 if moved or more else idle + 1
            expect(not self.sent[writer].owed, f"{self.sent[writer].owed} messages were passed on, and do not come")

        def teardown(self) -> None:
            try:
                for end in (0, 1):
                    self._drain(end)
            finally:
                for end in (0, 1):
                    if self.living[end] or self.killed[end]:
                        self.adversary.ends[end].close()
                self.adversary.close()

    return OverAnAdversary


def process_machine(subject: Subject) -> type[RuleBasedStateMachine]:
    """Make a machine of a communicator whose Task's end is in another process, which may be stopped and killed."""

    class BetweenProcesses(Conversation):
        delivers_when_closed = subject.kind.capabilities.delivery == "flush"

        def begin(self) -> None:
            super().begin()
            self.stopped = False
            self.opened = ExitStack()
            ends = self.opened.enter_context(subject.peer(obey))
            self.ours: Communicator = ends[0]
            self.child: Child = ends[1]
            self._there("read", 0)  # it is there, and bears to be interrupted

        @precondition(lambda self: not all(self.living))
        @rule()
        def open_again(self) -> None:
            self.teardown()
            self.begin()

        def _there(self, *order: object) -> tuple[str, Any]:
            outcome: tuple[str, Any] = self.child.ask(*order)
            return outcome

        @precondition(lambda self: self.living[0])
        @rule(size=SIZES, name=SIGNALS, timeout=st.sampled_from([0.02, 0.1]))
        def write_here(self, size: int, name: str | None, timeout: float) -> None:
            number = self.sent[0].next_number()
            outcome = attempt(self.ours.write, Message((number, pattern(size, number)), name), timeout)
            self.wrote(0, size, name, number, outcome)

        @precondition(lambda self: self.living[1] and not self.stopped)
        @rule(size=SIZES, name=SIGNALS, timeout=st.sampled_from([0.02, 0.1]))
        def write_there(self, size: int, name: str | None, timeout: float) -> None:
            number = self.sent[1].next_number()
            outcome = self._there("tell", (number, pattern(size, number)), name, timeout)
            self.wrote(1, size, name, number, outcome)

        @precondition(lambda self: self.living[0])
        @rule()
        def read_here(self) -> None:
            patient = bool(self.sent[1].owed) or not self.living[1]
            outcome = attempt(lambda: heard(self.ours.read(subject.patience if patient else 0)))
            self.read(0, outcome, patient=patient)

        @precondition(lambda self: self.living[1] and not self.stopped)
        @rule()
        def read_there(self) -> None:
            patient = bool(self.sent[0].owed) or not self.living[0]
            self.read(1, self._there("read", subject.patience if patient else 0), patient=patient)

        @precondition(lambda self: self.living[1] and not self.stopped)
        @rule()
        def stop(self) -> None:
            self.child.signal(signal.SIGSTOP)
            self.stopped = True

        @precondition(lambda self: self.stopped)
        @rule()
        def go_on(self) -> None:
            self.child.signal(signal.SIGCONT)
            self.stopped = False

        @precondition(lambda self: self.living[1])
        @rule()
        def interrupt(self) -> None:
            self.child.signal(signal.SIGUSR1)

        @precondition(lambda self: all(self.living))
        @rule(chance=CHANCES)
        def kill(self, chance: bool) -> None:
            if chance:
                self.child.kill()
                self.living[1], self.killed[1], self.stopped = False, True, False
                self.sent[0].forget()

        @precondition(lambda self: all(self.living) and not self.stopped)
        @rule(chance=CHANCES)
        def close_here(self, chance: bool) -> None:
            if chance:
                # Who delivers when it is closed waits for its reader.
                self.closing = subject.start(self.ours.close)
                self.living[0] = False
                self.sent[1].forget()

        def teardown(self) -> None:
            try:
                if self.stopped:
                    self.go_on()
                for reader, read in ((0, self.read_here), (1, self.read_there)):
                    while self.living[reader] and self.sent[1 - reader].owed and not self.killed[1 - reader]:
                        read()
                if not self.living[0]:
                    expect(self.closing.ended(subject.patience), "`close` does not return although all was read")
            finally:
                self.opened.close()

    return BetweenProcesses


def converse(machine: type[RuleBasedStateMachine], *, examples: int, steps: int, repeatable: bool) -> None:
    """Have hypothesis look for a conversation that breaks the contract.

    Args:
        machine: one of the above.
        examples: how many conversations.
        steps: how many steps each of them has at most.
        repeatable: the same ones each time.
    """
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples, stateful_step_count=steps, deadline=None, database=None, derandomize=repeatable,
            # Not `explain`, which traces every line: it takes minutes.
            phases=[Phase.generate, Phase.shrink], report_multiple_bugs=False, suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip
