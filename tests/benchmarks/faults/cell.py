"""One fault in one way, in a process of its own, which may hang. Arguments: the way, the job, its file, and a count.

What happens is told on standard output as it does, a JSON list a line: `["got", what]`, `["error", what]` for an object
that did not come, and last `["ended", how]`, where nothing is an end in good order.
"""

import json
import sys

from tests.benchmarks.faults import jobs
from tests.benchmarks.faults.ways import WAYS


def main():
    """Do it."""
    way, job, note, expected = sys.argv[1:]
    how = ""
    try:
        for thing in WAYS[way](getattr(jobs, job), note, int(expected)):
            if isinstance(thing, Exception):
                _tell("error", _described(thing))
            else:
                _tell("got", thing if isinstance(thing, str) else f"{len(thing)} bytes")
    except Exception as error:  # noqa: BLE001 - whatever a way raises is what is told
        how = _described(error)
    _tell("ended", how)


def _described(error):
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _tell(*words):
    print(json.dumps(words), flush=True)


if __name__ == "__main__":
    main()
