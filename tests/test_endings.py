"""The crash matrix: wherever a Task ends, and however, over every communicator, the outcome is the one of the table."""

import os
import queue
import re
import sys
import textwrap
import time
from contextlib import ExitStack
from itertools import product
from pathlib import Path

import doomed_tasks
import pytest

from tasklink import Executor, Status, TaskSpec, hookimpl
from tasklink.registry import Registry
from tests import endings

DOCUMENT = Path(__file__).parent.parent / "core/docs/guarantees.md"
TASKS = Path(__file__).parent / "tasks"

# Names, and settings; each mode of a communicator that ends in a way of its own.
WAYS = {
    "unix": (["unix"], {}),
    "pipe": (["pipe"], {}),
    "pipe in-band": (["pipe"], {"pipe": {"in_band": True}}),
    "shm": (["shm"], {}),
    "zmq": (["zmq"], {}),
    "pty": (["pty", "unix"], {}),
}
GRACE = 0.5


def is_everyday(where, how, way):
    """Everyday, each place and way to end over one communicator, in turn; all of them take a minute."""
    turn = list(endings.WHERE).index(where) + list(endings.HOW).index(how)
    return list(WAYS)[turn % len(WAYS)] == way


def cells():
    """All combinations, as tests."""
    made = []
    for where, how, way in product(endings.WHERE, endings.HOW, WAYS):
        marks = [] if is_everyday(where, how, way) else [pytest.mark.soak]
        if how == "SIGSTOP":
            marks.append(pytest.mark.timed)
        made.append(pytest.param(where, how, way, id=f"{where}-{how}-{way}", marks=marks))
    return made


class Starts:
    """An observer that says which process was started."""

    def __init__(self):
        self.pids = queue.SimpleQueue()

    @hookimpl
    def tasklink_task_started(self, task):
        """Say it."""
        self.pids.put(task.pid)


@pytest.fixture(scope="module")
def interpreter(tmp_path_factory):
    """An interpreter that ends before our worker in it has said a word."""
    path = tmp_path_factory.mktemp("interpreter") / "python"
    path.write_text(
        textwrap.dedent(
            f"""\
            #!{sys.executable}
            import sys
            sys.path.insert(0, {str(TASKS)!r})
            import doomed_tasks
            doomed_tasks.become_doomed(sys.argv[2])
            """
        )
    )
    path.chmod(0o755)
    return path


@pytest.fixture(scope="module")
def executors(temporary_folder, interpreter):
    """For each way an Executor, and an observer of it; all that they make once was made."""
    with ExitStack() as stack:
        made = {}
        for way, (names, settings) in WAYS.items():
            starts = Starts()
            executor = stack.enter_context(Executor(names, settings=settings, observers=[starts], parallel=1))
            warm_up = TaskSpec(run="os:getpid", python=interpreter, env={"DOOM": "never so"})
            assert executor.submit(warm_up).result().value == starts.pids.get()
            made[way] = executor, starts
        yield made


@pytest.mark.parametrize(("where", "how", "way"), cells())
def test_ending(executors, interpreter, tmp_path, where, how, way):  # noqa: PLR0917 - a cell of a table
    """The status, how the process ended, what it gave, and each message that was accepted, once and in order.

    Over a communicator that delivers on flush, when it ends in a way of its own before it has returned: a beginning of
    them.
    """
    executor, starts = executors[way]
    ledger = tmp_path / "ledger"
    ledger.write_bytes(bytes(8))
    replaced = {"python": interpreter, "env": {"DOOM": f"{where} {how}"}} if where in {"start", "handshake"} else {}
    spec = TaskSpec(run="doomed_tasks:doomed", grace=GRACE, **replaced)
    future = executor.submit(spec, where=where, how=how, ledger=str(ledger))
    pid = starts.pids.get()
    if where == "decode":
        future.signal("doom", doomed_tasks.Doom(how, at="decode"))
    if how == "SIGSTOP":
        assert os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT).si_code == os.CLD_STOPPED
        assert future.cancel("enough")
        begin = time.monotonic()
    result = future.result()
    if how == "SIGSTOP":
        # Other tests run beside this one; what is promised, 0.2 s, is held by test_cancel_a_stopped_task.
        assert time.monotonic() - begin < GRACE + 1

    expected = endings.OUTCOMES[where, how]
    all_arrives = how in endings.ORDERLY or where in endings.RETURNED or delivers_on_write(way)
    assert result.status is expected.status
    assert expected.ended in {result.exit_code, result.signal_name}
    assert result.value == ("value" if result.status in {Status.COMPLETED, Status.CANCELLED} else None)
    assert result.stdout == (b"another program\n" if how == "exec" else b"")
    assert result.lost == 0
    if result.status is Status.CANCELLED:
        assert "its process was stopped then" in str(result.error)

    accepted = int.from_bytes(ledger.read_bytes(), sys.byteorder)
    numbers = [message.contents[0] for message in result.messages]
    never_ran = expected.status is Status.NOT_STARTED
    assert accepted >= (0 if never_ran else doomed_tasks.BEFORE)
    assert numbers == list(range(len(numbers)))
    # Within `report` a handler may strike when the message is gone already.
    assert len(numbers) in {accepted, accepted + (where == "signal handler")} or not all_arrives
    assert len(numbers) <= accepted + 1


def delivers_on_write(way):
    """Whether a message that was accepted is delivered, whatever happens to the Task then."""
    kinds = [Registry().get(name) for name in WAYS[way][0]]
    return all(kind.capabilities.delivery == "write" for kind in kinds)


def test_everyday_covers_everything():
    """Every day each communicator meets each place and each way to end, and each of their pairs is met by one."""
    everyday = [cell for cell in product(endings.WHERE, endings.HOW, WAYS) if is_everyday(*cell)]
    assert {(where, how) for where, how, _ in everyday} == set(endings.OUTCOMES)
    assert {(where, way) for where, _, way in everyday} == {(where, way) for where in endings.WHERE for way in WAYS}
    assert {(how, way) for _, how, way in everyday} == {(how, way) for how in endings.HOW for way in WAYS}


def test_the_document_holds_the_table():
    """The table in core/docs/guarantees.md is the one that was proved; when it is not, here is what it is."""
    found = re.search(r"<!-- endings -->\n(.*?)<!-- end -->", DOCUMENT.read_text(), re.DOTALL)
    assert found, "core/docs/guarantees.md has no table of endings"
    assert found[1] == endings.table()
