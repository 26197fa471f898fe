"""From what is asked for to what is opened: channels, capture, order, and nothing left behind by a plan that fails."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from tasklink import Status, TaskSpec, codec, vocabulary
from tasklink.communicator import Address, Capabilities, Communicator, Listener
from tasklink.errors import ConfigError, EncodeError
from tasklink.output import OutputListener
from tasklink.plan import Plan, Protocol, make_plan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import ModuleType

    from tasklink.guardian import Guardian
    from tasklink.message import Message
    from tasklink.result import TaskResult

    RunOver = Callable[..., tuple[TaskResult, list[str]]]

pytestmark = pytest.mark.usefixtures("clean")


class Mute(Communicator):
    """Something to open; nothing is ever written or read."""

    capabilities: ClassVar[Capabilities] = Capabilities()
    settings: ClassVar[str] = ""
    streams: ClassVar[tuple[int, ...]] = ()

    @classmethod
    def listen(cls, settings: object) -> Opened:
        """Open, or fail."""
        if isinstance(settings, Exception):
            raise settings
        return Opened(cls.streams)

    @classmethod
    def connect(cls, address: Address) -> Communicator:
        """Not needed here."""
        raise NotImplementedError

    def write(self, message: Message, timeout: float | None = None) -> None:
        """Not needed here."""

    def read(self, timeout: float | None = None) -> Message:
        """Not needed here."""
        raise NotImplementedError

    def fileno(self) -> int:
        """Not needed here."""
        return -1

    def close(self) -> None:
        """Not needed here."""


class Captures(Mute):
    """Carries messages, and captures both streams."""

    capabilities: ClassVar[Capabilities] = Capabilities(captures_output=True)
    streams: ClassVar[tuple[int, ...]] = (1, 2)


class CapturesErrors(Mute):
    """Carries messages, and captures one stream."""

    capabilities: ClassVar[Capabilities] = Capabilities(captures_output=True)
    streams: ClassVar[tuple[int, ...]] = (2,)


class OnlyCaptures(Mute):
    """Carries no messages: capturing both streams is all it does."""

    capabilities: ClassVar[Capabilities] = Capabilities(captures_output=True, carries_messages=False)

    @classmethod
    def listen(cls, settings: object) -> Listener:
        """Open."""
        return OutputListener((1, 2))


class Explains(OnlyCaptures):
    """Tells programs what it captures them with."""

    @classmethod
    def listen(cls, settings: object) -> Listener:
        """Open."""
        return Explaining()


class Explaining(OutputListener):
    """Has variables for the Task."""

    @property
    def environment(self) -> Mapping[str, str]:
        """Two of them."""
        return {"TERM": "of the communicator", "PAGER": "of the communicator"}


class InBand(Mute):
    """Carries its messages on the Task's standard input and output."""

    @classmethod
    def listen(cls, settings: object) -> Opened:
        """Open."""
        return Opened((), (0, 1))


class OnlyCapturesWithInput(OnlyCaptures):
    """Has something for standard input as well."""

    @classmethod
    def listen(cls, settings: object) -> Listener:
        """Open."""
        return Opened((), (0, 1, 2))


class Opened(Listener):
    """Knows whether it was closed."""

    def __init__(self, streams: tuple[int, ...], standard: tuple[int, ...] = ()) -> None:
        self.address = Address()
        self._standard = dict.fromkeys(standard, 0)
        self.output = OutputListener(streams) if streams else None
        self.closed = False

    @property
    def standard_descriptors(self) -> Mapping[int, int]:
        """What was asked for."""
        return self._standard

    def accept(self, timeout: float | None = None) -> Communicator:
        """Not needed here."""
        raise NotImplementedError

    def close(self) -> None:
        """Take note."""
        self.closed = True
        if self.output is not None:
            self.output.close()


@pytest.fixture
def plan_for(guardian: Guardian) -> Callable[..., Plan]:
    """Make a plan over some kinds of communicators, which are called a, b, c."""

    def plan_for(spec: TaskSpec, *kinds: Any, settings: Any = None, **more: Any) -> Plan:
        protocols = [
            Protocol(name=name, kind=kind, settings=settings.pop(0) if settings else None)
            for name, kind in zip("abc", kinds, strict=False)
        ]
        more = {"guardian": guardian, "bundle": no_bundle, **more}
        return make_plan(spec, more.pop("parameters", {}), protocols, **more)

    return plan_for


def no_bundle(_: Iterable[str]) -> Path:
    """For runs in our own interpreter."""
    raise AssertionError("no bundle is needed")


TASK = TaskSpec(run="os:getcwd")
COMMAND = TaskSpec(command=("true",))


class TestCapture:
    """Whose pipes become the Task's output."""

    @pytest.mark.parametrize(
        ("spec", "kinds", "channels", "owner"),
        [
            (TASK, [Mute], ["a", "output"], {1: "output", 2: "output"}),
            (TASK, [Captures], ["a", "a"], {1: "a", 2: "a"}),
            (TASK, [Mute, Captures, Captures], ["a", "b", "b", "c"], {1: "b", 2: "b"}),
            (TASK, [CapturesErrors, Captures], ["a", "a", "b", "output"], {1: "output", 2: "a"}),
            (TASK, [Mute, OnlyCaptures], ["a", "b"], {1: "b", 2: "b"}),
            (TASK, [Captures, Mute, OnlyCaptures], ["a", "b", "c"], {1: "c", 2: "c"}),
            (TASK, [OnlyCaptures, Captures], ["a", "b"], {1: "a", 2: "a"}),
            (TASK, [Mute, OnlyCaptures, OnlyCaptures], ["a", "b"], {1: "b", 2: "b"}),
            (TASK, [], ["output"], {1: "output", 2: "output"}),
            (COMMAND, [Mute], ["output"], {1: "output", 2: "output"}),
            (COMMAND, [Mute, Captures], ["b"], {1: "b", 2: "b"}),
            (COMMAND, [CapturesErrors], ["a", "output"], {1: "output", 2: "a"}),
            (COMMAND, [Captures, OnlyCaptures], ["b"], {1: "b", 2: "b"}),
            (COMMAND, [InBand, OnlyCaptures], ["b"], {1: "b", 2: "b"}),
        ],
    )
    def test_who_captures(
        self,
        plan_for: Callable[..., Plan],
        spec: TaskSpec,
        kinds: list[type[Mute]],
        channels: list[str],
        owner: dict[int, str],
    ) -> None:
        """Each stream is captured once: by what does nothing else, by the first that can, else by plain pipes."""
        with plan_for(spec, *kinds) as plan:
            assert [name for name, _ in plan.channels] == channels
            assert {
                number: name for name, listener in plan.channels for number in listener.standard_descriptors
            } == owner
            assert plan.names == tuple(dict.fromkeys(channels))
            assert plan.ways == (0 if spec is COMMAND else sum(kind.capabilities.carries_messages for kind in kinds))

    @pytest.mark.parametrize("kinds", [(InBand, OnlyCaptures), (OnlyCaptures, InBand)])
    def test_output_that_carries_messages_cannot_be_captured(
        self, plan_for: Callable[..., Plan], kinds: tuple[type[Mute], ...]
    ) -> None:
        """Two that need the same descriptor of a Task are refused together, whichever is preferred."""
        words = r"os:getcwd: communicators '[ab]' and '[ab]' both need descriptor 1 .*; leave one of them out"
        with pytest.raises(ConfigError, match=words):
            plan_for(TASK, *kinds)

    def test_what_a_command_does_not_need(self, plan_for: Callable[..., Plan]) -> None:
        """A communicator that only carries messages is not even opened for a command."""
        with plan_for(COMMAND, Mute, Captures, settings=[OSError("opened"), None]) as plan:
            assert plan.names == ("b",)

    def test_closing(self, plan_for: Callable[..., Plan]) -> None:
        """With the plan, everything that it has opened is closed."""
        with plan_for(TASK, Mute, Captures) as plan:
            pass
        assert all(listener.closed for _, listener in plan.channels if isinstance(listener, Opened))
        assert all(not listener.standard_descriptors for _, listener in plan.channels)


class TestHandover:
    """What a Task behind a launcher reads first."""

    SPEC = TaskSpec(run="os:getcwd", prefix=("nice",))

    def test_before_the_messages_of_standard_input(self, plan_for: Callable[..., Plan]) -> None:
        """Who carries messages there sends the handover in front of them."""
        with plan_for(self.SPEC, InBand) as plan:
            assert plan.channels[0][1].preamble

    def test_instead_of_what_captures(self, plan_for: Callable[..., Plan]) -> None:
        """What merely captures output has no way to send it, and standard input is not its own there."""
        with plan_for(self.SPEC, Mute, OnlyCapturesWithInput) as plan:
            assert not any(listener.preamble for _, listener in plan.channels)


class TestFailures:
    """A plan that cannot be made leaves nothing open; the fixture looks."""

    def test_a_listener_that_cannot_be_opened(self, plan_for: Callable[..., Plan]) -> None:
        """Those before it are closed, and their capture with them."""
        with pytest.raises(OSError, match="no segment"):
            plan_for(TASK, Captures, Mute, settings=[None, OSError("no segment")])

    def test_what_cannot_be_sent(self, plan_for: Callable[..., Plan]) -> None:
        """It is refused before anything is opened."""
        with pytest.raises(EncodeError, match="complex"):
            plan_for(TaskSpec(run="os:getcwd", codec="json"), Captures, settings=[OSError()], parameters={"x": 1j})

    @pytest.mark.parametrize(
        ("routes", "words"),
        [
            (
                {"reports": "a"},
                r"routes.reports = 'a': there is no kind of message 'reports' .* did you mean 'report'\?",
            ),
            ({"log": "A"}, r"routes.log = 'A': there is no communicator 'A' in this run; .*allowed: a, b$"),
            ({"log": "output"}, "there is no communicator 'output'"),
            ({"output": "a"}, "there is no kind of message 'output'"),
        ],
    )
    def test_routes(self, plan_for: Callable[..., Plan], routes: dict[str, str], words: str) -> None:
        """A route that leads nowhere is named with what is allowed."""
        with pytest.raises(ConfigError, match=words):
            plan_for(TaskSpec(run="os:getcwd", routes=routes), Mute, Captures)

    @pytest.mark.parametrize("kind", vocabulary.KINDS)
    def test_routes_that_lead_somewhere(self, plan_for: Callable[..., Plan], kind: str) -> None:
        """Each kind may take each way."""
        with plan_for(TaskSpec(run="os:getcwd", routes={kind: "b"}), Mute, Captures):
            pass

    def test_a_bundle_that_cannot_be_made(self, plan_for: Callable[..., Plan]) -> None:
        """The handover is closed, too."""

        def refuse(packages: Iterable[str]) -> Path:
            raise OSError(f"no room for {sorted(packages)}")

        spec = TaskSpec(run="os:getcwd", python=Path("/opt/python"))
        with pytest.raises(OSError, match=r"no room for \['core'\]|no room for \['test_plan'\]"):
            plan_for(spec, Captures, bundle=refuse)


class TestOrder:
    """What a Task is told to run."""

    @staticmethod
    def contents(plan: Plan) -> Any:
        """What START says."""
        with plan:
            assert plan.order is not None
            return plan.order.contents

    def test_parameters(self, plan_for: Callable[..., Plan]) -> None:
        """Those of the run are put over those of the spec."""
        spec = TaskSpec(run="os:getcwd", parameters={"a": 1, "b": 2})
        assert self.contents(plan_for(spec, Mute, parameters={"b": 3})) == {
            "task": "os:getcwd",
            "parameters": {"a": 1, "b": 3},
        }

    def test_functions(self, plan_for: Callable[..., Plan]) -> None:
        """A function goes as it is, or by its name where only data is sent."""
        assert self.contents(plan_for(TaskSpec(run=os.path.join), Mute))["task"] is os.path.join
        plan = plan_for(TaskSpec(run=os.path.join, codec="json"), Mute)
        assert plan.order is not None
        assert plan.order.buffers is not None
        assert plan.order.codec == codec.JSON
        assert self.contents(plan)["task"] == "posixpath:join"

    @pytest.mark.parametrize("what", [lambda: 1, partial(print, 1), type("Local", (), {"__module__": "__main__"})])
    def test_functions_without_a_name(self, plan_for: Callable[..., Plan], what: Any) -> None:
        """What no Task could import is refused here, and not there."""
        with pytest.raises(EncodeError, match="put it at the top of a module"):
            plan_for(TaskSpec(run=what, codec="json"), Mute)

    def test_commands(self, plan_for: Callable[..., Plan]) -> None:
        """A command is not spoken to."""
        with plan_for(TaskSpec(command=("echo", "{x}"), prefix=("nice",)), Mute, parameters={"x": 5}) as plan:
            assert plan.order is None
            assert list(plan.arguments) == ["nice", "echo", "5"]
            assert plan.inherited == []


class TestRun:
    """What becomes of a plan."""

    def test_what_others_see(self, run_over: RunOver, wires: ModuleType, errands: ModuleType) -> None:
        """The key of a channel stands neither in the arguments nor in the environment, nor does what is run."""
        result, _ = run_over(TaskSpec(run=errands.visible_to_others), wires.Wire)
        seen = result.value_or_raise()
        assert isinstance(seen, bytes)
        assert b"tasklink.worker" in seen
        assert b"key of this wire" not in seen
        assert b"visible_to_others" not in seen

    def test_environment(self, run_over: RunOver) -> None:
        """A communicator may set variables, and the Task's own come before them."""
        spec = TaskSpec(command=("sh", "-c", "echo $TERM, $PAGER, ${HOME:+ours}"), env={"TERM": "of the Task"})
        result, _ = run_over(spec, Explains)
        assert result.stdout == b"of the Task, of the communicator, ours\n"

    def test_a_long_handover(self, run_over: RunOver, wires: ModuleType, errands: ModuleType) -> None:
        """It may be longer than any pipe holds: nobody waits for the Task to read it."""
        result, _ = run_over(TaskSpec(run=errands.in_process), wires.WordyWire)
        assert result.status is Status.COMPLETED

    def test_another_interpreter(self, run_over: RunOver, plan_for: Callable[..., Plan], wires: ModuleType) -> None:
        """One that is not ours is given a bundle with the packages of its communicators; ours needs none."""
        asked: list[list[str]] = []

        def bundle(packages: Iterable[str]) -> Path:
            asked.append(sorted(packages))
            return Path("/somewhere/side.zip")

        with plan_for(TaskSpec(run="os:getcwd", python=Path("/opt/python")), wires.Wire, bundle=bundle) as plan:
            assert plan.arguments[0] == "/opt/python"
            assert "/somewhere/side.zip" in plan.arguments[-1]
        with plan_for(TaskSpec(run="os:getcwd", python=Path(sys.executable)), wires.Wire, bundle=bundle) as plan:
            assert plan.arguments[0] == sys.executable
        assert asked == [["wires"]]
