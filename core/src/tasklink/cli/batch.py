"""Several Tasks of a config, run to their end, of themselves or by an interrupt."""

from __future__ import annotations

from concurrent.futures import wait
from contextlib import nullcontext
from typing import TYPE_CHECKING

import attrs
import click

from tasklink.cli.document import dumps, result_document
from tasklink.cli.interrupt import GRACE, Interrupted
from tasklink.cli.outcome import outcome_of
from tasklink.cli.progress import make_reporter
from tasklink.cli.report import print_error, print_table, result_row, tell
from tasklink.errors import TaskNotStartedError
from tasklink.executor import Executor
from tasklink.result import Status, TaskResult

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tasklink.cli.progress import Reporter
    from tasklink.config import Config
    from tasklink.executor import TaskFuture


@attrs.define
class Batch:
    """Tasks that are run together.

    Attributes:
        config: what they are made from.
        names: which of its tasks, in their order.
        quiet: no news of them, only results and errors.
        results: how each ended, once they have run.
        interrupted: what ended them, if they did not end of themselves.
    """

    config: Config
    names: Sequence[str]
    quiet: bool
    results: list[TaskResult] = attrs.field(factory=list, init=False)
    interrupted: Interrupted | None = attrs.field(default=None, init=False)

    def run(self, heartbeat: float) -> None:
        """Run them: one after the other, or as many at a time as the config says.

        Args:
            heartbeat: seconds between two words about how far everything is.

        Raises:
            ConfigError, PluginError: one of them could not be run; none was started.
        """
        reporter = None if self.quiet else make_reporter(self.names, heartbeat=heartbeat)
        config = attrs.evolve(self.config, parallel=self.config.parallel or 1)
        with Executor(config=config, observers=[reporter] if reporter else []) as executor:
            for name in self.names:
                executor.check(name)
            with reporter or nullcontext():
                futures = [executor.submit(name) for name in self.names]
                self._wait(futures, reporter)
        self.results = [_result(name, future) for name, future in zip(self.names, futures, strict=True)]

    @property
    def exit_code(self) -> int:
        """What the program exits with."""
        return self.interrupted.exit_code if self.interrupted else outcome_of(self.results)

    def print_table(self) -> None:
        """Print errors, and a table of what each Task gave."""
        for result in self.results:
            print_error(result, quiet=self.quiet)
        if not self.quiet:
            tell()
        print_table([("task", "status", "seconds", "lost", "result"), *map(result_row, self.results)], right=[2, 3])

    def print_document(self) -> None:
        """Print everything as JSON."""
        tasks = [result_document(result) for result in self.results]
        click.echo(dumps({"config": str(self.config.path), "exit_code": int(self.exit_code), "tasks": tasks}))

    def _wait(self, futures: Sequence[TaskFuture], reporter: Reporter | None) -> None:
        try:
            wait(futures)
        except Interrupted as interrupted:
            self.interrupted = interrupted
            ending = sum(future.cancel(f"tasklink was ended by {interrupted.name}", GRACE) for future in futures)
            if reporter is not None:
                reporter.say(f"{interrupted.name}: ending {ending} of {len(futures)}")
            wait(futures)


def _result(name: str, future: TaskFuture) -> TaskResult:
    """Give the result of a run that has ended; also of one that could not begin, whatever the reason."""
    cause = future.exception()
    if cause is None:
        return future.result()
    error = TaskNotStartedError(f"{name} could not be run: {cause}")
    error.__cause__ = cause
    return TaskResult(name=name, status=Status.NOT_STARTED, error=error)
