"""Fuzzing: `python -m tests.fuzz --help`. What may be fuzzed is in the modules that the command lists.

A target is a module with three names: `check`, which looks at one input and raises when something is wrong, `mend`,
which makes of a mutant one that gets further, and `TOKENS`, of which the fuzzer makes mutants.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).parent
TARGETS = ("frames", "handshake", "ring", "lines", "output", "config")


def main():
    """Fuzz some targets, one after the other; the exit code is 1 when anything was found."""
    parser = argparse.ArgumentParser("python -m tests.fuzz", description="Fuzz targets, one after the other.")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"{', '.join(TARGETS)}; all, if none is given")
    parser.add_argument("--seconds", type=int, default=60, help="for each target (60)")
    parser.add_argument("--longest", type=int, default=2048, help="bytes of the longest input (2048)")
    given = parser.parse_args()
    unknown = set(given.targets) - set(TARGETS)
    if unknown:
        parser.error(f"no such target: {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    if find_spec("atheris") is None:
        parser.error("atheris is not installed; run this with: uv run --group fuzz python -m tests.fuzz")
    found = [name for name in given.targets or TARGETS if not _fuzz(name, given.seconds, given.longest)]
    if found:
        sys.exit(f"found something: {', '.join(found)}; the input is in tests/fuzz/corpus, to be named and kept")


def _fuzz(name, seconds, longest):
    """Fuzz one target in a process of its own; False when something was found."""
    corpus = HERE / "corpus" / name
    with tempfile.TemporaryDirectory() as new, tempfile.TemporaryDirectory() as temporary:
        print(f"== {name}, {seconds} s ==", flush=True)
        command = [
            sys.executable, "-m", "tests.fuzz.engine", name,
            # What is new is written into the first folder, the second one is only read.
            new, str(corpus), f"-artifact_prefix={corpus}/found-",
            f"-max_total_time={seconds}", f"-max_len={longest}", "-timeout=10", "-print_final_stats=1",
        ]  # fmt: skip
        # libFuzzer ends its process without a word to those who clean up.
        run = subprocess.run(command, cwd=HERE.parent.parent, env={**os.environ, "TMPDIR": temporary}, check=False)
    return run.returncode == 0


if __name__ == "__main__":
    main()
