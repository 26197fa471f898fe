"""Where tasklink runs, and where it says that it does not."""

import subprocess
import sys


def test_windows_is_refused():
    """On Windows the import fails, and says what to do."""
    code = "import sys; sys.platform = 'win32'; import tasklink"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "ImportError: tasklink runs on Linux and macOS" in run.stderr
    assert "WSL" in run.stderr


def test_public_names():
    """Every public name can be imported, and the package lists them all."""
    code = "import tasklink; [getattr(tasklink, name) for name in tasklink.__all__]; print(*tasklink.__all__)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"Executor", "Task", "TaskResult", "current_task"} <= set(run.stdout.split())


def test_unknown_public_name():
    """A name that there is not is told with those that there are."""
    code = "from tasklink import Excutor"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "cannot import name 'Excutor'" in run.stderr
