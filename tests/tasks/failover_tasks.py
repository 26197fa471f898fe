"""Tasks that lose a communicator in mid-run, and what takes it away."""

import os
import socket
import stat
import threading
import time

import zmq

from tasklink import current_task, failover


def cut(communicator):
    """Take the connection away under a communicator, as a failing cable would: nobody has closed anything."""
    kind = type(communicator).__name__
    if kind == "SharedMemoryCommunicator":
        for bell in (communicator._bell, communicator._gate, communicator._yard):
            bell.line.shutdown(socket.SHUT_RDWR)
    elif kind == "ZmqCommunicator":
        for line in (communicator._wiring.incoming, communicator._wiring.outgoing):
            _shut_connections(line.socket.get(zmq.LAST_ENDPOINT).rstrip(b"\0").removeprefix(b"ipc://"))
    elif kind == "SocketCommunicator":
        _shut(communicator._reader)
    else:
        for ours in (communicator._reader, communicator._writer):
            reader, writer = os.pipe()
            os.dup2(reader if ours == communicator._reader else writer, ours, inheritable=False)
            os.close(reader)
            os.close(writer)


def _shut(descriptor):
    borrowed = socket.socket(fileno=os.dup(descriptor))
    borrowed.shutdown(socket.SHUT_RDWR)
    borrowed.close()


def _shut_connections(path):
    """Those from or to this address that this process has: libzmq does not tell their descriptors."""
    for entry in os.listdir("/proc/self/fd"):
        try:
            copy = os.dup(int(entry))
        except OSError:  # the descriptor of the listing itself
            continue
        if not stat.S_ISSOCK(os.fstat(copy).st_mode):
            os.close(copy)
            continue
        with socket.socket(fileno=copy) as borrowed:
            connected = not borrowed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            if borrowed.family == socket.AF_UNIX and connected:
                here, there = borrowed.getsockname(), borrowed.getpeername()
                if os.fsdecode(path) in {here, there}:
                    borrowed.shutdown(socket.SHUT_RDWR)


def member(name, of=None):
    """The communicator of this name that a Link talks over; of this Task's, if no other is given."""
    members = (of or current_task()._conversation._write.__self__).members
    return next(member.communicator for member in members if member.name == name)


def talk(count, size, name, cut_at):
    """Report numbers, lose a communicator at one of them, return an array of so many bytes."""
    task = current_task()
    for number in range(count):
        if number == cut_at:
            cut(member(name))
        task.report(number)
    return bytearray(size)


def return_while_it_is_cut(size, name, delay):
    """Return an array of so many bytes; a communicator is cut in the middle of it."""
    data = bytearray(size)
    data[-8:] = b"last one"
    timer = threading.Timer(delay, cut, [member(name)])
    timer.daemon = True
    timer.start()
    return data


def stall(count, name):
    """Report numbers while nothing takes what is written to a communicator after the first ones."""
    failover.STALLED_AFTER = 0.2
    stalling = member(name)
    write = stalling.write

    def stuck(message, timeout=None):
        if message.sequence < 50:
            return write(message, timeout)
        time.sleep(min(timeout, 5))
        raise TimeoutError("stuck")

    stalling.write = stuck
    for number in range(count):
        current_task().report(number)
