"""One run of a Task, from the start of its process to its TaskResult.

One loop in the caller's thread waits for everything at once: messages, late peers, the end of the process, deadlines,
and the wishes of other threads. Only START, whose parameters may be large, is written by a thread of its own: the loop
must go on reading meanwhile, or a Task that prints a lot before it listens would wait for us while we wait for it.

Rules of this file: the loop decodes nothing that a Task made, except records of text. It waits on descriptors with
deadlines of the monotonic clock, and nowhere else. The run is over when the process has ended and everything that the
kernel holds of it was read; a descendant that keeps the output open does not prolong it.
"""

from __future__ import annotations

import select
import selectors
import signal
import threading
import uuid
from collections import deque
from contextlib import ExitStack, suppress
from time import monotonic
from typing import TYPE_CHECKING

import attrs

from tasklink import framing, vocabulary
from tasklink.doorbell import Doorbell
from tasklink.errors import (
    CommunicatorError,
    EndOfMessages,
    LimitExceededError,
    MessageError,
    ProtocolError,
    SignalNotDeliveredError,
    TaskNotStartedError,
)
from tasklink.escalation import Escalation, Step
from tasklink.hooks import TaskInfo
from tasklink.link import Link
from tasklink.message import Message
from tasklink.plan import CODECS
from tasklink.reception import Reception
from tasklink.result import Status, TaskResult, Traffic
from tasklink.verdict import Ending, Evidence, judge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tasklink.communicator import Listener
    from tasklink.hooks import Observers
    from tasklink.plan import Plan
    from tasklink.process import Process

# More than the channels of a dead Task hold. See `Run._drain`.
DRAINED_OUTPUT = 32 << 20
DRAINED_MESSAGES = 1 << 30
# What one message counts for at most: what lies in a channel may be the end of a much larger one.
COUNTED_OF_A_MESSAGE = 16 << 20
# A communicator that receives in a thread of its own may need a moment for what the kernel holds. See `Run._drain`.
LAST_WORDS = 1.0
# For messages that must not hold up the loop: a Task that listens takes them at once.
CONTROL_SECONDS = 0.1
# From telling a Task that Ctrl-C was pressed to SIGTERM, and on to SIGKILL: who pressed it waits no more than 200 ms.
INTERRUPT_GRACE = 0.075
# A Task has this long to say hello: enough for a cold file system on a busy node.
START_SECONDS = 60.0
# epoll counts milliseconds in a C int, and refuses more than 24 days.
LONGEST_WAIT = 86_400.0
# Then the loop looks at everything else again.
MESSAGES_AT_ONCE = 256


class Run:
    """One run. `execute` belongs to one thread; `signal`, `cancel`, `pause`, `resume` and `follow` to any.

    Args:
        plan: what to do; it is closed at the end.
        observers: are told what happens.
    """

    def __init__(self, plan: Plan, observers: Observers) -> None:
        spec = plan.spec
        self._plan = plan
        self._observers = observers
        self._evidence = Evidence(label=spec.label, command=plan.order is None, data_only=spec.codec == "json")
        info = TaskInfo(run_id=uuid.uuid4().hex, name=spec.label, communicators=plan.names)
        self._reception = Reception(spec, info, self._evidence, observers)
        self._link = Link(
            [],
            routes=spec.routes,
            encoding=CODECS[spec.codec],
            largest=spec.limits.message,
            deepest=spec.limits.depth,
            on_broken=self._tell_of_broken,
        )
        self._process: Process | None = None
        self._clock = _Clock(timeout=spec.timeout, escalation=Escalation(spec.grace or 0.0))
        self._order_thread: threading.Thread | None = None
        self._heard = False  # what is written reaches the Task
        self._to_be_asked = False  # to end, as soon as it can be told
        self._wishes: deque[Callable[[], None]] = deque()
        self._bell = Doorbell()
        self._can_talk = threading.Event()  # START is written, or the run is over
        self._over = False
        self._lock = threading.Lock()  # nobody rings a bell that is gone: its descriptor may be another's by then

    # For the thread that executes it

    def execute(self) -> TaskResult:
        """Run the Task to its end.

        Raises:
            OSError: a file for the output cannot be written.
            KeyboardInterrupt: after the Task was ended.
        """
        with ExitStack() as stack:
            stack.enter_context(self._plan)
            stack.callback(self._close)
            stack.enter_context(self._reception)
            try:
                self._process = stack.enter_context(self._plan.start())
            except TaskNotStartedError as error:
                self._evidence.not_started = error
                return self._conclude()
            # A command never says hello, and a launcher may wait in a queue for hours.
            spoken_to_soon = self._plan.order is not None and not self._plan.spec.prefix
            self._clock.start(start_timeout=START_SECONDS if spoken_to_soon else None)
            self._reception.started(self._process.pid)
            try:
                with selectors.DefaultSelector() as selector:
                    self._look_out(selector)
                    self._supervise(selector)
            except BaseException:  # KeyboardInterrupt above all; whatever it is, the Task must not outlive it
                self._end_quickly()
                raise
            return self._conclude()

    def _look_out(self, selector: selectors.BaseSelector) -> None:
        """Say what is to be waited for."""
        assert self._process is not None
        for name, listener in self._plan.channels:
            self._admit(name, listener, selector)
        selector.register(self._process, selectors.EVENT_READ)
        selector.register(self._link, selectors.EVENT_READ)
        selector.register(self._bell, selectors.EVENT_READ, self._grant_wishes)

    def _supervise(self, selector: selectors.BaseSelector) -> None:
        """Wait and act until the process has ended and all that it said was heard."""
        assert self._process is not None
        more = False
        while not self._process.ended():
            for key, _ in selector.select(0 if more else self._clock.time_left()):
                if key.data is not None:
                    key.data()
            more = self._read()
            self._act_on_time()
        self._clock.stop()
        self._evidence.exit = self._process.reap(leave_descendants=self._plan.spec.leave_descendants)
        self._drain()

    def _admit(self, name: str, listener: Listener, selector: selectors.BaseSelector) -> None:
        """Take in a peer that has come; look out for one that has not."""
        waiting = listener.fileno()
        try:
            communicator = listener.accept(timeout=0)
        except TimeoutError:
            assert waiting is not None
            if waiting not in selector.get_map():
                selector.register(waiting, selectors.EVENT_READ, lambda: self._admit(name, listener, selector))
            return
        except CommunicatorError as error:
            if waiting is not None and waiting in selector.get_map():
                selector.unregister(waiting)
            self._tell_of_broken(name, error)
            return
        if waiting is not None and waiting in selector.get_map():
            selector.unregister(waiting)
        self._link.add(name, communicator)
        if self._plan.ways == 1 and communicator.capabilities.carries_messages:
            self._begin_to_talk()

    def _begin_to_talk(self) -> None:
        """Have the order given. Where there are several ways, only when the Task has said which of them it has."""
        self._heard = True
        if self._plan.order is not None:
            if self._to_be_asked:
                self._ask()
            self._order_thread = threading.Thread(target=self._give_order, name="tasklink-start", daemon=True)
            self._order_thread.start()

    def _give_order(self) -> None:
        assert self._plan.order is not None
        try:
            self._link.write(self._plan.order)
        except CommunicatorError:
            pass  # a Task that has ended already cannot be told; how it ended is found out by the loop
        except MessageError as error:
            ending = Ending(Status.NOT_STARTED, f"what it shall run cannot be sent: {error}", error)
            self._wish(lambda: self._end(ending))
        self._can_talk.set()

    # What the Task says

    def _read(self) -> bool:
        """Take in what is there; True when there may be more."""
        try:
            for _ in range(MESSAGES_AT_ONCE):
                self._reception.take(self._link.read(timeout=0))
        except (TimeoutError, EndOfMessages):
            return False
        return True

    def _drain(self) -> None:
        """Take in all that the kernel still holds of a Task that has ended, however long that takes.

        Only bytes bound it, so that a machine under load loses nothing: more than the channels can hold was written
        afterwards, by a descendant that goes on. What was flushed may be on its way through a thread of ours, and show
        nowhere meanwhile: then the end is waited for, which does not come while a descendant has the channel.
        """
        self._link.peer_is_gone()
        poll = select.poll()
        poll.register(self._link, select.POLLIN)
        output, messages = DRAINED_OUTPUT, DRAINED_MESSAGES
        with suppress(EndOfMessages):
            while messages > 0:
                try:
                    message = self._link.read(timeout=0)
                except TimeoutError:
                    flushed = any(
                        member.readable and member.communicator.capabilities.delivery == "flush"
                        for member in self._link.members
                    )
                    if not poll.poll(LAST_WORDS * 1000 if flushed else 0):
                        return
                    continue
                size = message.nbytes
                if message.signal in vocabulary.OUTPUT:
                    output -= size
                else:
                    messages -= min(size, COUNTED_OF_A_MESSAGE) + framing.PREFIX.size
                if output < 0:
                    self._link.stop_reading_output()
                self._reception.take(message)

    def _tell_of_broken(self, name: str, error: CommunicatorError) -> None:
        """Called by the thread that finds out. That the last one cannot be read any more is found out by the loop."""
        if isinstance(error, LimitExceededError) and self._plan.spec.limits.message is not None:
            error = LimitExceededError(f"{error}, `limits.message` of the Task")
        self._reception.broken(name, error)
        if isinstance(error, ProtocolError) and not self._link.hears and self._evidence.exit is None:
            self._end(Ending(Status.CRASHED, f"communicator {name!r} broke, and no other is left: {error}", error))

    # Ending it

    def _act_on_time(self) -> None:
        now = monotonic()
        if self._evidence.hello:
            self._clock.hello_deadline = None
            if not self._heard:
                connected = (self._reception.connected or frozenset()) & frozenset(self._plan.names)
                self._link.limit_writing(connected or self._plan.names)
                self._begin_to_talk()
        excess = self._reception.excess
        if excess is not None and self._evidence.excess is None:
            self._evidence.excess = excess
            self._end(Ending(Status.CRASHED, str(excess), excess))
        if self._reception.rests:
            self._reception.rests = False
            self._clock.pause_deadline = None
        step = self._clock.escalation.due(now)
        if step is not None:
            self._take(step)
        overdue = self._clock.overdue(now)
        if overdue is not None:
            self._end(overdue)
        if self._clock.pause_overdue(now):
            self._stop()

    def _end(self, ending: Ending, grace: float | None = None) -> None:
        """Begin to end the run; what was begun goes on, or begins anew if it is given a grace of its own."""
        if grace is not None:
            self._clock.escalation = Escalation(grace)
        if self._evidence.ending is None or grace is not None:
            if self._evidence.ending is None:
                assert self._process is not None
                self._evidence.ending = attrs.evolve(ending, stopped=self._process.stopped())
            steps = [Step.TERMINATE, Step.KILL] if self._plan.order is None else list(Step)
            self._clock.escalation.begin(steps, monotonic())

    def _end_quickly(self) -> None:
        """End the run although the loop was interrupted; a second interrupt ends it at once."""
        assert self._process is not None
        self._end(Ending(Status.CANCELLED, "the Executor was interrupted"), INTERRUPT_GRACE)
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(self._process, selectors.EVENT_READ)
                selector.register(self._link, selectors.EVENT_READ)
                self._supervise(selector)
        finally:
            self._process.send(signal.SIGKILL)
        self._conclude()

    def _take(self, step: Step) -> None:
        assert self._process is not None
        if step is Step.ASK:
            self._to_be_asked = not self._heard
            self._ask()
            self._process.send(signal.SIGCONT)
        else:
            self._process.send(signal.SIGTERM if step is Step.TERMINATE else signal.SIGKILL)

    def _ask(self) -> None:
        assert self._evidence.ending is not None
        self._tell(vocabulary.record(vocabulary.CANCEL, self._evidence.ending.reason))

    def _tell(self, message: Message) -> None:
        """Send a control message, if the Task listens; where it does not, a signal of the system follows."""
        if self._heard:
            with suppress(CommunicatorError, TimeoutError):
                self._link.write(message, CONTROL_SECONDS)

    # Pausing it

    def _pause(self) -> None:
        if self._plan.order is None:
            self._stop()
        else:
            self._tell(vocabulary.record(vocabulary.PAUSE))
            self._clock.pause_deadline = monotonic() + self._clock.escalation.grace

    def _stop(self) -> None:
        """The Task cannot, or does not, come to rest by itself."""
        assert self._process is not None
        self._clock.pause_deadline = None
        self._process.send(signal.SIGSTOP)

    def _resume(self) -> None:
        assert self._process is not None
        self._clock.pause_deadline = None
        self._process.send(signal.SIGCONT)
        self._tell(vocabulary.record(vocabulary.RESUME))

    # For other threads

    def signal(self, name: str, contents: object = None, timeout: float | None = None) -> None:
        """Send a signal to the Task, as soon as it has been told what to run.

        Raises:
            SignalNotDeliveredError: the run is over, or the Task is a command.
            EncodeError: the contents cannot be sent.
            TimeoutError: the Task could not be reached in time.
        """
        label = self._plan.spec.label
        if self._plan.order is None:
            raise SignalNotDeliveredError(
                f"{label} is a command, which hears no signals; cancel, pause and resume work"
            )
        if not self._can_talk.wait(timeout):
            raise TimeoutError(f"{label} could not be sent {name!r} in time: it has not started")
        try:
            self._link.write(Message(contents, name), timeout)
        except CommunicatorError as error:
            raise SignalNotDeliveredError(f"{label} could not be sent {name!r}: it has ended") from error

    def cancel(self, reason: str = "", grace: float | None = None) -> None:
        """Have the Task ended: asked, then by SIGTERM, then by SIGKILL; between them this grace, or else the Task's."""
        self._wish(lambda: self._end(Ending(Status.CANCELLED, reason), grace))

    def pause(self) -> None:
        """Have the Task come to rest; it is stopped by the system if it does not within the grace."""
        self._wish(self._pause)

    def resume(self) -> None:
        """Have a paused Task go on."""
        self._wish(self._resume)

    def follow(self) -> Iterator[Message]:
        """Give what `report` and `signal` send, as it comes; ends with the run."""
        return self._reception.inbox.follow()

    def _wish(self, wish: Callable[[], None]) -> None:
        with self._lock:
            if not self._over:
                self._wishes.append(wish)
                self._bell.ring()

    def _grant_wishes(self) -> None:
        self._bell.clear()
        while self._wishes:
            self._wishes.popleft()()

    # The end

    def _conclude(self) -> TaskResult:
        evidence = self._evidence
        evidence.excess = self._reception.excess  # which may have come with its last words
        evidence.stderr = self._reception.stderr
        evidence.messages = self._reception.inbox.count
        verdict = judge(evidence)
        result = TaskResult(
            name=evidence.label,
            status=verdict.status,
            value=verdict.value,
            error=verdict.error,
            exit_code=evidence.exit.code if evidence.exit else None,
            signal_name=evidence.exit.signal_name if evidence.exit else None,
            stdout=self._reception.stdout,
            stderr=evidence.stderr,
            messages=self._reception.inbox.messages,
            missing=tuple(self._link.missing),
            duration=self._clock.duration,
            communicators=self._traffic(),
            broken=dict(evidence.broken),
            pid=self._reception.info.pid,
        )
        if verdict.error is not None:
            verdict.error.result = result
        self._observers.task_ended(self._reception.info, result)
        return result

    def _traffic(self) -> dict[str, Traffic]:
        traffic = dict.fromkeys(self._plan.names, Traffic())
        for member in self._link.members:
            so_far = traffic[member.name]
            traffic[member.name] = Traffic(
                so_far.messages + member.messages, so_far.bytes + member.bytes, so_far.resent + member.resent
            )
        return traffic

    def _close(self) -> None:
        with self._lock:
            self._over = True
            self._bell.close()
        self._link.close()
        self._can_talk.set()
        if self._order_thread is not None:
            self._order_thread.join()


@attrs.define
class _Clock:
    """The deadlines of a run, on the monotonic clock.

    Attributes:
        pause_deadline: when a Task that was asked to pause is stopped; None when that is not due.
        hello_deadline: when a Task that has not spoken is ended; None when that is not due.
    """

    timeout: float | None
    escalation: Escalation
    pause_deadline: float | None = attrs.field(default=None, init=False)
    _started: float | None = attrs.field(default=None, init=False)
    _stopped: float | None = attrs.field(default=None, init=False)
    hello_deadline: float | None = attrs.field(default=None, init=False)
    _deadline: float | None = attrs.field(default=None, init=False)

    def start(self, start_timeout: float | None) -> None:
        self._started = monotonic()
        self.hello_deadline = None if start_timeout is None else self._started + start_timeout
        self._deadline = None if self.timeout is None else self._started + self.timeout

    def stop(self) -> None:
        self._stopped = monotonic()

    @property
    def duration(self) -> float:
        return 0.0 if self._started is None or self._stopped is None else self._stopped - self._started

    def time_left(self) -> float | None:
        """Seconds until something is due; None when nothing is."""
        deadlines = (self.escalation.deadline, self._deadline, self.hello_deadline, self.pause_deadline)
        due = [deadline for deadline in deadlines if deadline is not None]
        return min(LONGEST_WAIT, max(0.0, min(due) - monotonic())) if due else None

    def overdue(self, now: float) -> Ending | None:
        """Why the run is to be ended now, if it is; said once."""
        if self._deadline is not None and now >= self._deadline:
            self._deadline = None
            assert self.timeout is not None
            return Ending(Status.TIMED_OUT, f"its time of {self.timeout:g} s was up")
        if self.hello_deadline is not None and now >= self.hello_deadline:
            self.hello_deadline = None
            return Ending(Status.NOT_STARTED, f"its process did not speak within {START_SECONDS:g} s")
        return None

    def pause_overdue(self, now: float) -> bool:
        return self.pause_deadline is not None and now >= self.pause_deadline
