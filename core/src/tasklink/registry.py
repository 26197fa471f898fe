"""Plugins by name: found, chosen, loaded and checked.

A distribution offers a plugin as an entry point: `pipe = "tasklink_pipe:PipeCommunicator"` in the group
`tasklink.communicators`, or `tasklink.observers`. Rules of this file:

* Only the plugin that was asked for is imported. Names are read from metadata alone.
* Metadata is read from the disk each time, so a plugin that was installed a moment ago is there. stevedore loads what
  was chosen, but its own list of entry points is never used: it is cached for the life of the process, and in a file
  under the home directory that can be out of date; and it has forgotten which distribution an entry point is from.
  Reading takes a millisecond for 40 distributions: whoever needs a class often keeps it.
* Whatever fails in a plugin is its own failure: an error names its distribution, and the other plugins go on working.
* Nothing is kept here, so that threads need no lock.

The Executor's side only: a Task is told `module:attribute`, and searches for nothing.
"""

from __future__ import annotations

import importlib
import logging
import re
from contextlib import contextmanager
from importlib import metadata
from itertools import chain
from typing import TYPE_CHECKING, Generic, Literal, TypeVar, cast, overload

import attrs
from stevedore import DriverManager

from tasklink.communicator import API, Capabilities, Communicator
from tasklink.errors import (
    BrokenPluginError,
    IncompatiblePluginError,
    PluginConflictError,
    PluginError,
    PluginNotFoundError,
    PluginUnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

COMMUNICATORS = "tasklink.communicators"
OBSERVERS = "tasklink.observers"

OLDEST_API = 1
"""The oldest version of the plugin API that this tasklink still serves; `communicator.API` is the newest."""

# Names whose distribution is ours, so that "not installed" can say for certain what to install.
_KNOWN = {COMMUNICATORS: frozenset({"pipe", "unix", "shm", "zmq", "pty"})}

_STATUS = {
    BrokenPluginError: "broken",
    IncompatiblePluginError: "incompatible",
    PluginConflictError: "conflict",
    PluginUnavailableError: "unavailable",
    PluginError: "refused",
}

_log = logging.getLogger(__name__)

PluginT_co = TypeVar("PluginT_co", covariant=True)


@attrs.frozen(kw_only=True)
class Plugin:
    """What is known about one installed plugin.

    Attributes:
        kind: `"communicator"` or `"observer"`.
        name: what a config calls it.
        distribution: which installed distribution offers it.
        version: the version of that distribution.
        value: the entry point, `"module:Class"`.
        status: `"ok"`, `"broken"`, `"unavailable"`, `"conflict"`, `"incompatible"`, or `"refused"` by strict loading.
        reason: the text of the error that `Registry.get` raises for it; empty when the status is ok.
        api: the version of the plugin API it was written for; None where that could not be learned, and for observers.
        capabilities: what the communicator can do; None where that could not be learned, and for observers.
    """

    kind: str
    name: str
    distribution: str
    version: str
    value: str
    status: str = "ok"
    reason: str = ""
    api: int | None = None
    capabilities: Capabilities | None = None

    def as_dict(self) -> dict[str, object]:
        """Everything by its name, as JSON can hold it."""
        capabilities = self.capabilities and self.capabilities.as_dict()
        return {**attrs.asdict(self, recurse=False), "capabilities": capabilities}


@attrs.frozen
class _Claim:
    """One distribution's claim to one name. `key` is how packaging compares names of distributions."""

    name: str
    key: str
    distribution: str
    version: str
    entry_point: metadata.EntryPoint

    @property
    def owner(self) -> str:
        return f"{self.distribution} {self.version}"

    @property
    def qualified(self) -> str:
        return f"{self.distribution}:{self.name}"

    def fits(self, name: str) -> bool:
        distribution, _, plain = name.rpartition(":")
        return plain == self.name and _canonical(distribution) in ("", self.key)


class _Driver(DriverManager[object]):
    """stevedore's loader for an entry point that was chosen here; see the rules of this file."""

    def __init__(self, group: str, entry_point: metadata.EntryPoint) -> None:
        self._entry_point = entry_point
        super().__init__(group, entry_point.name)

    def list_entry_points(self) -> list[metadata.EntryPoint]:
        return [self._entry_point]


class Registry(Generic[PluginT_co]):
    """The plugins of one entry-point group.

    A name is what the entry point is called, `"pipe"`. Where two distributions offer the same name,
    `"tasklink-pipe:pipe"` says which one is meant.

    Args:
        group: `"tasklink.communicators"` or `"tasklink.observers"`.
        allowed: strict loading: the only names that may be loaded, each spelt as it will be asked for. None: any.

    Attributes:
        group: as above.
        kind: what a plugin of the group is called in errors: `"communicator"` or `"observer"`.
    """

    @overload
    def __init__(
        self: Registry[type[Communicator]],
        group: Literal["tasklink.communicators"] = "tasklink.communicators",
        *,
        allowed: Iterable[str] | None = None,
    ) -> None: ...

    @overload
    def __init__(self: Registry[object], group: str, *, allowed: Iterable[str] | None = None) -> None: ...

    def __init__(self, group: str = COMMUNICATORS, *, allowed: Iterable[str] | None = None) -> None:
        self.group = group
        self.kind = group.rpartition(".")[2].removesuffix("s")
        self._allowed = None if allowed is None else frozenset(allowed)

    def names(self) -> list[str]:
        """The names that are installed, sorted. Nothing is imported."""
        return sorted({claim.name for claim in _read_claims(self.group)})

    def get(self, name: str) -> PluginT_co:
        """Load a plugin: a Communicator class that can be used here, or what an observer's entry point names.

        Raises:
            PluginNotFoundError: nothing that is installed has that name.
            PluginConflictError: several distributions have it.
            BrokenPluginError: it cannot be imported, or is not what its group asks for.
            IncompatiblePluginError: it was written for a plugin API that is not served.
            PluginUnavailableError: it cannot be used on this machine.
            PluginError: strict loading does not allow it.
        """
        return self._get(self._find(name))

    def instance(self: Registry[object], name: str) -> object:
        """Load a plugin and, where it is a class, make an instance of it without arguments.

        Raises:
            BrokenPluginError: it cannot be made.
            PluginError: as `get`.
        """
        claim = self._find(name)
        plugin = self._get(claim)
        if not isinstance(plugin, type):
            return plugin
        with self._blaming(claim, f"{plugin.__name__}()"):
            return plugin()

    def settings_class(self: Registry[type[Communicator]], name: str) -> type[attrs.AttrsInstance]:
        """Load the attrs class of a communicator's settings.

        Raises:
            BrokenPluginError: it cannot be imported, or is no attrs class.
            PluginError: as `get`.
        """
        claim = self._find(name)
        communicator = self._get(claim)
        with self._blaming(claim, "loading its settings"):
            return _settings_class(communicator)

    def settings(
        self: Registry[type[Communicator]], name: str, table: Mapping[str, object] | None = None
    ) -> attrs.AttrsInstance:
        """Make a communicator's settings, ready for its `listen`.

        Args:
            name: the communicator.
            table: what a config says about it; what is left out there has the default of the settings class.

        Raises:
            ConfigError: the table has a key or a value that the settings do not allow.
            BrokenPluginError: the settings class cannot be loaded.
            PluginError: as `get`.
        """
        # cattrs takes longer to import than everything else here, and whoever lists plugins does not need it.
        from tasklink import config  # noqa: PLC0415

        settings = self.settings_class(name)
        return config.structure({} if table is None else table, settings, where=f'communicators."{name}"')

    def plugins(self) -> list[Plugin]:
        """Everything that is installed, usable or not, sorted by name.

        Each plugin that may be loaded is imported; one that fails does not disturb the others.
        """
        claims = _read_claims(self.group)
        return [self._describe(claim, claims) for claim in claims]

    def _find(self, name: str) -> _Claim:
        return self._choose(name, _read_claims(self.group))

    def _choose(self, name: str, claims: list[_Claim]) -> _Claim:
        if self._allowed is not None and name not in self._allowed:
            raise PluginError(_refusal(self.kind, name, self._allowed))
        fitting = [claim for claim in claims if claim.fits(name)]
        if not fitting:
            raise PluginNotFoundError(_absence(self.kind, name, claims, _KNOWN.get(self.group, frozenset())))
        if len(fitting) > 1:
            raise PluginConflictError(_conflict(self.kind, fitting))
        return fitting[0]

    def _get(self, claim: _Claim) -> PluginT_co:
        plugin = self._load(claim)
        self._check(claim, plugin)
        return cast("PluginT_co", plugin)

    def _load(self, claim: _Claim) -> object:
        with self._blaming(claim, f"loading {claim.entry_point.value}"):
            return _Driver(self.group, claim.entry_point).driver

    def _check(self, claim: _Claim, plugin: object) -> None:
        if self.group != COMMUNICATORS:
            return  # whether the hooks of an observer are right shows when it is registered
        with self._blaming(claim, f"checking {claim.entry_point.value}"):
            communicator = _communicator_class(plugin)
        # Before anything else is asked of it: another API may ask for other things.
        if not OLDEST_API <= communicator.api <= API:
            raise IncompatiblePluginError(_incompatibility(self.kind, claim, communicator.api))
        with self._blaming(claim, f"checking {claim.entry_point.value}"):
            _check_complete(communicator)
            reason = communicator.unavailable()
        if reason is not None:
            raise PluginUnavailableError(f"{self.kind} {claim.name!r} of {claim.owner} cannot be used here: {reason}")

    def _describe(self, claim: _Claim, claims: list[_Claim]) -> Plugin:
        plugin = None
        status, reason = "ok", ""
        try:
            self._choose(claim.qualified if claim.qualified in (self._allowed or ()) else claim.name, claims)
            plugin = self._load(claim)
            self._check(claim, plugin)
        except PluginError as error:
            status, reason = _STATUS[type(error)], str(error)
        api, capabilities = _facts(plugin)
        return Plugin(
            kind=self.kind,
            name=claim.name,
            distribution=claim.distribution,
            version=claim.version,
            value=claim.entry_point.value,
            status=status,
            reason=reason,
            api=api,
            capabilities=capabilities,
        )

    @contextmanager
    def _blaming(self, claim: _Claim, doing: str) -> Iterator[None]:
        try:
            yield
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # the code of a plugin may raise anything: AssertionError, SystemExit, ...
            raise BrokenPluginError(
                f"{self.kind} {claim.name!r} of {claim.owner} is broken: {doing} raised {_summary(error)}. "
                f"Other plugins still work. To repair it: pip install --force-reinstall {claim.distribution}"
            ) from error


def _read_claims(group: str) -> list[_Claim]:
    # Both caches know a directory by the time of its last change, which two changes can share.
    importlib.invalidate_caches()
    metadata.MetadataPathFinder().invalidate_caches()
    found: dict[str, list[_Claim]] = {}
    for distribution in metadata.distributions():
        claims = _claims_of(distribution, group)
        if claims:
            # A distribution can be met twice: an editable install as dist-info and as egg-info, an old version further
            # down sys.path. The first one is the one whose modules an import finds.
            found.setdefault(claims[0].key, claims)
    return sorted(chain.from_iterable(found.values()), key=lambda claim: (claim.name, claim.key))


def _claims_of(distribution: metadata.Distribution, group: str) -> list[_Claim]:
    try:
        if group not in (distribution.read_text("entry_points.txt") or ""):
            return []  # most distributions: parsing their metadata would be the most of a scan
        described = distribution.metadata
        name, version = described["Name"], described["Version"]
        key = _canonical(name)
        entry_points = dict.fromkeys(distribution.entry_points.select(group=group))
    except Exception as error:  # noqa: BLE001 - a damaged distribution must not hide the others, however it is damaged
        where = distribution.locate_file("")
        _log.warning("a distribution in %s is passed over: reading its metadata raised %s", where, _summary(error))
        return []
    return [_Claim(entry_point.name, key, name, version, entry_point) for entry_point in entry_points]


def _canonical(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def _communicator_class(plugin: object) -> type[Communicator]:
    if not isinstance(plugin, type) or not issubclass(plugin, Communicator):
        raise TypeError(f"{plugin!r} is not a subclass of tasklink.communicator.Communicator")
    if not isinstance(plugin.api, int):
        raise TypeError(f"{plugin.__name__}.api has to be an int, not {plugin.api!r}")
    return plugin


def _check_complete(communicator: type[Communicator]) -> None:
    missing = getattr(communicator, "__abstractmethods__", ())
    if missing:
        raise TypeError(f"{communicator.__name__} does not implement {_listed(missing)}")
    if not isinstance(communicator.capabilities, Capabilities):
        raise TypeError(f"{communicator.__name__}.capabilities has to be a Capabilities")


def _facts(plugin: object) -> tuple[int | None, Capabilities | None]:
    try:
        communicator = _communicator_class(plugin)
    except TypeError:
        return None, None
    capabilities = getattr(communicator, "capabilities", None)
    return communicator.api, capabilities if isinstance(capabilities, Capabilities) else None


def _settings_class(communicator: type[Communicator]) -> type[attrs.AttrsInstance]:
    module, _, attribute = communicator.settings.partition(":")
    settings: object = getattr(importlib.import_module(module), attribute)
    if not isinstance(settings, type) or not attrs.has(settings):
        raise TypeError(f"{communicator.settings!r} is not an attrs class")
    attrs.resolve_types(settings, include_extras=True)  # a type that cannot be resolved is the plugin's failure too
    return settings


def _refusal(kind: str, name: str, allowed: Iterable[str]) -> str:
    return (
        f"{kind} {name!r} may not be loaded: loading is strict (allowed: {_listed(allowed)}). "
        f"To allow it, name it among the {kind}s of the config, or take `strict = true` out of it"
    )


def _conflict(kind: str, rivals: list[_Claim]) -> str:
    owners = " and ".join(claim.owner for claim in rivals)
    choice = " or ".join(repr(claim.qualified) for claim in rivals)
    return f"{kind} {rivals[0].name!r} is offered by {owners}. Say which one is meant: {choice}; or uninstall one"


def _absence(kind: str, name: str, claims: list[_Claim], known: frozenset[str]) -> str:
    import difflib  # noqa: PLC0415 - only a mistake needs it

    distribution, _, plain = name.rpartition(":")
    owners = [claim for claim in claims if claim.name == plain]
    if owners:
        return _elsewhere(kind, distribution, owners)
    installed = {claim.name for claim in claims}
    text = f"{kind} {plain!r} is not installed (installed: {_listed(installed)}). "
    if plain in known:
        return text + f"To install it: pip install tasklink-{plain}"
    for near in difflib.get_close_matches(plain, installed | known, 1):
        text += f"Did you mean {near!r}? " if near in installed else f"Did you mean {near!r} (tasklink-{near})? "
    return text + f"Plugins are usually called tasklink-NAME: look for tasklink-{plain}, then pip install it"


def _elsewhere(kind: str, distribution: str, claims: list[_Claim]) -> str:
    owners = " and ".join(claim.owner for claim in claims)
    choice = " or ".join(repr(claim.qualified) for claim in claims)
    return f"{kind} {claims[0].name!r} is offered by {owners}, not by {distribution!r}: write {choice}"


def _incompatibility(kind: str, claim: _Claim, api: int) -> str:
    served = f"{OLDEST_API} to {API}" if OLDEST_API < API else f"{API}"
    behind = "tasklink" if api > API else claim.distribution
    return (
        f"{kind} {claim.name!r} of {claim.owner} is written for plugin API {api}, and tasklink "
        f"{metadata.version('tasklink')} serves API {served}. To upgrade what is behind: pip install --upgrade {behind}"
    )


def _summary(error: BaseException) -> str:
    # The first line: what comes after it belongs to a long message, and the whole is in the chained cause.
    first = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, sorted(names))) or "none"
