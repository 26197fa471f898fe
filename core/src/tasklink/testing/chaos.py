"""Chaos: Tasks that live for a random while and end in every way, for as long as one likes, over real Executors.

    with Chaos([("pigeon",)], seconds=60) as chaos:
        for done, what in chaos.steps():
            print(f"{done:.0%} {what}")
    assert not chaos.faults

Eight at a time report and print without rest, small and large, in haste and at leisure, until they return, raise, exit,
crash, or are killed or stopped from outside in the middle of whatever they do. Of each run it is checked that

* every message that was accepted is there, once, in order and whole; of a communicator that delivers when it is closed
  that is promised of what was flushed, and of all where the Task has ended in good order. The Task's own count of it is
  a `Tally`, which no death takes away. The same holds for the lines that it printed;
* the status of its result is true;
* it ends: a run that does not is told with the stacks of both processes, and nothing more is tried;

and after some seconds, when all have ended, that the Executor has left no descriptor, thread, child process or file,
and that the memory of this process does not grow.
"""

from __future__ import annotations

import concurrent.futures
import gc
import logging
import math
import os
import signal
import tempfile
import threading
import time
from contextlib import ExitStack, contextmanager
from itertools import count, cycle
from typing import TYPE_CHECKING, Self

from tasklink.config import TaskSpec
from tasklink.executor import Executor
from tasklink.registry import Registry
from tasklink.testing.growth import Growth, resident_bytes
from tasklink.testing.holdings import holdings, settled
from tasklink.testing.life import FROM_OUTSIDE, ORDERLY, Life, Record, Witness, untruth
from tasklink.testing.mortal import VALUE, Mortal
from tasklink.testing.stacks import Stacks, descendants
from tasklink.testing.subject import private_directory
from tasklink.testing.tally import fresh_tally
from tasklink.testing.work import Work

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tasklink.communicator import Communicator
    from tasklink.executor import TaskFuture
    from tasklink.testing.tally import Tally

AT_ONCE = 8
"""How many Tasks live at a time."""

LAST_CHANCE = 5.0
"""Seconds that are given to what ought to have ended, and has not: a thread of a library, or a Task that was killed."""

_LONGEST_TURN = 15.0
_TURNS = 10
_SHORTEST_TURN = 2.0
_BEAT = 1.0
_FAULTS_KEPT = 50


def protocols(names: Sequence[str] = ()) -> list[tuple[str, ...]]:
    """Give what is tried: each communicator by itself, and then, where there are several, all of them as one.

    One that only captures output has another one beside it.

    Args:
        names: of the communicators; none for all that can be used here.

    Raises:
        PluginError: one that was asked for cannot be used.
    """
    registry: Registry[type[Communicator]] = Registry()
    chosen = names or [plugin.name for plugin in registry.plugins() if plugin.status == "ok"]
    carrying = [name for name in chosen if registry.get(name).capabilities.carries_messages]
    capturing = [name for name in chosen if name not in carrying]
    partners = carrying[:1] or [name for name in ("unix", "pipe") if name in registry.names()][:1]
    alone = [(name,) for name in carrying] + [(name, *partners) for name in capturing]
    return alone + ([(*capturing, *carrying)] if len(carrying) > 1 else [])


class Chaos:
    """Runs Tasks that end in every way. A context manager, which ends those that still live.

    Args:
        over: the protocols: names of communicators, which are used as one.
        seconds: for how long.
        at_once: how many live at a time.
        patience: seconds after which a run that ought to have ended counts as hanging.

    Attributes:
        records: what became of it, for each protocol.
        growth: the memory of this process, over all of them.
        faults: what was found, in words; the first ones.
    """

    def __init__(
        self, over: Sequence[tuple[str, ...]], *, seconds: float, at_once: int = AT_ONCE, patience: float = 30.0
    ) -> None:
        self.seconds = seconds
        self.records = [_record(names) for names in over]
        self.growth = Growth()
        self.faults: list[str] = []
        self._at_once = at_once
        self._patience = patience
        self._numbers = count(1)
        self._witness = Witness()
        self._lock = threading.Lock()  # of what several runs change
        self._hanging: list[TaskFuture] = []
        self._opened = ExitStack()
        self._executors = ExitStack()

    def __enter__(self) -> Self:
        self._folder = self._opened.enter_context(_own_temporary_folder())
        self._stacks = self._opened.enter_context(Stacks())
        return self

    def __exit__(self, *error: object) -> None:
        if not self.hangs:
            with self._opened:
                self._executors.__exit__(*error)  # type: ignore[arg-type]

    @property
    def hangs(self) -> bool:
        """A run hangs in this very process, which therefore cannot end in good order."""
        return any(not future.done() for future in self._hanging)

    @property
    def runs(self) -> int:
        """How many there were."""
        return sum(record.runs for record in self.records)

    def steps(self) -> Iterator[tuple[float, str]]:
        """Do it; give from time to time how much is done, from 0 to 1, and what goes on."""
        # That a communicator broke when its Task was killed is what this is about, and no news.
        logging.getLogger("tasklink").addHandler(logging.NullHandler())
        before = self._warm_up()
        share = self.seconds / len(self.records)
        turn = min(_LONGEST_TURN, max(share / _TURNS, min(share, _SHORTEST_TURN)))
        begun = time.monotonic()
        for record in cycle(self.records):
            done = (time.monotonic() - begun) / self.seconds
            if (done >= 1 and record.runs) or self._hanging:
                break
            for _ in self._turn(record, min(turn, (1 - done) * self.seconds) if record.runs else turn):
                done = (time.monotonic() - begun) / self.seconds
                yield min(1.0, done), f"{self.runs:,} runs, {len(self.faults)} faults; now {record.label}"
            if not self._hanging:
                self._look_for_leaks(record, before)
                self.growth.note(self.runs, resident_bytes())
        if self.growth.fault:
            self._add_fault(self.growth.fault)

    def _warm_up(self) -> dict[str, Counter[str]]:
        """Have everything made that is made once; then say what this process has."""
        for record in self.records:
            with Executor(record.names) as executor:
                executor.run(TaskSpec(run="os:getpid", env=self._stacks.environment))
        gc.collect()
        return holdings(self._folder)

    # A turn of one protocol

    def _turn(self, record: Record, seconds: float) -> Iterator[None]:
        """Have Tasks live for a while; comes back from time to time."""
        executor = self._executors.enter_context(
            Executor(record.names, observers=[self._witness], parallel=self._at_once)
        )
        until = time.monotonic() + seconds
        works = [Work(self._keep_going, executor, record, until) for _ in range(self._at_once)]
        yield
        for work in works:
            while not work.ended(_BEAT):
                yield
            work.result(0)
        if not self._hanging:
            self._executors.close()

    def _keep_going(self, executor: Executor, record: Record, until: float) -> None:
        while time.monotonic() < until and not self._hanging:
            life = Life.of(next(self._numbers), record)
            path = self._folder / f"tally-{life.number}"
            with self._witness.following(life), fresh_tally(path) as tally:
                self._have_live(executor, life, tally, path)

    def _have_live(self, executor: Executor, life: Life, tally: Tally, path: Path) -> None:
        run = f"{Mortal.__module__}:{Mortal.__name__}"
        spec = TaskSpec(name=life.name, run=run, keep_messages=False, env=self._stacks.environment)
        from_outside = life.ending in FROM_OUTSIDE
        future = executor.submit(
            spec, tally=str(path), ending=life.ending, seconds=math.inf if from_outside else life.seconds,
            flush_after=life.flush_after, sizes=life.sizes, pause=life.pause,
        )  # fmt: skip
        future.add_done_callback(life.note_end)
        if from_outside:
            life.started.wait(self._patience)
            if not _ends(future, life.seconds):
                self._strike(life, future)
        if _ends(future, self._patience + (0 if from_outside else life.seconds)):
            self._judge(life, tally, future)
        else:
            self._tell_of_hang(life, future)

    @staticmethod
    def _strike(life: Life, future: TaskFuture) -> None:
        if life.ending == "SIGSTOP":
            life.signal(signal.SIGSTOP)
            _ends(future, life.stopped_for)
            life.struck = time.monotonic()
            future.cancel(VALUE)
        else:
            life.struck = time.monotonic()
            life.signal(signal.SIGKILL)

    # What came of it

    def _judge(self, life: Life, tally: Tally, future: TaskFuture) -> None:
        try:
            result = future.result()
        except Exception as error:  # noqa: BLE001 - whatever a run raises is no result
            self._note(life, untrue=1, text=f"no result, but {type(error).__name__}: {error}")
            return
        ended_in_order = life.ending in ORDERLY and result.exit_code is not None
        promised = tally.accepted if life.record.delivers_on_write or ended_in_order else tally.flushed
        lost = life.lost + max(0, promised - life.messages) + max(0, tally.printed - life.lines)
        # One more than was counted may have gone out.
        twice = life.twice + max(0, life.messages - tally.accepted - 1) + max(0, life.lines - tally.printed - 1)
        what = untruth(life, tally, result)
        counts = (
            f"accepted {tally.accepted}, flushed {tally.flushed}, came {life.messages}; "
            f"printed {tally.printed}, came {life.lines}; {result.status}"
        )
        died = life.struck or tally.died / 1e9
        self._note(
            life,
            lost=max(lost, result.lost),
            twice=twice,
            untrue=life.damaged + bool(what),
            text=f"{what}; {counts}" if what else counts,
            delay=life.ended - died if died else 0.0,
        )

    def _tell_of_hang(self, life: Life, future: TaskFuture) -> None:
        """Tell where everything stands; then kill the Task, which may end the hang, too."""
        self._hanging.append(future)
        pids = [] if life.pid is None else [life.pid, *descendants(life.pid)]
        stacks = self._stacks.of(pids)
        self._note(life, hangs=1, text=f"it has not ended after {self._patience:g} s\n{stacks}")
        life.signal(signal.SIGKILL)
        _ends(future, LAST_CHANCE)

    def _note(
        self, life: Life, *, text: str, lost: int = 0, twice: int = 0, untrue: int = 0, hangs: int = 0,
        delay: float = 0.0,
    ) -> None:  # fmt: skip
        record = life.record
        found = {"lost": lost, "twice": twice, "untrue": untrue, "hangs": hangs}
        with self._lock:
            record.runs += 1
            record.messages += life.messages
            record.lines += life.lines
            record.worst = max(record.worst, delay)
            for name, number in found.items():
                setattr(record, name, getattr(record, name) + number)
            if any(found.values()):
                what = ", ".join(f"{number} {name}" for name, number in found.items() if number)
                self._add_fault(f"{life.name}: {what}: {text}")

    def _look_for_leaks(self, record: Record, before: dict[str, Counter[str]]) -> None:
        left = settled(before, lambda: holdings(self._folder), min(self._patience, LAST_CHANCE))
        if left:
            record.leaks += 1
            self._add_fault(f"{record.label}: left behind: {left}")
            before.update(holdings(self._folder))  # and told once

    def _add_fault(self, text: str) -> None:
        if len(self.faults) < _FAULTS_KEPT:
            self.faults.append(text)


def _record(names: tuple[str, ...]) -> Record:
    registry: Registry[type[Communicator]] = Registry()
    kinds = [registry.get(name).capabilities for name in names]
    return Record(names, all(kind.delivery == "write" for kind in kinds if kind.carries_messages))


def _ends(future: TaskFuture, seconds: float) -> bool:
    return not concurrent.futures.wait([future], seconds).not_done


@contextmanager
def _own_temporary_folder() -> Iterator[Path]:
    """Have all temporary files of this process and of its Tasks be where nobody else has any."""
    with private_directory() as folder:
        names = ("TMPDIR", "XDG_RUNTIME_DIR")
        before, directory = {name: os.environ.get(name) for name in names}, tempfile.tempdir
        os.environ.update(dict.fromkeys(names, str(folder)))
        tempfile.tempdir = str(folder)
        try:
            yield folder
        finally:
            tempfile.tempdir = directory
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
