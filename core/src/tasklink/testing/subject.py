"""What is checked: a communicator with its settings, and ways to get two ends of it.

Both ends in one process are quick to make, and enough for most of the contract. For what happens to processes (they are
killed, stopped, forked, counted) the Task's end, or both, live in a process of their own: a `Child`, which is told the
address as a real Task is, and does an errand of `tasklink.testing.errand`.
"""

from __future__ import annotations

import importlib
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, contextmanager
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from socket import socketpair
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import attrs

from tasklink import framing
from tasklink.communicator import Address, Communicator
from tasklink.launch import anonymous_file
from tasklink.stream import StreamCommunicator
from tasklink.testing.check import ConformanceError, Skipped
from tasklink.testing.work import Work, waited

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from tasklink.communicator import Listener

_SMALLEST_SETTING = 1 << 10
_LARGEST_SETTING = 16 << 20
_DUMP_SECONDS = 2.0
_NEXT_LINE_SECONDS = 0.2
_LAST_MOMENT = 0.3  # seconds between what a dying process closes and its end
_standard = threading.Lock()  # 0, 1 and 2 of this process are changed by one thread at a time


class Pair(NamedTuple):
    """Two ends that talk with each other: the Executor's, and the Task's."""

    ours: Communicator
    theirs: Communicator

    def ways(self) -> tuple[tuple[Communicator, Communicator], ...]:
        """Writer and reader, for both directions."""
        return (self.theirs, self.ours), (self.ours, self.theirs)


@attrs.define(eq=False)
class Subject:
    """A communicator that is to be checked.

    Derive from it where a pair is not made as usual: a communicator that is no plugin, or has no Listener.

    Attributes:
        kind: the class. Other processes import it by the name of its module.
        settings: for its `listen`; None: what its settings class has by default.
        patience: seconds after which something that ought to have happened counts as not happening. Nothing is slower
            for it when all is well.
        one_process: why its two ends cannot be in two processes; empty where they can.
        uninterruptible: why what a signal handler raises within a call may cost more than that call; empty where it
            does not.
        children: the processes that have been started for the check that runs.
    """

    kind: type[Communicator]
    settings: Any = None
    patience: float = 10.0
    one_process: str = ""
    uninterruptible: str = ""
    children: list[Child] = attrs.field(factory=list, init=False)
    _works: list[Work[Any]] = attrs.field(factory=list, init=False)

    @classmethod
    def of(cls, kind: type[Communicator], settings: Any = None) -> Subject:
        """Give what its author has said how it is checked: an object of the class that its `subject` names.

        Args:
            kind: the class of the communicator.
            settings: for its `listen`.
        """
        made = _named(kind.subject) if kind.subject else cls
        subject: Subject = made(kind, settings)
        return subject

    def __attrs_post_init__(self) -> None:
        if self.settings is None and self.kind.settings:
            self.settings = _named(self.kind.settings)()

    def __reduce__(self) -> tuple[Callable[[], Subject], tuple[()]]:
        names = [field.name for field in attrs.fields(type(self)) if field.init]
        return partial(type(self), **{name: getattr(self, name) for name in names}), ()

    def fresh(self) -> Self:
        """Give the same for another check: nothing has been started for it."""
        return attrs.evolve(self)

    # What goes on at the same time

    def start(self, function: Callable[..., Any], *arguments: object) -> Work[Any]:
        """Call a function in a thread of its own."""
        work: Work[Any] = Work(function, *arguments)
        self._works.append(work)
        return work

    def threads(self) -> list[threading.Thread]:
        """The threads that were started."""
        return [work.thread for work in self._works]

    def worked(self) -> float:
        """How many seconds of a processor this process has used, and those that were started."""
        return sum(os.times()[:4]) + sum(child.worked() for child in self.children)

    def close(self, *ends: Communicator) -> None:
        """Close ends at once: one that delivers when it is closed waits for the other. One that hangs is left."""
        closing = [self.start(end.close) for end in ends]
        deadline = time.monotonic() + self.patience
        for work in closing:
            work.ended(max(0.0, deadline - time.monotonic()))

    # Both ends in one process

    @contextmanager
    def listening(self) -> Iterator[Listener]:
        """Open a Listener; closed at the end."""
        listener = self.kind.listen(self.settings)
        try:
            yield listener
        finally:
            listener.close()
            if listener.output is not None:
                listener.output.close()

    @contextmanager
    def pair(self) -> Iterator[Pair]:
        """Open both ends in this process; closed at the end."""
        with self.listening() as listener:
            pair = self.join(listener)
        try:
            yield pair
        finally:
            self.close(*pair)

    def join(self, listener: Listener) -> Pair:
        """Have a peer in this process come to a Listener.

        Where a Task's standard input and output are the channel, this process's own are put aside until `connect` has
        taken them over, as it has to: what a Task prints and reads is not for its communicator.
        """
        with standing_in(listener.standard_descriptors):
            connecting = self.start(self.kind.connect, duplicate(listener.address))
            try:
                ours = listener.accept(self.patience)
            except TimeoutError:
                if connecting.ended(0) and connecting.error is not None:
                    raise ConformanceError(f"connect raised {connecting.error!r}") from connecting.error
                raise
            return Pair(ours, connecting.result(self.patience))

    # Processes of their own

    @contextmanager
    def peer(self, errand: Callable[..., object], *arguments: object) -> Iterator[tuple[Communicator, Child]]:
        """Start a process with the Task's end, and an errand; give the Executor's end and the process.

        Args:
            errand: of `tasklink.testing.errand`, or a module that another process can import; called with a `Peer`.
            arguments: for the errand.
        """
        with self.listening() as listener:
            child = self.invite(listener, errand, *arguments)
            ours = self.accept(listener, child)
        try:
            yield ours, child
        except BaseException:
            child.note_fate()
            raise
        finally:
            child.end()
            self.close(ours)

    def invite(self, listener: Listener, errand: Callable[..., object], *arguments: object) -> Child:
        """Start a process that connects to a Listener."""
        return self.invite_with((), listener, errand, *arguments)

    def invite_with(
        self, inherited: Sequence[int], listener: Listener, errand: Callable[..., object], *arguments: object
    ) -> Child:
        """Start a process that connects to a Listener, and inherits more than the Address says."""
        address = listener.address
        told = (address.details, address.descriptors, address.key)
        descriptors = (*address.descriptors, *inherited)
        return self._begin(
            self.kind, told, errand, arguments, standard=listener.standard_descriptors, inherited=descriptors
        )

    def accept(self, listener: Listener, child: Child) -> Communicator:
        """Accept a process that was invited.

        Raises:
            ConformanceError: it has not come; the text says what it said.
        """
        try:
            return listener.accept(self.patience)
        except TimeoutError:
            raise ConformanceError(f"no peer came within {self.patience:g} s; {child.words()}") from None

    def apart(
        self, errand: Callable[..., object], *arguments: object, environment: Mapping[str, str] | None = None,
        inherited: Sequence[int] = (),
    ) -> Child:  # fmt: skip
        """Start a process that makes both ends itself, with this Subject as the first argument of its errand."""
        return self._begin(None, None, errand, (self.fresh(), *arguments), inherited=inherited, environment=environment)

    def run(self, errand: Callable[..., object], *arguments: object, standard: Mapping[int, int]) -> Child:
        """Start a process that has no channel.

        Args:
            errand: what it does.
            arguments: for the errand.
            standard: which of our descriptors become its 0, 1 and 2.
        """
        return self._begin(None, None, errand, arguments, standard=standard)

    def _begin(
        self, kind: type[Communicator] | None, told: object, errand: Callable[..., object],
        arguments: tuple[object, ...], *, standard: Mapping[int, int] | None = None,
        inherited: Sequence[int] = (), environment: Mapping[str, str] | None = None,
    ) -> Child:  # fmt: skip
        if self.one_process:
            raise Skipped(self.one_process)
        order = (kind, told, errand, arguments, self.patience)
        child = Child(
            order, errand.__name__, self.patience,
            standard=standard or {}, inherited=inherited, environment=environment,
        )  # fmt: skip
        self.children.append(child)
        return child

    def end_children(self) -> None:
        """Kill and reap every process that was started."""
        while self.children:
            self.children.pop().end()

    # What only the communicator knows

    def inject(self, end: Communicator, data: bytes) -> None:
        """Send bytes below the communicator, which are no message or a part of one, behind all that was written.

        Raises:
            Skipped: nobody has said how. A communicator that is no StreamCommunicator names a class that does.
        """
        if not isinstance(end, StreamCommunicator):
            raise Skipped("how bytes get below it is not known: derive from Subject, and define inject(end, data)")
        end._send_frame([data], None)  # the way that its frames go, which may be another one than write(2)

    def below(self, frame: bytes) -> bytes:
        """What a frame of core/docs/wire.md is below the communicator, for `inject` to send all or a part of it."""
        return frame

    def garbage(self) -> Mapping[str, Callable[[Communicator], None]]:
        """What is no message, by what it is: each is called with an end, and sends it behind all that was written.

        A communicator that has more below it than a stream of bytes adds what can be wrong there.
        """
        texts = {
            "text": b"printed by a library\n" * 9, "a head of zeros": framing.MAGIC + bytes(60), "ones": b"\xff" * 99,
        }  # fmt: skip
        return {name: partial(self.inject, data=text) for name, text in texts.items()}

    def shares_output(self) -> bool:
        """Whether messages come between the lines of what a Task prints, which has to be read on whatever they are."""
        with self.listening() as listener:
            return 1 in listener.standard_descriptors

    def sizes(self) -> list[int]:
        """Sizes of contents around which something may change: of the kernel, of the wire, and of its own settings."""
        values = [] if not attrs.has(type(self.settings)) else attrs.asdict(self.settings, recurse=False).values()
        own = {
            value for value in values
            if isinstance(value, int) and not isinstance(value, bool) and _SMALLEST_SETTING <= value <= _LARGEST_SETTING
        }  # fmt: skip
        around = {size + change for size in (1 << 12, 1 << 16, 1 << 20, *own) for change in (-1, 0, 1)}
        limit = self.kind.capabilities.max_message
        return sorted(size for size in {0, 1, *around} if limit is None or size < limit)


def _named(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


class Child:
    """A process that the kit has started.

    Args:
        order: what it is to do; see `tasklink.testing.child`.
        errand: the name of its errand, for people.
        patience: how long its answers are waited for.
        standard: which of our descriptors become its 0, 1 and 2.
        inherited: descriptors that it has under the same numbers.
        environment: what its environment has beside ours.

    Attributes:
        pid, control, errand: its process, the connection to it, and what it does.
        fate: how it ended, where that may be why a check has failed.
    """

    def __init__(
        self, order: tuple[object, ...], errand: str, patience: float, *, standard: Mapping[int, int],
        inherited: Sequence[int], environment: Mapping[str, str] | None,
    ) -> None:  # fmt: skip
        self.errand = errand
        self.fate = ""
        self._patience = patience
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed in `end`
        ours, theirs = socketpair()
        self._stacks, stacks = socketpair()
        with theirs, stacks:
            self.control = Connection(ours.detach())
            handover = anonymous_file(handover_of((*order, theirs.fileno(), stacks.fileno())))
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-c", python_code(handover)],
                    stdin=standard.get(0, subprocess.DEVNULL),
                    stdout=standard.get(1, subprocess.DEVNULL),
                    stderr=standard.get(2, self._said),
                    env=None if environment is None else {**os.environ, **environment},
                    pass_fds=(handover, theirs.fileno(), stacks.fileno(), *inherited),
                    start_new_session=True,
                )
            finally:
                os.close(handover)
        self.pid = self._process.pid

    def ask(self, *order: object) -> Any:
        """Tell it something to do, and wait for its answer."""
        try:
            self.control.send(order)
        except OSError as error:
            raise ConformanceError(f"process {self.pid} takes no orders: {error}; {self.words()}") from error
        return self.answer()

    def answer(self) -> Any:
        """Wait for what it says.

        Raises:
            ConformanceError: it says nothing in time, or that its errand has failed.
            Skipped: it says so.
        """
        try:
            if not waited(self.control.poll, self._patience * 3, self.worked):
                raise ConformanceError(f"process {self.pid} ({self.errand}) says nothing:\n{self.stacks()}")
            kind, value = self.control.recv()
        except (EOFError, OSError) as error:
            self._process.wait(self._patience)
            raise ConformanceError(f"process {self.pid} ({self.errand}) is gone; {self.words()}") from error
        if kind == "failed":
            raise ConformanceError(value)
        if kind == "skipped":
            raise Skipped(value)
        return value

    def worked(self) -> float:
        """How many seconds of a processor it has used; 0.0 where the system does not say."""
        try:
            stat = Path(f"/proc/{self.pid}/stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return 0.0
        own_and_children = stat.rpartition(")")[2].split()[11:15]
        return sum(map(int, own_and_children)) / os.sysconf("SC_CLK_TCK")

    def kill(self) -> None:
        """Kill it with SIGKILL, and wait for its end."""
        self.signal(signal.SIGKILL)
        self._process.wait(self._patience)

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def wait(self) -> int:
        """Wait for its end by itself, and give its exit code.

        Raises:
            ConformanceError: it does not end.
        """
        try:
            return self._process.wait(self._patience)
        except subprocess.TimeoutExpired:
            raise ConformanceError(f"process {self.pid} ({self.errand}) does not end:\n{self.stacks()}") from None

    def end(self) -> None:
        """Kill it and its descendants, and release what stands for it."""
        if self._said.closed:
            return
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):  # macOS says the latter of a group that only has zombies
            pass
        self._process.wait(self._patience)
        self.control.close()
        self._stacks.close()
        self._said.close()

    def note_fate(self) -> None:
        """Something has failed: note in `fate` whether it has ended, or ends now, other than in good order."""
        try:
            if self._process.wait(_LAST_MOMENT):
                self.fate = self.words()
        except subprocess.TimeoutExpired:
            pass  # it lives, and has nothing to do with it

    def words(self) -> str:
        """What it has said on its standard error, and how it ended."""
        status = self._process.poll()
        state = "it runs" if status is None else f"it ended with {status}"
        said = self._read().strip()
        return f"{state}, and said:\n{said}" if said else f"{state}, and said nothing"

    def stacks(self) -> str:
        """Where each of its threads stands."""
        if self._process.poll() is not None:
            return self.words()
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGUSR2)
        text = b""
        self._stacks.settimeout(_DUMP_SECONDS)
        try:
            while more := self._stacks.recv(1 << 16):
                text += more
                self._stacks.settimeout(_NEXT_LINE_SECONDS)
        except TimeoutError:
            pass  # that was all
        return text.decode("utf-8", "backslashreplace") or "it does not say where it stands"

    def _read(self) -> str:
        if self._said.closed:
            return ""
        size = os.fstat(self._said.fileno()).st_size
        return os.pread(self._said.fileno(), size, 0).decode("utf-8", "backslashreplace")


def handover_of(order: tuple[object, ...]) -> bytes:
    """What tells a child of the kit what to do; see `tasklink.testing.child`."""
    body = pickle.dumps(order)
    return len(body).to_bytes(8, "little") + body


def python_code(handover: int) -> str:
    """The code of a Python that can import what this one can, and becomes a child of the kit.

    Args:
        handover: the descriptor that tells it what to do.
    """
    path = [entry or str(Path.cwd()) for entry in sys.path]
    return f"import sys; sys.path[:] = {path!r}; from tasklink.testing.child import main; main({handover})"


def duplicate(address: Address) -> Address:
    """Give the address to a peer in this process: with descriptors of its own, inherited as a Task's are."""
    descriptors = [os.dup(descriptor) for descriptor in address.descriptors]
    for descriptor in descriptors:
        os.set_inheritable(descriptor, True)
    return Address(address.details, descriptors, address.key)


@contextmanager
def standing_in(descriptors: Mapping[int, int]) -> Iterator[None]:
    """Have copies of some descriptors be 0, 1 or 2 of this process for a while; its own come back at the end.

    Args:
        descriptors: by the number that each is to have.
    """
    with _standard, ExitStack() as opened:
        for number, descriptor in descriptors.items():
            opened.callback(_put_back, number, _copy(number))
            os.dup2(descriptor, number)
        yield


def _copy(descriptor: int) -> int | None:
    try:
        return os.dup(descriptor)
    except OSError:  # this process was started without it
        return None


def _put_back(number: int, copy: int | None) -> None:
    if copy is None:
        os.close(number)
    else:
        os.dup2(copy, number)
        os.close(copy)


@contextmanager
def private_directory() -> Iterator[Path]:
    """Make a directory for what a process puts into the file system."""
    path = tempfile.mkdtemp(prefix="tk-")
    try:
        yield Path(path)
    finally:
        shutil.rmtree(path, ignore_errors=True)
