"""Messages of any size: equal on arrival, and without copies that nobody asked for."""

import subprocess
import sys
import textwrap
from pathlib import Path

TASKS = str(Path(__file__).parent / "tasks")


def in_fresh_process(code):
    """Run some code in a process whose peak of memory is its own; give what it prints."""
    code = f"import sys; sys.path.insert(0, {TASKS!r})\n" + textwrap.dedent(code)
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout.split()


def test_bytes_of_a_gibibyte(alone):
    """A result of 1 GiB arrives equal."""
    (equal, lost) = in_fresh_process(f"""
        import hashlib
        from tasklink import Executor
        with Executor({alone!r}) as executor:
            result = executor.run("sample_tasks:big_bytes", size=1 << 30)
        value = result.value_or_raise()
        block = bytes(range(256)) * 4096
        view = memoryview(value)
        equal = all(bytes(view[i:i + (1 << 20)]) == block for i in range(0, 1 << 30, 1 << 20))
        print(len(value) == 1 << 30 and equal, result.lost)
    """)
    assert (equal, lost) == ("True", "0")


def test_memory_of_a_large_array(alone):
    """An array of 256 MiB costs its receiver little more than itself, and its sender nothing but itself."""
    (equal, receiver, sender) = in_fresh_process(f"""
        import numpy, resource
        from tasklink import Executor
        with Executor({alone!r}) as executor:
            executor.run("sample_tasks:big_array", megabytes=1)
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            result = executor.run("sample_tasks:peak_memory_of_big_array", megabytes=256)
            (message,) = result.messages
            array = message.contents
            after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        equal = array.flags.writeable and array[0] == 0 and bool((numpy.diff(array) == 1).all())
        print(equal, (after - before) // 1024, result.value // 1024)
    """)
    assert equal == "True"
    assert int(receiver) <= 1.1 * 256 + 64
    assert int(sender) <= 0.1 * 256 + 64


def test_signal_overtakes_a_gibibyte(alone):
    """While a Task sends 1 GiB, what another of its threads signals is not kept waiting for the whole of it."""
    (order,) = in_fresh_process(f"""
        from tasklink import Executor
        with Executor({alone!r}) as executor:
            result = executor.run("sample_tasks:report_beside_a_gibibyte")
        print("-".join(str(message.signal) for message in result.messages))
    """)
    assert order == "beside-None"


def test_cancel_overtakes_a_gibibyte_on_its_way_out(alone):
    """A Task that is sending 1 GiB hears a cancel while it does."""
    (status, value) = in_fresh_process(f"""
        from tasklink import Executor
        with Executor({alone!r}, grace=30) as executor:
            future = executor.submit("sample_tasks:hear_a_cancel_while_sending", size=1 << 30)
            assert next(future.messages()).signal == "sending"
            future.cancel("while you send")
            result = future.result()
        print(result.status, result.value)
    """)
    assert (status, value) == ("cancelled", "heard")


def test_cancel_overtakes_a_gibibyte_on_its_way_in(alone):
    """A cancel that is sent while a signal of 1 GiB is on its way to the Task is heard before that signal."""
    (status, value) = in_fresh_process(f"""
        import threading
        from tasklink import Executor
        from tasklink.errors import CommunicatorError, SignalNotDeliveredError
        with Executor({alone!r}, grace=30) as executor:
            future = executor.submit("sample_tasks:hear_what_comes_first")
            messages = future.messages()
            assert next(messages).signal == "ready"
            data = bytes(1 << 30)

            def send():
                try:
                    future.signal("large", data)
                except SignalNotDeliveredError:
                    pass  # the Task did not wait for it

            sender = threading.Thread(target=send)
            sender.start()
            future.cancel()
            sender.join()
            result = future.result()
        print(result.status, result.value)
    """)
    assert (status, value) == ("cancelled", "cancel")
