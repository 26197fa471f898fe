"""Look at inputs that are kept, without a fuzzer: `python -m tests.fuzz.replay TARGET [FILE ...]`; else its corpus."""

import importlib
import random
import sys
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"


def main(name, *files):
    """Look at each input as it is, and at what is made of it when it is mended."""
    target = importlib.import_module(f"tests.fuzz.{name}")
    paths = [Path(file) for file in files] or sorted((CORPUS / name).iterdir())
    for path in paths:
        print(path, flush=True)  # the last one is to blame, when the process dies of it
        data = path.read_bytes()
        target.check(data)
        target.check(target.mend(data, random.Random(0)))


if __name__ == "__main__":
    main(*sys.argv[1:])
