"""Communicators with one fault each: what the conformance kit is for is to find it, and to name it.

Each is the model but for a few lines, and says by `fails` which checks find it, the one that names its fault first.
Standard library only: a mutant is imported by other processes, as a communicator is.
"""

from __future__ import annotations

import array
import fcntl
import os
import select
import socket
import tempfile
import termios
import threading
import time
from typing import ClassVar

from tasklink import codec
from tasklink.communicator import Address, Capabilities
from tasklink.errors import BrokenError, DecodeError, EncodeError, EndOfMessages, ProtocolError
from tasklink.message import Message
from tasklink.output import OutputCommunicator, OutputListener
from tasklink.testing.model import ModelCommunicator, ModelListener
from tasklink.turn import alone, deadline_of, is_mine

MIB = 1 << 20
MUTANTS = []


def mutant(*fails):
    """Note which checks find a mutant."""

    def decorate(kind):
        kind.fails = fails
        MUTANTS.append(kind)
        return kind

    return decorate


def size_of(buffers):
    """Bytes of contents in the buffers of a frame."""
    return sum(map(len, buffers[1:]))


class Model(ModelCommunicator):
    """The model without short ways: all that it sends goes through `send`, all that it reads through `receive`."""

    def send_small(self, frame, timeout):
        self.send([frame], timeout)

    def read(self, timeout=None):
        self.check_usable()
        try:
            return self.receive(timeout)
        finally:
            if self._closed:
                self.leave()


class Prepared(Model):
    """Has something of its own."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.prepare()


class Counting(Prepared):
    """Counts what it sends."""

    def prepare(self):
        self.sent = 0

    def send(self, buffers, timeout):
        self.sent += 1
        self.send_numbered(self.sent, buffers, timeout)


@mutant("check_each_message_once")
class Drops(Counting):
    """Loses a message among many."""

    def send_numbered(self, number, buffers, timeout):
        if number != 1200:
            ModelCommunicator.send(self, buffers, timeout)


@mutant("check_each_message_once")
class Duplicates(Counting):
    """Sends a message among many twice."""

    def send_numbered(self, number, buffers, timeout):
        for _ in range(2 if number == 1200 else 1):
            ModelCommunicator.send(self, buffers, timeout)


@mutant("check_order_of_one_writer")
class Reorders(Counting):
    """Sends two messages among many in the wrong order."""

    def send_numbered(self, number, buffers, timeout):
        if number == 1200:
            self.kept = buffers
            return
        ModelCommunicator.send(self, buffers, timeout)
        if number == 1201:
            ModelCommunicator.send(self, self.kept, timeout)


@mutant("check_close_loses_nothing")
class LosesTheLast(Counting):
    """Keeps a message back until the next one is written, and forgets it in `close`."""

    kept = None

    def send_numbered(self, number, buffers, timeout):
        if number == 100 and size_of(buffers) > 50_000:  # and is flushed by nothing but the next one
            self.kept = buffers
            return
        if self.kept:
            ModelCommunicator.send(self, self.kept, timeout)
            self.kept = None
        ModelCommunicator.send(self, buffers, timeout)


@mutant("check_flush_ends")
class WaitsInFlush(Model):
    """Waits in `flush` for as long as its peer has not read everything."""

    def flush(self):
        unread = array.array("i", [1])
        while unread[0]:
            self.check_usable()
            fcntl.ioctl(self._writer, termios.TIOCOUTQ, unread)
            time.sleep(0.001)


@mutant("check_sizes")
class Truncates(Model):
    """Cuts off the last byte of one size."""

    def write(self, message, timeout=None):
        if type(message._contents) is bytes and len(message._contents) == 65_537:
            message = Message(message._contents[:-1])
        super().write(message, timeout)


@mutant("check_after_a_write_ran_out_of_time")
class TearsOnAShortWrite(Model):
    """Forgets, after a time-out, that a part of the message was written."""

    def send(self, buffers, timeout):
        if timeout is None or not 4 * MIB < size_of(buffers) < 6 * MIB:
            super().send(buffers, timeout)
            return
        rest = memoryview(b"".join(buffers))
        while rest:
            poll = select.poll()
            poll.register(self._writer, select.POLLOUT)
            if not poll.poll(timeout * 1000):
                raise TimeoutError("the peer was not ready in time")
            rest = rest[os.write(self._writer, rest[:1000]) :]


@mutant("check_close_gives_everything_back", "check_a_killed_peer_leaves_nothing", "check_a_handler_that_closes")
class LeaksADescriptor(Model):
    """Leaves a descriptor open."""

    def shut(self):
        os.dup(self._bell.fileno())
        super().shut()


@mutant("check_close_gives_everything_back", "check_a_killed_peer_leaves_nothing", "check_a_handler_that_closes")
class LeaksAThread(Model):
    """Leaves a thread behind."""

    def shut(self):
        threading.Thread(target=threading.Event().wait, daemon=True).start()
        super().shut()


@mutant("check_close_ends", "check_flush_ends", "check_conversations_over_an_adversary")
class HangsOnClose(Model):
    """Waits in `close` for a peer that does not read."""

    def shut(self):
        line = os.dup(self._writer)
        super().shut()
        poll = select.poll()
        poll.register(line, select.POLLOUT)
        poll.poll()
        os.close(line)


@mutant("check_the_time_out_of_a_read")
class IgnoresTheTimeOutOfARead(Model):
    """Waits for as long as it takes."""

    def receive(self, timeout):
        return super().receive(None if timeout is not None and 0.001 < timeout < 1 else timeout)


@mutant("check_the_time_out_of_a_write")
class BlocksOnAFullPipe(Model):
    """Waits for room, whatever its time-out is."""

    def send(self, buffers, timeout):
        super().send(buffers, None if 2 * MIB < size_of(buffers) < 4 * MIB else timeout)


class TakesForTheEnd(Model):
    """Takes an error for the end."""

    def receive(self, timeout):
        try:
            return super().receive(timeout)
        except self.error:
            raise EndOfMessages from None


@mutant("check_an_end_within_a_message", "check_a_handler_that_raises_in_a_read")
class SwallowsAKill(TakesForTheEnd):
    """Takes an end within a message for the end."""

    error = BrokenError


@mutant("check_garbage", "check_a_newer_wire", "check_a_good_peer_beside_garbage", "check_what_a_limit_refuses")
class TakesGarbageForTheEnd(TakesForTheEnd):
    """Takes what is no message for the end."""

    error = ProtocolError


@mutant("check_a_good_peer_beside_garbage")
class SharesItsFailure(Model):
    """Has one place for the failures of all channels."""

    failed: ClassVar = set()

    def receive(self, timeout):
        if self.failed - {self}:
            raise BrokenError("a channel has failed")
        try:
            return super().receive(timeout)
        except ProtocolError:
            self.failed.add(self)
            raise

    def shut(self):
        self.failed.discard(self)
        super().shut()


@mutant("check_nothing_is_decoded_unasked")
class DecodesEarly(Model):
    """Decodes what it reads, to look at it."""

    def receive(self, timeout):
        message = super().receive(timeout)
        try:
            codec.decode(message.codec, [bytes(buffer) for buffer in message.buffers])
        except DecodeError:
            pass
        return message


@mutant("check_what_cannot_be_decoded", "check_passing_on")
class RefusesWhatItCannotDecode(Model):
    """Throws away what is of a codec that it does not know."""

    def receive(self, timeout):
        message = super().receive(timeout)
        return message if message.codec in codec.NAMES else super().receive(timeout)


@mutant("check_what_cannot_be_encoded")
class SendsWhatCannotBeEncoded(Model):
    """Sends something else instead of what cannot be encoded."""

    def write(self, message, timeout=None):
        try:
            super().write(message, timeout)
        except EncodeError:
            super().write(Message(None), timeout)


@mutant("check_both_directions_at_once")
class OneLockForBoth(Prepared):
    """Does not read while it waits to write."""

    def prepare(self):
        self.both = threading.Lock()

    def send(self, buffers, timeout):
        if not 200_000 < size_of(buffers) < MIB:
            super().send(buffers, timeout)
            return
        with self.both:
            super().send(buffers, timeout)

    def receive(self, timeout):
        if self.both.locked():
            with self.both:
                pass
        return super().receive(timeout)


@mutant("check_a_small_message_overtakes_a_large_one")
class LetsNobodyOvertake(Prepared):
    """Writes a message to its end before the next one."""

    def prepare(self):
        self.turn = threading.RLock()

    def send(self, buffers, timeout):
        alone(self.turn, deadline_of(timeout), super().send, buffers, timeout)


@mutant("check_a_handler_that_calls")
class WaitsForItself(LetsNobodyOvertake):
    """Has a signal handler wait for the call that it has interrupted."""

    def send(self, buffers, timeout):
        if is_mine(self.turn):
            threading.Event().wait(timeout)
            raise TimeoutError("others kept it busy")
        if size_of(buffers) < 1000:
            super().send(buffers, timeout)
        else:
            ModelCommunicator.send(self, buffers, timeout)


@mutant("check_a_handler_that_raises_in_a_write")
class KeepsItsLock(Prepared):
    """Does not give a lock back when what no program expects comes in between."""

    def prepare(self):
        self.turn = threading.RLock()

    def send(self, buffers, timeout):
        if not 90_000 < size_of(buffers) < 110_000:
            super().send(buffers, timeout)
            return
        self.turn.acquire()
        try:
            super().send(buffers, timeout)
        except Exception:
            self.turn.release()
            raise
        self.turn.release()


@mutant("check_a_handler_that_raises_in_a_read")
class LosesItsPlace(Model):
    """Goes on where an exception has taken what was read."""

    _midway = property(lambda self: False, lambda self, value: None)


@mutant("check_a_handler_that_closes")
class ForgetsWhatAHandlerClosed(Model):
    """Leaves its descriptors open where a signal handler closes."""

    def shut(self):
        super().shut()
        self._rung = False


@mutant("check_a_loop_over_the_descriptor")
class AlwaysReadable(Prepared):
    """Says that there is work when there is none."""

    def prepare(self):
        self.always = os.memfd_create("always readable")

    def fileno(self):
        self.check_usable()
        return self.always

    def shut(self):
        os.close(self.always)
        super().shut()


@mutant("check_close_may_be_called_again")
class ClosesOnce(Model):
    """Cannot be closed again."""

    def close(self):
        if self._closed:
            self.check_usable()
        super().close()


@mutant("check_a_fork_cannot_use_it")
class WorksInAFork(Model):
    """Does not notice in `fileno` that it was forked."""

    def fileno(self):
        return super().fileno() if not self.forked else self._reader


@mutant("check_a_fork_leaves_the_channel_alone")
class ShutsDownInAFork(Model):
    """Ends the parent's connection when a forked child closes."""

    def shut(self):
        if self.forked:
            line = socket.socket(fileno=os.dup(self._writer))
            line.shutdown(socket.SHUT_RDWR)
            line.close()
        super().shut()


@mutant("check_programs_inherit_nothing")
class IsInherited(Prepared):
    """Leaves its descriptors to every program."""

    def prepare(self):
        os.set_inheritable(self._reader, True)


@mutant("check_contents_are_the_writers_again")
class ChangesTheMessage(Model):
    """Numbers the message of the writer."""

    def write(self, message, timeout=None):
        super().write(message, timeout)
        message.sequence = 1


@mutant("check_what_was_read_is_the_readers")
class GivesReadOnlyMemory(Model):
    """Gives large buffers that cannot be changed."""

    def receive(self, timeout):
        message = super().receive(timeout)
        message.buffers = [bytes(buffer) for buffer in message.buffers]
        return message


@mutant("check_what_arrives_with_a_message")
class LosesTheSignal(Model):
    """Has no room for long signals."""

    def write(self, message, timeout=None):
        if message.signal is not None and len(message.signal) > 100:
            changed = Message.encoded(*message.encode())
            changed.sequence, changed.after, changed.rank = message.sequence, message.after, message.rank
            message = changed
        super().write(message, timeout)


@mutant("check_the_largest_message")
class SaysItHasALimit(Model):
    """Declares a limit, and does not hold it."""

    capabilities = Capabilities(max_message=1 << 20)

    def _check_size(self, buffers):
        pass


@mutant("check_what_a_limit_allows")
class RefusesWhatIsAllowed(ModelCommunicator):
    """Refuses what is just as large as its reader allows."""

    def refuse_larger(self, nbytes):
        super().refuse_larger(nbytes - 1)


@mutant("check_what_a_limit_refuses")
class RefusesWhenItIsThere(Prepared):
    """Looks at the size of a message when it has come."""

    def prepare(self):
        self.allowed = None

    def refuse_larger(self, nbytes):
        self.allowed = nbytes

    def receive(self, timeout):
        message = super().receive(timeout)
        if self.allowed is not None and message.nbytes > self.allowed:
            raise ProtocolError("a message is larger than the limit")
        return message


@mutant("check_zero_copy")
class SaysItDoesNotCopy(Model):
    """Declares zero_copy, and copies."""

    capabilities = Capabilities(zero_copy=True)


@mutant("check_captured_output")
class SaysItCaptures(Model):
    """Declares captures_output, and has no output."""

    capabilities = Capabilities(captures_output=True)


class Printed(OutputCommunicator):
    """Captures what is printed, in good order."""

    @classmethod
    def of(cls, other):
        streams, other._streams = other._streams, {}
        other.close()
        return cls(streams)


class Hearing(ModelListener):
    """Captures what the Task prints."""

    def __init__(self, kind):
        super().__init__(kind)
        self.output = OutputListener()
        accept = self.output.accept
        self.output.accept = lambda timeout=None: kind.printed.of(accept(timeout))


class Captures(Model):
    """Captures what the Task prints."""

    capabilities = Capabilities(captures_output=True)

    @classmethod
    def listen(cls, settings=None):
        return Hearing(cls)


class EndsInAPause(Printed):
    """Takes a pause for the end."""

    def read(self, timeout=None):
        try:
            return super().read(timeout)
        except TimeoutError:
            raise EndOfMessages from None


@mutant("check_output_that_pauses")
class TakesAPauseForTheEnd(Captures):
    """Says that the output has ended when a Task pauses."""

    printed = EndsInAPause


class EndsOnce(Printed):
    """Tells the end once."""

    ended = False

    def read(self, timeout=None):
        if self.ended:
            raise TimeoutError("nothing was printed in time")
        try:
            return super().read(timeout)
        except EndOfMessages:
            self.ended = True
            raise


@mutant("check_the_end_of_output")
class ForgetsTheEndOfOutput(Captures):
    """Tells once that the output has ended."""

    printed = EndsOnce


class KeepsAnEnd(Printed):
    """Leaves a descriptor open."""

    def close(self):
        if self._streams:
            os.dup(next(iter(self._streams)))
        super().close()


@mutant("check_output_gives_everything_back")
class LeaksOutput(Captures):
    """Leaves what captures output open."""

    printed = KeepsAnEnd


class TakesWords(Printed):
    """Takes messages, which nobody gets."""

    def write(self, message, timeout=None):
        pass


@mutant("check_output_is_only_read", "check_a_fork_cannot_read_output")
class TakesWhatNobodyGets(Captures):
    """Takes messages for what only prints."""

    printed = TakesWords


class LetsGoAtOnce(Printed):
    """Closes what a thread waits for, which wakes nobody."""

    def shut(self):
        self._let_go()


@mutant("check_close_wakes_who_reads_output")
class LeavesItsReaderAsleep(Captures):
    """Does not wake who waits for output when another thread closes."""

    printed = LetsGoAtOnce


class WorksOn(Printed):
    """Gives its descriptor to anybody."""

    def fileno(self):
        return self._selector.fileno() if self.forked else super().fileno()


@mutant("check_a_fork_cannot_read_output")
class PrintsInAFork(Captures):
    """Does not notice that what captures output was forked."""

    printed = WorksOn


class TidiesUp(Printed):
    """Takes out of the selector what it closes."""

    def shut(self):
        if self.forked:
            for descriptor in list(self._streams):
                self._forget(descriptor)
        super().shut()


@mutant("check_a_fork_leaves_output_alone")
class TakesOutputFromItsParent(Captures):
    """Takes the output away from the parent when a forked child closes."""

    printed = TidiesUp


@mutant("check_survives_launcher")
class SaysItSurvives(Model):
    """Declares survives_launcher, and has descriptors only."""

    capabilities = Capabilities(survives_launcher=True)


@mutant("check_several_peers", "check_a_good_peer_beside_garbage")
class SaysThereMayBeSeveral(Model):
    """Declares multi_peer, and takes one."""

    capabilities = Capabilities(multi_peer=True)


class Hosting(Model):
    """Has a Listener of its own."""

    @classmethod
    def listen(cls, settings=None):
        return cls.listener(cls)


class TalkativeListener(ModelListener):
    """Shows its key."""

    def __init__(self, kind):
        super().__init__(kind)
        key = os.urandom(16)
        self.address = Address({"key": key.hex()}, self.address.descriptors, key)


@mutant("check_the_address")
class ShowsItsKey(Hosting):
    """Has its key in the details, where everybody may see it."""

    listener = TalkativeListener


class FileListener(ModelListener):
    """Makes a file that everybody can read."""

    def __init__(self, kind):
        super().__init__(kind)
        descriptor, self.path = tempfile.mkstemp()
        os.close(descriptor)
        os.chmod(self.path, 0o644)

    def close(self):
        super().close()
        if os.path.exists(self.path):
            os.remove(self.path)


@mutant("check_files_are_private")
class IsOpenToAll(Hosting):
    """Makes a file that everybody can read."""

    listener = FileListener


class ForgetfulListener(ModelListener):
    """Leaves a descriptor open when nobody has come."""

    def close(self):
        if self._ours >= 0:
            os.dup(self._ours)
        super().close()


@mutant("check_a_listener_gives_everything_back")
class ForgetsItsListener(Hosting):
    """Has a Listener that does not give back what nobody took."""

    listener = ForgetfulListener


class TwiceListener(ModelListener):
    """Does not know that it was closed."""

    def accept(self, timeout=None):
        return self._kind(os.dup(self._ours), os.dup(self._theirs)) if self._ours < 0 else super().accept(timeout)


@mutant("check_accept_after_close", "check_several_peers")
class AcceptsTwice(Hosting):
    """Fails by chance when its Listener was closed."""

    listener = TwiceListener


@mutant("check_the_methods")
class HasOtherDefaults(Model):
    """Has a time-out where the interface has none."""

    def write(self, message, timeout=60.0):
        super().write(message, timeout)


@mutant("check_the_task_side_is_light")
class IsHeavy(Model):
    """Is defined in a module that imports what a Task has not."""


IsHeavy.__module__ = "heavy_mutant"
