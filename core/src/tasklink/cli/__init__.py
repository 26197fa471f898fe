"""The program `tasklink`. The only part of tasklink that prints, reads the command line, or ends the process.

    run, plugins, config, demo, bench,
    verify, new                    one command each
    option                         what several of them take
    outcome                        what the program exits with
    interrupt                      Ctrl-C and its like
    batch, comparison, listing,
    benchmark, verification,
    soak, scaffold                 what the commands do
    progress, live, gauge          what happens, as it happens: on stderr
    report                         how it ended: tables and errors
    document                       the same for programs: JSON
    lines, table, number           text

Rules of this package: results go to stdout, and everything else to stderr. The modules of the commands import click and
what is above; what a command needs beyond that it imports when it runs, so that `tasklink --help` is there at once.
"""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from tasklink.cli.bench import bench
from tasklink.cli.config import config
from tasklink.cli.demo import demo
from tasklink.cli.interrupt import Interrupted, interruptible
from tasklink.cli.new import new
from tasklink.cli.outcome import Outcome, outcome_of_error
from tasklink.cli.plugins import plugins
from tasklink.cli.run import run
from tasklink.cli.verify import verify
from tasklink.errors import TasklinkError

if TYPE_CHECKING:
    from typing import NoReturn


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="tasklink", message="%(prog)s %(version)s")
def commands() -> None:
    """Run Tasks in processes of their own, and talk with them over any protocol.

    Results go to stdout, news and errors to stderr. Exit codes: 0 all is well, 1 a Task failed, 2 usage, 3 plugin or
    config, 4 timeout, 5 communication, 130 interrupted.
    """


for _command in (run, plugins, config, demo, bench, verify, new):
    commands.add_command(_command)


def main() -> None:
    """Run the program, and end the process with its exit code."""
    # Whatever the encoding of the terminal lacks is escaped: printing a result must not fail.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    with interruptible() as told:
        try:
            sys.exit(_run())
        except BaseException as error:
            if not told:
                raise
            if not isinstance(error, SystemExit | Interrupted):  # what came of it is a fault of ours
                sys.excepthook(type(error), error, error.__traceback__)
            _leave(told[0].exit_code)


def _run() -> int:
    try:
        return commands.main(prog_name="tasklink", standalone_mode=False) or Outcome.OK
    except click.Abort:
        return Outcome.INTERRUPTED
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except TasklinkError as error:
        for line in str(error).splitlines():
            click.echo(f"Error: {line}", err=True)
        return outcome_of_error(error)


def _leave(code: int) -> NoReturn:
    """End the process at once: all is closed, and on a busy machine the end of an interpreter takes a while.

    During that, SIGALRM would do again what it does by default, and give another exit code.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    os._exit(code)
