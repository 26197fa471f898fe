"""The ways to have a worker do something and to hear of it, each as its documentation shows it first.

A way is a function of a job (see `jobs`), of a file for it, and of how many objects are waited for. It yields what it
got, or the error that it got instead of one object, and raises what ended it.
"""

import multiprocessing
import tempfile
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from tasklink import Executor, Task
from tasklink.errors import DecodeError


class _Job(Task):
    def run(self, job, note):
        job(self.report, note)


def tasklink(job, note, expected):
    """An Executor, with the communicator that a config without a word about it gets."""
    with Executor() as executor:
        future = executor.submit(_Job, job=job, note=note)
        for message in future.messages():
            if message.signal is None:
                try:
                    yield message.contents
                except DecodeError as error:
                    yield error
        future.result().value_or_raise()


def pipe(job, note, expected):
    """multiprocessing.Process and a Pipe."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=_over_pipe, args=(theirs, job, note))
    process.start()
    theirs.close()
    for _ in range(expected):
        try:
            yield ours.recv()
        except EOFError:
            raise
        except ValueError as error:
            yield error
    process.join()


def _over_pipe(end, job, note):
    job(end.send, note)


def queue(job, note, expected):
    """multiprocessing.Process and a Queue."""
    objects = multiprocessing.Queue()
    process = multiprocessing.Process(target=_over_queue, args=(objects, job, note))
    process.start()
    for _ in range(expected):
        try:
            yield objects.get()
        except ValueError as error:
            yield error
    process.join()


def _over_queue(objects, job, note):
    job(objects.put, note)


def pool(job, note, expected):
    """multiprocessing.Pool: what a worker sends is what its function returns."""
    with multiprocessing.Pool(1) as workers:
        yield from workers.apply(collected, (job, note))


def executor(job, note, expected):
    """concurrent.futures.ProcessPoolExecutor, likewise."""
    with ProcessPoolExecutor(1) as workers:
        yield from workers.submit(collected, job, note).result()


def loky(job, note, expected):
    """loky, likewise."""
    from loky import ProcessPoolExecutor as Loky

    with Loky(1) as workers:
        yield from workers.submit(collected, job, note).result()


def collected(job, note):
    """What a job would have sent."""
    objects = []
    job(objects.append, note)
    return objects


def pyzmq(job, note, expected):
    """multiprocessing.Process, PUSH and PULL."""
    import zmq

    with tempfile.TemporaryDirectory() as folder, zmq.Context() as context, context.socket(zmq.PULL) as socket:
        place = f"ipc://{Path(folder) / 'socket'}"
        socket.bind(place)
        process = multiprocessing.Process(target=_over_zmq, args=(place, job, note))
        process.start()
        for _ in range(expected):
            try:
                yield socket.recv_pyobj()
            except ValueError as error:
                yield error
        process.join()


def _over_zmq(place, job, note):
    import zmq

    with zmq.Context() as context, context.socket(zmq.PUSH) as socket:
        socket.connect(place)
        job(partial(socket.send_pyobj), note)


WAYS = {
    "tasklink": tasklink,
    "Process and Pipe": pipe,
    "Process and Queue": queue,
    "Pool": pool,
    "ProcessPoolExecutor": executor,
    "loky": loky,
    "pyzmq": pyzmq,
}
# These give nothing before the function returns.
AT_THE_END = {"Pool", "ProcessPoolExecutor", "loky"}
