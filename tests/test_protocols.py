"""Only the `communicators` line changes the protocol: everything else stays the same."""

import threading

import numpy
import pytest
import sample_tasks

from tasklink import Executor, Message, Status, TaskSpec, vocabulary
from tasklink.errors import ConfigError, EndOfMessages
from tasklink.link import Link
from tasklink.memory import MemoryCommunicator
from tasklink.worker import serve


def run_in_memory(task, **parameters):
    """Run a Task's own code in a thread, over the pair that has no protocol below it; give its messages and receipt."""
    here, there = MemoryCommunicator.pair()
    link, tasks_link = Link([("memory", here)]), Link([("memory", there)])

    def work():
        serve(tasks_link)
        tasks_link.close()

    thread = threading.Thread(target=work)
    thread.start()
    link.write(Message({"task": task, "parameters": parameters}, vocabulary.START))
    messages = []
    try:
        while True:
            messages.append(link.read(timeout=30))
    except EndOfMessages:
        pass
    thread.join()
    assert not link.missing
    link.close()
    return messages


def told(messages):
    """What an application sees of messages."""
    return [(message.signal, message.contents) for message in messages]


def test_same_task_over_every_protocol(protocols):
    """Result, messages, their order and the status are the same over all protocols, alone and together."""
    results = {}
    for name, communicators in protocols.items():
        with Executor(communicators) as executor:
            results[name] = executor.run(sample_tasks.MixedTalk, count=50)
    reference = results["unix"]
    assert reference.status is Status.COMPLETED
    assert len(reference.messages) == 50 + 10 + 8
    for name, result in results.items():
        assert (result.status, result.value, result.lost) == (Status.COMPLETED, reference.value, 0), name
        assert told(result.messages) == told(reference.messages), name
        assert result.stdout == reference.stdout == b"".join(b"line %d\n" % number for number in range(50)), name
    in_memory = run_in_memory(sample_tasks.MixedTalk, count=50)
    said = [message for message in in_memory if not (message.signal or "").startswith("tasklink.")]
    assert told(said) == told(reference.messages)
    (receipt,) = [message for message in in_memory if message.signal == vocabulary.RESULT]
    assert receipt.contents == reference.value


def test_routes_share_the_work():
    """With routes, each kind of message takes its own way, and the order across the ways is kept."""
    routes = {"report": "pipe", "signal": "unix", "result": "unix"}
    with Executor(["unix", "pipe"]) as executor:
        result = executor.run(TaskSpec(run="sample_tasks:MixedTalk", routes=routes), count=200)
    with Executor(["unix"]) as executor:
        reference = executor.run("sample_tasks:MixedTalk", count=200)
    assert {(message.signal is None, message.communicator) for message in result.messages} == {
        (True, "pipe"),
        (False, "unix"),
    }
    assert told(result.messages) == told(reference.messages)
    assert result.lost == 0


@pytest.mark.parametrize(
    ("routes", "words"),
    [
        ({"reports": "pipe"}, "no kind of message 'reports'.*did you mean 'report'"),
        ({"report": "pip"}, "no communicator 'pip'.*did you mean 'pipe'"),
    ],
)
def test_wrong_routes(routes, words):
    """A route that leads nowhere is refused before anything starts."""
    with Executor(["unix", "pipe"]) as executor, pytest.raises(ConfigError, match=words):
        executor.run(TaskSpec(run="sample_tasks:MixedTalk", routes=routes))


def test_routes_give_way_to_a_choice_for_all(tmp_path):
    """Who chooses other communicators for one call does not have to edit the routes."""
    (tmp_path / "run.toml").write_text(
        """
        [tasks.talk]
        run = "sample_tasks:MixedTalk"
        communicators = ["unix", "pipe"]
        routes = { report = "pipe", result = "unix" }
        """
    )
    with Executor.from_config(tmp_path / "run.toml", communicators="unix") as executor:
        result = executor.run("talk")
    assert {message.communicator for message in result.messages} == {"unix"}


def test_traffic_is_counted(executor, protocol):
    """The result says what each communicator has brought."""
    result = executor.run(sample_tasks.MixedTalk, count=10)
    carried = sum(traffic.messages for name, traffic in result.communicators.items() if name in protocol)
    assert carried >= len(result.messages) + 3
    assert sum(traffic.bytes for traffic in result.communicators.values()) > 2 * 320_000


def test_array_is_writable_and_owned(executor):
    """An array arrives writable, in memory of its own, with the bytes that were sent."""
    value = executor.run("sample_tasks:big_array", megabytes=8).value
    assert value.flags.writeable
    assert numpy.array_equal(value, numpy.arange(1 << 20, dtype=numpy.float64))
    value[:] = 0
    assert executor.run("sample_tasks:big_array", megabytes=8).value[-1] == (1 << 20) - 1
