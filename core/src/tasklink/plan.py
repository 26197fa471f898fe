"""From a TaskSpec to a Plan: channels are opened and the arguments of the process decided, but nothing has started."""

from __future__ import annotations

import os
import sys
import uuid
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self

import attrs

from tasklink import codec, config, vocabulary
from tasklink.config import nearest
from tasklink.errors import ConfigError, EncodeError
from tasklink.launch import Invitation, anonymous_file, behind, passes_descriptors, python_arguments
from tasklink.message import Message
from tasklink.output import OutputListener
from tasklink.process import Process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from tasklink.communicator import Communicator, Listener
    from tasklink.config import TaskSpec
    from tasklink.guardian import Guardian

CODECS = {"pickle": codec.PICKLE, "json": codec.JSON}


@attrs.frozen(kw_only=True)
class Protocol:
    """A communicator that is ready to listen.

    Attributes:
        name: what the config calls it.
        kind: its class.
        settings: an instance of its settings class.
    """

    name: str
    kind: type[Communicator]
    settings: Any


@attrs.define(kw_only=True)
class Plan:
    """What a run is to do. A context manager: it closes what was opened for the run.

    Attributes:
        spec: what was asked for, with nothing left to be inherited.
        guardian: is told of the process.
        arguments: of the process.
        channels: name and Listener of each channel, the preferred one first; output is captured by one of them.
        inherited: the descriptors that the process has beside its standard ones.
        order: the START message; None for a command, which is not spoken to.
        ways: how many of the channels carry messages.
    """

    spec: TaskSpec
    guardian: Guardian
    arguments: Sequence[str] = ()
    channels: list[tuple[str, Listener]] = attrs.field(factory=list)
    inherited: list[int] = attrs.field(factory=list)
    order: Message | None = None
    ways: int = 0
    _opened: ExitStack = attrs.field(factory=ExitStack, init=False)
    _standard: dict[int, int] = attrs.field(factory=dict, init=False)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the communicators, the preferred one first."""
        return tuple(dict.fromkeys(name for name, _ in self.channels))

    def start(self) -> Process:
        """Start the process.

        Raises:
            TaskNotStartedError: the system refuses; the text says what and why.
        """
        standard: dict[int, int] = {}
        env: dict[str, str] = {}
        for _, listener in self.channels:
            standard.update(listener.standard_descriptors)
            env = {**listener.environment, **env}
        standard.update(self._standard)
        env.update(self.spec.env)
        origin = uuid.uuid4().hex
        return Process.start(
            self.arguments,
            env=config.environment(env, origin),
            cwd=self.spec.cwd,
            standard=standard,
            inherited=self.inherited,
            guardian=self.guardian,
            origin=origin,
        )

    def listen(self, protocols: Sequence[Protocol]) -> list[tuple[str, type[Communicator], Listener]]:
        """Open the channels; one of them, or else a pair of plain pipes, captures the Task's output.

        What has no other use captures it: whoever names a terminal beside pipes wants the terminal. Of the others the
        preferred one does. For a command only what captures output is of use.

        Raises:
            ConfigError: two of them need the same standard descriptor of the Task.
        """
        spoken_to = self.order is not None
        opened = []
        for protocol in sorted(protocols, key=lambda protocol: protocol.kind.capabilities.carries_messages):
            if not (spoken_to or protocol.kind.capabilities.captures_output):
                continue
            listener = self._open(protocol)
            if spoken_to and protocol.kind.capabilities.carries_messages:
                self._check_unclaimed(protocol.name, listener)
                self.channels.append((protocol.name, listener))
                opened.append((protocol.name, protocol.kind, listener))
            if listener.output is not None:
                self._capture(protocol.name, listener.output)
        preferred = [protocol.name for protocol in protocols]
        self.channels.sort(key=lambda channel: preferred.index(channel[0]))
        self.ways = len(opened)
        uncaptured = tuple(stream for stream in (1, 2) if stream not in self._captured())
        if uncaptured:
            self.channels.append(("output", self._opened.enter_context(OutputListener(uncaptured))))
        return opened

    def _open(self, protocol: Protocol) -> Listener:
        listener = protocol.kind.listen(protocol.settings)
        for directory in listener.directories:  # the guardian forgets it last, when it is removed
            self._opened.callback(self.guardian.forget, directory)
        self._opened.enter_context(listener)
        for directory in listener.directories:
            self.guardian.keep(directory)
        return listener

    def _capture(self, name: str, listener: Listener) -> None:
        if not self._captured() & set(listener.standard_descriptors):
            self.channels.append((name, listener))

    def _check_unclaimed(self, name: str, listener: Listener) -> None:
        """See that nobody else has the standard descriptors on which a Listener's messages travel."""
        for other, owner in self.channels:
            clash = set(listener.standard_descriptors) & set(owner.standard_descriptors)
            if clash:
                raise ConfigError(
                    f"{self.spec.label}: communicators {name!r} and {other!r} both need descriptor {min(clash)} of the "
                    f"Task for themselves; leave one of them out, or change [communicators.{name}]"
                )

    def _captured(self) -> set[int]:
        return {number for _, listener in self.channels for number in listener.standard_descriptors}

    def hand_over(self, handover: bytes, ways: Iterable[Listener]) -> int:
        """Have the process find the handover; gives the descriptor from which it reads it.

        A launcher passes standard input on, and perhaps nothing else. There the handover is what the Listener that
        owns standard input sends first, or else all that there is.

        Args:
            handover: the bytes.
            ways: the Listeners of the channels that carry messages. What merely captures output sends nothing, and
                what it has for standard input gives way.
        """
        if not self.spec.prefix:
            descriptor = anonymous_file(handover)
            self.keep_open(descriptor)
            return descriptor
        owners = [listener for listener in ways if 0 in listener.standard_descriptors]
        if owners:
            owners[0].preamble = handover
        else:
            self._standard[0] = anonymous_file(handover)
            self._opened.callback(os.close, self._standard[0])
        return 0

    def keep_open(self, descriptor: int) -> None:
        """Have the process inherit a descriptor, which is closed with the plan."""
        self._opened.callback(os.close, descriptor)
        self.inherited.append(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()


def make_plan(
    spec: TaskSpec,
    parameters: Mapping[str, object],
    protocols: Sequence[Protocol],
    *,
    guardian: Guardian,
    folders: tuple[str, ...] = (),
    bundle: Callable[[Iterable[str]], Path],
) -> Plan:
    """Open everything that a run needs.

    Args:
        spec: what to run.
        parameters: those of this run, on top of the spec's own.
        protocols: the communicators, the preferred one first.
        guardian: is told of the process.
        folders: put in front of a Python Task's `sys.path`.
        bundle: writes the Task side and some packages into a zip, for an interpreter that is not ours.

    Raises:
        ConfigError: the spec asks for something that cannot be.
        EncodeError: the function or its parameters cannot be sent.
        OSError: the system refuses a descriptor, memory or a directory.
    """
    plan = Plan(spec=spec, guardian=guardian)
    try:
        if spec.command is not None:
            plan.arguments = behind(spec.prefix, spec.arguments(parameters))
            plan.listen(protocols)
        else:
            plan.order = _order(spec, parameters)
            _invite(plan, protocols, folders, bundle)
    except BaseException:
        plan.__exit__()
        raise
    return plan


def _order(spec: TaskSpec, parameters: Mapping[str, object]) -> Message:
    """Make START. It is encoded here, so that what cannot be sent is said to who asked for it."""
    what = spec.run
    if spec.codec == "json" and not isinstance(what, str):
        what = _name_of(what)
    contents = {"task": what, "parameters": {**spec.parameters, **parameters}}
    return Message.encoded(*codec.encode(contents, CODECS[spec.codec]), vocabulary.START)


def _name_of(what: object) -> str:
    """The name by which a Task imports a function or a class, where nothing but data can be sent."""
    module, name = getattr(what, "__module__", None), getattr(what, "__qualname__", "<")
    if "<" in name or module in {None, "__main__"}:
        raise EncodeError(
            f"with codec json the Task imports what it runs by its name, and {what!r} has none that is known there; "
            "put it at the top of a module, or name it as 'module:attribute'"
        )
    return f"{module}:{name}"


def _invite(
    plan: Plan, protocols: Sequence[Protocol], folders: tuple[str, ...], bundle: Callable[[Iterable[str]], Path]
) -> None:
    spec = plan.spec
    opened = plan.listen(protocols)
    channels = [(name, kind, listener.address) for name, kind, listener in opened]
    _check_routes(spec, [name for name, _, _ in channels])
    remedies = _remedies(opened) if spec.prefix else {}
    _check_launchable(spec, remedies)
    foreign = spec.python is not None and str(spec.python) != sys.executable
    invitation = Invitation(
        label=spec.label,
        channels=channels,
        routes=spec.routes,
        encoding=CODECS[spec.codec],
        folders=folders,
        prefix=spec.prefix,
        remedies=remedies,
    )
    handover = plan.hand_over(invitation.pack(foreign=foreign), [listener for _, _, listener in opened])
    for _, _, address in channels:
        plan.inherited += address.descriptors
    packages = {kind.__module__.partition(".")[0] for _, kind, _ in channels}
    python = str(spec.python or sys.executable)
    arguments = python_arguments(python, handover, bundle(packages) if foreign else None)
    plan.arguments = behind(spec.prefix, arguments)


def _remedies(opened: Iterable[tuple[str, type[Communicator], Listener]]) -> dict[str, str]:
    """What to do about each communicator whose descriptors do not reach the Task."""
    remedies = {}
    for name, _, listener in opened:
        setting = listener.without_descriptors
        instead = f"set {setting} in [communicators.{name}], or " if setting else ""
        if listener.address.descriptors:
            remedies[name] = f"{instead}leave {name!r} out"
    return remedies


def _check_launchable(spec: TaskSpec, remedies: Mapping[str, str]) -> None:
    """Refuse what needs descriptors behind a launcher that may pass none on: before it has waited in a queue for us."""
    if remedies and not passes_descriptors(spec.prefix):
        needs = "; ".join(f"communicator {name!r} does: {remedy}" for name, remedy in remedies.items())
        raise ConfigError(
            f"{spec.label}: prefix = {list(spec.prefix)}: {spec.prefix[0]!r} is not known to pass descriptors on to "
            f"what it starts, and what needs them cannot be used behind it; {needs}"
        )


def _check_routes(spec: TaskSpec, names: Sequence[str]) -> None:
    for kind, name in spec.routes.items():
        for given, allowed, what in ((kind, vocabulary.KINDS, "kind of message"), (name, names, "communicator")):
            if given not in allowed:
                near = nearest(given, allowed)
                hint = f"did you mean {near!r}? " if near else ""
                raise ConfigError(
                    f"{spec.label}: routes.{kind} = {name!r}: there is no {what} {given!r} in this run; "
                    f"{hint}allowed: {', '.join(allowed)}"
                )
