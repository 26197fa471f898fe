"""What is run to be measured."""

from __future__ import annotations

import sys

LINE = b"step 12 of 4000: loss 0.25, and some more words to have a line of sixty four.\n"
_CHUNK = 800  # lines that are printed at once: 64 KB


def report() -> None:
    """Say one thing."""
    from tasklink.task import current_task  # noqa: PLC0415 - for a Task only

    current_task().report({"step": 12, "loss": 0.25, "name": "fit"})


def printing(lines: int) -> list[str]:
    """Return the command of a program that prints so many lines, fast."""
    code = (
        "import os\n"
        f"line, lines = {LINE!r}, {lines}\n"
        f"chunk = line * {_CHUNK}\n"
        "def put(data):\n"
        "    while data:\n"
        "        data = data[os.write(1, data):]\n"
        f"for _ in range(lines // {_CHUNK}):\n"
        "    put(chunk)\n"
        f"put(line * (lines % {_CHUNK}))\n"
    )
    return [sys.executable, "-S", "-c", code]
