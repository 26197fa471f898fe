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


def test_bytes_of_a_gibibyte(protocol):
    """A result of 1 GiB arrives equal."""
    (equal, lost) = in_fresh_process(f"""
        import hashlib
        from tasklink import Executor
        with Executor({protocol!r}) as executor:
            result = executor.run("sample_tasks:big_bytes", size=1 << 30)
        value = result.value_or_raise()
        block = bytes(range(256)) * 4096
        view = memoryview(value)
        equal = all(view[i:i + (1 << 20)] == block for i in range(0, 1 << 30, 1 << 20))
        print(len(value) == 1 << 30 and equal, result.lost)
    """)
    assert (equal, lost) == ("True", "0")


def test_memory_of_a_large_array(protocol):
    """An array of 256 MiB costs its receiver little more than itself, and its sender nothing but itself."""
    (equal, receiver, sender) = in_fresh_process(f"""
        import numpy, resource
        from tasklink import Executor
        with Executor({protocol!r}) as executor:
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


def test_control_overtakes_a_gibibyte(protocol):
    """While a Task sends 1 GiB, what another of its threads reports is not kept waiting for the whole of it."""
    (order,) = in_fresh_process(f"""
        from tasklink import Executor
        with Executor({protocol!r}) as executor:
            result = executor.run("sample_tasks:report_beside_a_gibibyte")
        print("-".join(str(message.signal) for message in result.messages))
    """)
    assert order == "beside-None"
