"""Any test that hangs fails, with the stacks of all processes: the promise behind the time-out of every test."""

import subprocess
import sys
import textwrap

HANGING = """
    import subprocess, sys, threading
    import pytest
    from tasklink import Executor, current_task

    HOST = '''if True:
        import time
        def sleep_in_the_host():
            print("ready", flush=True)
            time.sleep(60)
        sleep_in_the_host()
    '''

    def hang_in_the_task():
        current_task().signal("ready")
        threading.Event().wait()

    @pytest.fixture
    def hanging():
        host = subprocess.Popen([sys.executable, "-c", HOST], stdout=subprocess.PIPE)
        other = subprocess.Popen(["sleep", "60"])
        with Executor("unix", grace=0) as executor:
            future = executor.submit("test_hanging:hang_in_the_task")
            assert next(future.messages()).signal == "ready"
            assert host.stdout.readline() == b"ready\\n"
            yield future
            assert other.poll() is None
            future.cancel()
        for process in (host, other):
            process.kill()
            process.wait()

    def test_of_two_processes(hanging):
        hanging.result()
"""


def test_a_hang_is_told(tmp_path):
    """Where the test stands, the Executor, the Task, and a program in between; what is no Python is left alone."""
    (tmp_path / "test_hanging.py").write_text(textwrap.dedent(HANGING))
    (tmp_path / "pytest.ini").write_text("[pytest]\ntimeout_func_only = true\n")
    plugins = ["-p", "tasklink.testing.hangs", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-c", "pytest.ini", *plugins, "--timeout=0.5", "test_hanging.py"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    said = done.stdout
    assert "1 failed" in said
    assert "Failed: Timeout (>0.5s)" in said
    ours, *others = said.partition("this process, ")[2].split("\nprocess ")
    assert "in test_of_two_processes" in ours
    assert "in _supervise" in ours
    assert sum("in hang_in_the_task" in text for text in others) == 1
    assert sum("in sleep_in_the_host" in text for text in others) == 1
    assert sum("(sleep 60) does not say" in text for text in others) == 1
