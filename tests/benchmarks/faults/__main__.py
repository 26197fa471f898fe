"""The same faults in tasklink and its peers: `python -m tests.benchmarks.faults --help`.

Each fault is tried in each way in a process of its own, which is given ten seconds. Who has not said by then how it
ended waits for ever.
"""

import json
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from time import monotonic

import attrs
import click

from tasklink.cli.table import table
from tests.benchmarks.command import put_into
from tests.benchmarks.faults.ways import AT_THE_END, WAYS

_PATIENCE = 10.0
_GONE_WITHIN = 1.0
_LONGEST = 100
_EXPLANATION = re.compile(r"(?<=[a-z]): .*?(?=; after |$)")  # what an error says beside its name


@attrs.define
class Story:
    """What happened.

    Attributes:
        got: the objects that came.
        errors: those that came instead of an object.
        ended: how it ended; "" in good order, None when it did not.
        at: when that was.
        note: what the worker left in its file.
    """

    got: list = attrs.field(factory=list)
    errors: list = attrs.field(factory=list)
    ended: str | None = None
    at: float = 0.0
    note: str = ""

    @property
    def end(self):
        """How it ended, in words."""
        if self.ended is None:
            return "waits for ever"
        ended = self.ended.partition("\n")[0]
        return ended if len(ended) <= _LONGEST else f"{ended[: _LONGEST - 1]}…"


@attrs.frozen
class Fault:
    """Something that goes wrong.

    Attributes:
        title: in a few words.
        job: the function of `jobs`.
        expected: how many objects are waited for.
        judge: gives whether a story is as it should be, and what to say of it.
        streaming: it can only happen to who gets what is sent before the worker has ended.
    """

    title: str
    job: str
    expected: int
    judge: object
    streaming: bool = False


def _killed(story):
    if story.ended is None:
        return False, story.end
    return bool(story.ended), f"{story.end}; after {(story.at - float(story.note)) * 1e3:.0f} ms"


def _came(story):
    return bool(story.got), "came" if story.got else f"lost; {story.end}"


def _is_named(story):
    return bool(story.ended), story.end


def _others_came(story):
    if story.got == ["one", "three"] and story.errors:
        return True, "an error for it; the others come"
    return False, f"the others are lost; {story.end}"


def _is_refused(story):
    return story.got == ["refused"] or bool(story.ended), "the sender is told" if story.got else story.end


def _nothing_left(story):
    try:
        process = os.pidfd_open(int(story.note))
    except ProcessLookupError:
        return True, "nothing is left"
    try:
        gone = bool(select.select([process], [], [], _GONE_WITHIN)[0])
        if not gone:
            signal.pidfd_send_signal(process, signal.SIGKILL)
    finally:
        os.close(process)
    return gone, "nothing is left" if gone else "it lives on"


FAULTS = [
    Fault("killed while sending", "killed", 100, _killed),
    Fault("sends 50 MB and exits at once", "exits_at_once", 1, _came, streaming=True),
    Fault("exits without a result, code 0", "without_result", 1, _is_named),
    Fault("an object that cannot be unpickled", "poison", 3, _others_came),
    Fault("an object that cannot be pickled", "unsendable", 1, _is_refused),
    Fault("leaves a process behind", "leaves_a_child", 1, _nothing_left),
    Fault("the caller is killed", "works_on", 1, _nothing_left),
]


def tell(fault, way):
    """Let a fault happen, and tell what came of it."""
    with tempfile.NamedTemporaryFile("r", encoding="ascii") as note:
        command = [sys.executable, "-m", "tests.benchmarks.faults.cell", way, fault.job, note.name, str(fault.expected)]
        cell = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)
        story = Story()
        deadline = monotonic() + _PATIENCE
        rest = b""
        while story.ended is None and select.select([cell.stdout], [], [], max(0.0, deadline - monotonic()))[0]:
            piece = os.read(cell.stdout.fileno(), 1 << 16)
            if not piece:
                break
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                kind, what = json.loads(line)
                _take(story, kind, what)
            if fault.job == "works_on" and story.got:
                cell.kill()  # what it says is over, even if the worker has its standard output, too
                break
        story.note = note.read()
        judged = fault.judge(story)
        _kill_all(cell)
    return judged


def _take(story, kind, what):
    if kind == "ended":
        story.ended, story.at = what, monotonic()
    else:
        (story.got if kind == "got" else story.errors).append(what)


def _kill_all(cell):
    """Kill what is left of a cell."""
    try:
        os.killpg(cell.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # nothing is
    cell.wait()
    cell.stdout.close()


@attrs.frozen
class Verdict:
    """What came of a fault in one way, of several times the worst."""

    fault: str
    way: str
    good: int
    times: int
    words: str

    @property
    def text(self):
        """It, in words."""
        often = "" if self.times == 1 or self.good in {0, self.times} else f" ({self.good} of {self.times} times good)"
        return f"{self.words}{often}"


def compare(faults, ways, rounds):
    """Try each fault in each way, and yield the verdicts."""
    for fault in faults:
        for way in ways:
            if fault.streaming and way in AT_THE_END:
                continue
            stories = sorted(tell(fault, way) for _ in range(rounds))
            yield Verdict(fault.title, way, sum(good for good, _ in stories), rounds, stories[0][1])


def as_markdown(verdicts, rounds):
    """Give a table: a row for each fault, a column for each way."""
    ways = list(dict.fromkeys(verdict.way for verdict in verdicts))
    texts = {(verdict.fault, verdict.way): _marked(verdict) for verdict in verdicts}
    lines = [f"| fault | {' | '.join(ways)} |", f"|---{'|---' * len(ways)}|"]
    lines += [
        f"| {fault} | {' | '.join(texts.get((fault, way), 'not possible') for way in ways)} |"
        for fault in dict.fromkeys(verdict.fault for verdict in verdicts)
    ]
    return "\n".join([*lines, "", f"Each {rounds} times; the worst is shown."])


def _marked(verdict):
    words = _EXPLANATION.sub("", verdict.text).replace("|", "\\|")
    return words if verdict.good == verdict.times else f"**{words}**"


@click.command()
@click.option("--rounds", type=click.IntRange(min=1), default=1, show_default=True, help="How often each is tried.")
@click.option("--only", type=click.Choice(list(WAYS)), multiple=True, help="Only this way; may be repeated.")
@click.option("--into", type=click.Path(exists=True, dir_okay=False), help="Put the table into this file.")
def run(rounds, only, into):
    """Let the same things go wrong in tasklink and its peers, and say what the caller sees."""
    verdicts, rows = [], [("fault", "", "way", "what the caller sees")]
    for verdict in compare(FAULTS, only or list(WAYS), rounds):
        verdicts.append(verdict)
        rows.append((verdict.fault, "ok" if verdict.good == rounds else "BAD", verdict.way, verdict.text))
        click.echo(f"{verdict.fault}: {verdict.way}", err=True)
    click.echo("\n".join(table(rows)))
    if into:
        put_into(Path(into), as_markdown(verdicts, rounds))


if __name__ == "__main__":
    run()
