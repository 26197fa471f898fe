"""Tasks that reach into tasklink and say what no Task says. Imported by the processes of Tasks."""

import os
import pickle
import signal
import sys
import threading
import time

from tasklink import codec, current_task, framing, vocabulary
from tasklink.message import Message

FAR = 1 << 63


def link():
    return current_task()._conversation._write.__self__


def say(signal_, *buffers, number=None, after=0, rank=0, kind=codec.RAW):
    """Send anything; with a number of its own, or with the next one that is due."""
    message = Message.encoded(kind, list(buffers), signal_)
    if number is None:
        link().write(message)
        return
    message.sequence, message.after, message.rank = number, after, rank
    link().members[0].communicator.write(message)


def raw(data):
    """Write bytes where frames are expected."""
    os.write(link().members[0].communicator._writer, data)


# Oddities that are no reason to end anything


def odd_logs():
    say(vocabulary.LOG, b"")
    say(vocabulary.LOG, b"info")
    say(vocabulary.LOG, b"loud", b"\xff\xfe", b"caf\xe9 \xed\xb2\x80 \x1b[31m")
    say(vocabulary.LOG, *[b"x"] * 1000)
    say(vocabulary.LOG, b"info", b"task", b"x" * 3_000_000)
    return "done"


def odd_progress():
    for done in (b"nan", b"inf", b"-inf", b"1e999", b"9" * 5000, b"", b"many", b"0x10", b"\xff", b"1" * 1_000_000):
        say(vocabulary.PROGRESS, done)
        say(vocabulary.PROGRESS, b"1", done, b"note", b"more")
    say(vocabulary.PROGRESS, b"1", b"2", b"sound")
    return "done"


def words_of_the_executor():
    for word in (vocabulary.START, vocabulary.CANCEL, vocabulary.PAUSE, vocabulary.RESUME, vocabulary.HELLO):
        say(word, b"")
        say(word, b"\x80\x05.", kind=codec.PICKLE)
    say(vocabulary.PAUSED, b"")
    say(vocabulary.REFUSED + "x", b"")
    say("tasklink.", b"")
    say("tasklink.of-a-later-version", b"", b"")
    say(vocabulary.STDOUT, b"as if printed", b"further")
    say(vocabulary.STDERR, b"")
    say(vocabulary.END, b"")
    say(vocabulary.VOID, b"")
    return "done"


def odd_contents():
    say(None, b"?", kind=99)
    say(None, b"not a pickle", kind=codec.PICKLE)
    say("s" * 255, b"{", kind=codec.JSON)
    say(None, b"", kind=codec.JSON)
    say(None, *[b""] * 65_536)
    return "done"


def unnumbered():
    frame = framing.encode([b"x"], codec.RAW)
    for _ in range(1000):
        link().members[0].communicator.send(frame, None)
    return "done"


def the_same_again():
    for _ in range(3):
        for number in (1, 2):  # those of hello and started
            say(None, b"again", number=number)
    return "done"


def the_number_of_the_result():
    say("first", b"", number=3)
    return "second"


# Receipts


def two_results():
    say(vocabulary.RESULT, b"first")
    return "second"


def result_and_failure():
    say(vocabulary.RESULT, b"first")
    raise ValueError("second")


def failure_and_result():
    say(vocabulary.FAILURE, b"ValueError", b"first", b"")
    return "second"


def bare_failure():
    say(vocabulary.FAILURE, b"\xff")


def failure_that_explodes():
    class Bomb:
        def __reduce__(self):
            return os._exit, (99,)

    class Harmless:
        def __reduce__(self):
            return eval, ("1 // 0",)

    del Bomb
    for chain in (Harmless(), [(codec.PICKLE, [pickle.dumps(Harmless())])], [None], 5):
        say(vocabulary.FAILURE, b"ValueError", b"bang", b"Traceback", pickle.dumps(chain))


def result_of_an_unknown_codec():
    say(vocabulary.RESULT, b"?", kind=99)


# Numbers


def numbers_that_jump():
    say("farthest", b"", number=2**64 - 1)
    say("near", b"", number=1000)
    return "done"


def waits_for_what_never_comes():
    for number in range(10_000, 11_000):
        say(None, b"x", number=number, after=number - 1)
    return "done"


def without_the_last_word(what):
    """Do something else, and do not say how many messages there were."""
    globals()[what]()
    os._exit(0)


# What breaks a channel


def after_in_the_future():
    say("first", b"")
    say(None, b"", number=100, after=FAR)
    return time.sleep(60)


def another_rank():
    say(None, b"", number=100, rank=7)
    return time.sleep(60)


def noise():
    raw(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 3)
    return time.sleep(60)


def noise_beside_a_sound_channel():
    cancelled = threading.Event()
    current_task().on("cancel", lambda _: cancelled.set())
    raw(b"noise" * 100)
    cancelled.wait(30)
    current_task().report("still here")
    return current_task().cancel_reason


def another_version():
    raw(framing.PREFIX.pack(framing.MAGIC, 9, framing.MESSAGE, 0, 100) + bytes(100))
    return time.sleep(60)


def signal_that_is_no_text():
    (head, body) = framing.encode([b"x"], codec.RAW, "ab", 1000)
    raw(head.replace(b"ab", b"\xff\xfe") + body)
    return time.sleep(60)


def a_length_of_a_thousand_terabytes():
    head, _ = framing.encode([b"x"], codec.RAW, None, 1000)
    size = 1 << 50
    raw(
        framing.PREFIX.pack(framing.MAGIC, framing.VERSION, framing.START, 0, len(head) - framing.PREFIX.size)
        + head[framing.PREFIX.size : -8]
        + size.to_bytes(8, "little")
        + framing.PREFIX.pack(framing.MAGIC, framing.VERSION, framing.PIECE, 0, 1000)
        + b"half"
    )
    os._exit(0)


# In place of the worker: before START, and instead of everything


def serve(link_, own_process):
    """Speak at once, listen to nobody."""
    what = os.environ["HOSTILE"]
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if what == "other names":
        link_.write(vocabulary.record(vocabulary.HELLO, "1", "stranger", "1", "nobody", "nothing"))
        link_.write(Message(link_.read(timeout=20).signal, vocabulary.RESULT))
        return 0
    link_.write(vocabulary.record(vocabulary.START, "me"))
    if what != "without a hello":
        link_.write(vocabulary.record(vocabulary.HELLO))
    if what == "result before start":
        link_.write(Message("early", vocabulary.RESULT))
        return 3
    if what == "noise":
        os.write(link_.members[0].communicator._writer, b"noise" * 100)
        time.sleep(60)
    if what == "leaves":
        link_.close()
    return 0


def become_a_task(code):
    """Run the code that an Executor starts a Task with, but for what serves."""
    path, _, main = code.partition(";from tasklink.worker")
    exec(path, {})
    from tasklink import worker

    worker.serve = serve
    sys.exit(exec(f"from tasklink.worker{main}", {}))


# Pickles where only data is allowed


class Marks:
    """Leaves a mark when it is decoded."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return open, (self.marker, "w")


def pickled_result(marker):
    say(vocabulary.RESULT, pickle.dumps(Marks(marker)), kind=codec.PICKLE)


def pickled_report(marker):
    say(None, pickle.dumps(Marks(marker)), kind=codec.PICKLE)
    say("step", pickle.dumps(Marks(marker)), kind=codec.CLOUDPICKLE)


def pickled_failure(marker):
    chain = pickle.dumps([(codec.PICKLE, [pickle.dumps(Marks(marker))]), Marks(marker)])
    say(vocabulary.FAILURE, b"ValueError", b"bang", b"Traceback", chain)


def so_many_bytes(size):
    return bytes(size)


def exhausting_json():
    for text in (b"[" * 1_000_000, b'{"a":' * 100_000, b"9" * 1_000_000):
        say(None, text, kind=codec.JSON)
    return "done"


def nested(depth):
    """Report something so deep, and something deeper; return the deeper one."""
    for levels in (depth, depth + 1):
        contents = []
        for _ in range(levels - 1):
            contents = [contents]
        current_task().report(contents)
    return contents


def flood(size, count=None):
    """Report for as long as somebody takes it, or so many times."""
    frame = framing.encode([bytes(size)], codec.RAW)
    for _ in range(count or 1 << 62):
        link().members[0].communicator.send(frame, None)
    return "done"


def flood_and_go():
    """Print more than may be printed, and be done before anybody has looked."""
    sys.stdout.write("x" * 3_000_000)
