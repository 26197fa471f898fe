"""The registry, over real distributions that each test installs into a folder of its own."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from textwrap import dedent
from typing import TYPE_CHECKING

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasklink.communicator import API, Communicator
from tasklink.errors import (
    BrokenPluginError,
    ConfigError,
    IncompatiblePluginError,
    PluginConflictError,
    PluginError,
    PluginNotFoundError,
    PluginUnavailableError,
)
from tasklink.registry import OBSERVERS, Registry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

GOOD = """
    from tasklink.communicator import Capabilities, Communicator

    class Plugin(Communicator):
        api = 1
        capabilities = Capabilities(zero_copy=True)
        settings = "NAME_settings:Settings"
        listen = connect = classmethod(lambda cls, *arguments: None)
        write = read = fileno = close = lambda self, *arguments: None
"""


@attrs.frozen
class Site:
    """A folder on `sys.path` into which distributions can be installed."""

    folder: Path

    def install(
        self,
        name: str,
        code: str = GOOD,
        *,
        distribution: str = "",
        version: str = "1.0",
        group: str = "tasklink.communicators",
        value: str = "",
    ) -> str:
        """Install a distribution of one module that offers the plugin `name`; give the name of the module."""
        distribution = distribution or f"tasklink-{name}"
        module = distribution.replace("-", "_")
        (self.folder / f"{module}.py").write_text(dedent(code).replace("NAME", module))
        self.describe(module, version, f"[{group}]\n{name} = {value or f'{module}:Plugin'}\n", distribution)
        return module

    def describe(
        self, module: str, version: str, entry_points: str, distribution: str, suffix: str = "dist-info"
    ) -> Path:
        """Write the metadata of a distribution; give the folder that holds it."""
        folder = self.folder / f"{module}-{version}.{suffix}"
        folder.mkdir(parents=True)
        about = "METADATA" if suffix == "dist-info" else "PKG-INFO"
        (folder / about).write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        (folder / "entry_points.txt").write_text(entry_points)
        return folder


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A place to install plugins; the modules that were imported from there are forgotten."""
    monkeypatch.syspath_prepend(tmp_path)
    known = set(sys.modules)
    yield Site(tmp_path)
    for name in set(sys.modules) - known:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


class TestFinding:
    """Names and what they lead to."""

    def test_names_are_read_from_metadata(self, site: Site) -> None:
        """names() lists what is installed in the group, sorted, and imports none of it."""
        modules = [site.install("zebra"), site.install("ant")]
        site.install("watcher", group=OBSERVERS)
        names = Registry().names()
        assert [name for name in names if name in ("ant", "watcher", "zebra")] == ["ant", "zebra"]
        assert names == sorted(names)
        assert "watcher" in Registry(OBSERVERS).names()
        assert not set(modules) & set(sys.modules)

    def test_only_the_named_plugin_is_imported(self, site: Site) -> None:
        """get() gives the class; a plugin that was not asked for is not imported, and so cannot do harm."""
        module = site.install("ant")
        other = site.install("bomb", "raise SystemExit('bang')")
        plugin = Registry().get("ant")
        assert issubclass(plugin, Communicator)
        assert plugin.__module__ == module
        assert other not in sys.modules

    def test_unknown_name_near_an_installed_one(self, site: Site) -> None:
        """A misspelt name is answered with the names there are and the nearest of them."""
        site.install("carrier")
        with pytest.raises(
            PluginNotFoundError, match=r"'carier' is not installed .*'carrier'.* Did you mean 'carrier'\?"
        ):
            Registry().get("carier")

    @pytest.mark.parametrize("name", ["shm", "zmq", "pty"])
    def test_known_name_that_is_not_installed(self, name: str) -> None:
        """For a name that belongs to tasklink, the package to install is stated as a fact."""
        if name in Registry().names():
            pytest.skip("it is installed here")
        with pytest.raises(PluginNotFoundError, match=f"To install it: pip install tasklink-{name}$"):
            Registry().get(name)

    def test_unknown_name_near_a_known_one(self) -> None:
        """The nearest name may be one that is not installed: then its package is named."""
        if "zmq" in Registry().names():
            pytest.skip("zmq is installed here")
        with pytest.raises(PluginNotFoundError, match=r"Did you mean 'zmq' \(tasklink-zmq\)\?"):
            Registry().get("zmqq")

    def test_unknown_name_near_nothing(self) -> None:
        """For a name that nobody knows, only the convention is stated: a name to look for, not to install blindly."""
        with pytest.raises(PluginNotFoundError, match="usually called tasklink-NAME: look for tasklink-carrierpigeon"):
            Registry().get("carrierpigeon")

    def test_nothing_is_installed(self) -> None:
        """With an empty group the error says so."""
        with pytest.raises(PluginNotFoundError, match=r"flower 'rose' is not installed \(installed: none\)"):
            Registry("tasklink.flowers").get("rose")

    @given(st.text())
    def test_any_text_is_a_name(self, name: str) -> None:
        """Whatever is asked for is either there or answered with PluginNotFoundError."""
        with pytest.raises(PluginNotFoundError):
            Registry("tasklink.flowers").get(name)

    def test_plugin_installed_while_the_process_runs(self, site: Site) -> None:
        """A new plugin is found at once, even if its folder seems not to have changed since it was last read."""
        registry = Registry()
        site.install("ant")
        registry.get("ant")
        before = site.folder.stat()
        site.install("bee")
        os.utime(site.folder, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert registry.get("bee").__module__ == "tasklink_bee"
        assert {"ant", "bee"} <= set(registry.names())

    def test_plugin_repaired_while_the_process_runs(self, site: Site) -> None:
        """A plugin that was broken can be loaded as soon as it is mended."""
        module = site.install("ant", "import module_that_is_missing")
        with pytest.raises(BrokenPluginError):
            Registry().get("ant")
        (site.folder / f"{module}.py").write_text(dedent(GOOD))
        assert issubclass(Registry().get("ant"), Communicator)

    def test_nothing_is_kept_on_the_disk(self, site: Site) -> None:
        """No process leaves a cache under the home directory, where stevedore itself would leave one."""
        site.install("ant")
        home = site.folder / "home"
        home.mkdir()
        program = "from tasklink.registry import Registry; Registry().get('ant'); print(Registry().plugins())"
        environment = {"HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache"), "PYTHONPATH": str(site.folder)}
        output = subprocess.run(
            [sys.executable, "-c", program], env=environment, check=True, capture_output=True, text=True
        ).stdout
        assert "tasklink-ant" in output
        assert list(home.iterdir()) == []

    def test_import_is_light(self) -> None:
        """Importing the registry brings neither cattrs nor pluggy nor difflib."""
        program = "import sys, tasklink.registry; print(*{'cattrs', 'pluggy', 'difflib'} & set(sys.modules))"
        output = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
        assert output.split() == []


class TestChoosing:
    """Several distributions, one name."""

    def test_conflict_names_both(self, site: Site) -> None:
        """Two distributions with one name: both are named with their versions, and how to choose; none is imported."""
        modules = [site.install("ant"), site.install("ant", distribution="acme-ant", version="2.5")]
        with pytest.raises(PluginConflictError) as caught:
            Registry().get("ant")
        assert str(caught.value) == (
            "communicator 'ant' is offered by acme-ant 2.5 and tasklink-ant 1.0. "
            "Say which one is meant: 'acme-ant:ant' or 'tasklink-ant:ant'; or uninstall one"
        )
        assert not set(modules) & set(sys.modules)

    @pytest.mark.parametrize("spelling", ["acme-ant:ant", "Acme_Ant:ant", "acme.ant:ant"])
    def test_choice(self, site: Site, spelling: str) -> None:
        """DISTRIBUTION:NAME chooses, and distributions are compared as packaging compares them."""
        site.install("ant")
        module = site.install("ant", distribution="acme-ant")
        assert Registry().get(spelling).__module__ == module

    def test_choice_of_a_distribution_that_does_not_have_it(self, site: Site) -> None:
        """A name that another distribution has: the error says which, and what to write."""
        site.install("ant")
        site.install("bee", distribution="acme-bee")
        with pytest.raises(
            PluginNotFoundError, match=r"offered by tasklink-ant 1\.0, not by 'acme-bee'.*'tasklink-ant:ant'"
        ):
            Registry().get("acme-bee:ant")

    def test_distribution_that_shows_twice(self, site: Site) -> None:
        """An egg-info beside the dist-info of one distribution is no conflict, even with another value in it."""
        module = site.install("ant")
        entry_points = f"[tasklink.communicators]\nant = {module}:Old\n"
        site.describe(module, "0.9", entry_points, "tasklink-ant", suffix="egg-info")
        rows = [plugin for plugin in Registry().plugins() if plugin.name == "ant"]
        assert len(rows) == 1

    def test_shadowed_version(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        """Of one distribution at two places on sys.path the first counts, as it does for import."""
        site.install("ant", version="1.0")
        nearer = Site(site.folder / "nearer")
        nearer.folder.mkdir()
        nearer.install("ant", version="2.0")
        monkeypatch.syspath_prepend(nearer.folder)
        rows = [(plugin.version, plugin.status) for plugin in Registry().plugins() if plugin.name == "ant"]
        assert rows == [("2.0", "ok")]

    def test_one_entry_twice(self, site: Site) -> None:
        """The same line twice in one distribution is one plugin."""
        module = site.install("ant")
        folder = site.folder / f"{module}-1.0.dist-info"
        line = f"ant = {module}:Plugin\n"
        (folder / "entry_points.txt").write_text(f"[tasklink.communicators]\n{line}{line}")
        assert issubclass(Registry().get("ant"), Communicator)


BROKEN = {
    "missing dependency": ("import zzz_missing", "ModuleNotFoundError: No module named 'zzz_missing'"),
    "assertion": ("assert False, 'not here'", "AssertionError: not here"),
    "exit": ("import sys; sys.exit(3)", "SystemExit: 3"),
    "exception without text": ("raise RuntimeError", "RuntimeError. "),
    "exception of many lines": ("raise ValueError('first\\nsecond')", "ValueError: first. "),
    "syntax": ("class Plugin:", "IndentationError: expected an indented block"),
    "warning as error": ("import warnings; warnings.warn('old', DeprecationWarning)", "DeprecationWarning: old"),
    "no such attribute": ("pass", "AttributeError: module 'tasklink_bad' has no attribute 'Plugin'"),
    "a function": ("def Plugin(): ...", "is not a subclass of tasklink.communicator.Communicator"),
    "a foreign class": ("class Plugin: ...", "is not a subclass of tasklink.communicator.Communicator"),
    "abstract": (GOOD + "        read = Communicator.read\n", "TypeError: Plugin does not implement 'read'"),
    "odd api": (GOOD + "        api = '1'\n", "TypeError: Plugin.api has to be an int, not '1'"),
    "odd capabilities": (GOOD + "        capabilities = {}\n", "Plugin.capabilities has to be a Capabilities"),
    "no capabilities": (GOOD + "        capabilities = property()\n", "Plugin.capabilities has to be a Capabilities"),
    "unavailable() raises": (GOOD + "        unavailable = classmethod(lambda cls: 1 / 0)\n", "ZeroDivisionError"),
}


class TestFaults:
    """Plugins that fail."""

    @pytest.mark.parametrize(("code", "reason"), BROKEN.values(), ids=BROKEN)
    def test_broken(self, site: Site, code: str, reason: str) -> None:
        """However it fails: the distribution and its version, what was raised, the cause, and that others work."""
        site.install("bad", code, version="3.1")
        site.install("ant")
        with pytest.raises(BrokenPluginError) as caught:
            Registry().get("bad")
        text = str(caught.value)
        assert text.startswith("communicator 'bad' of tasklink-bad 3.1 is broken: ")
        assert reason in text
        assert text.endswith("Other plugins still work. To repair it: pip install --force-reinstall tasklink-bad")
        assert caught.value.__cause__ is not None
        assert issubclass(Registry().get("ant"), Communicator)

    def test_malformed_value(self, site: Site) -> None:
        """An entry point that names no object is a broken plugin."""
        site.install("bad", value="?")
        with pytest.raises(BrokenPluginError, match=r"loading \? raised"):
            Registry().get("bad")

    def test_interrupt_is_the_users(self, site: Site) -> None:
        """Ctrl-C while a plugin is imported ends the program, and is not blamed on the plugin."""
        site.install("bad", "raise KeyboardInterrupt")
        with pytest.raises(KeyboardInterrupt):
            Registry().get("bad")

    def test_unavailable(self, site: Site) -> None:
        """A plugin that cannot be used here is refused with its own reason."""
        reason = "/dev/shm is read-only; mount it writable"
        site.install("bad", GOOD + f"        unavailable = classmethod(lambda cls: {reason!r})\n")
        with pytest.raises(PluginUnavailableError) as caught:
            Registry().get("bad")
        assert str(caught.value) == f"communicator 'bad' of tasklink-bad 1.0 cannot be used here: {reason}"

    @pytest.mark.parametrize(("api", "behind"), [(API + 1, "tasklink"), (0, "tasklink-bad")])
    def test_incompatible(self, site: Site, api: int, behind: str) -> None:
        """Another API, newer or older: both versions are named, and the side that has to be upgraded."""
        site.install("bad", GOOD + f"        api = {api}\n")
        with pytest.raises(IncompatiblePluginError) as caught:
            Registry().get("bad")
        text = str(caught.value)
        assert f"of tasklink-bad 1.0 is written for plugin API {api}, and tasklink" in text
        assert f"serves API {API}." in text
        assert text.endswith(f"pip install --upgrade {behind}")

    def test_incompatible_before_incomplete(self, site: Site) -> None:
        """Methods that another API does not know are not held against a plugin that was written for it."""
        code = "from tasklink.communicator import Communicator\nclass Plugin(Communicator):\n    api = 99\n"
        site.install("bad", code)
        with pytest.raises(IncompatiblePluginError):
            Registry().get("bad")

    @pytest.mark.parametrize(
        "damage", [b"\xff\xfe[tasklink.communicators]", b"[tasklink.communicators]\nno equals sign"]
    )
    def test_damaged_distribution(self, site: Site, damage: bytes, caplog: pytest.LogCaptureFixture) -> None:
        """A distribution whose entry points cannot be read is reported in the log, and hides no other."""
        site.install("ant")
        module = site.install("bad")
        (site.folder / f"{module}-1.0.dist-info" / "entry_points.txt").write_bytes(damage)
        with caplog.at_level(logging.WARNING, "tasklink.registry"):
            names = Registry().names()
        assert "ant" in names
        assert "bad" not in names
        assert f"a distribution in {site.folder} is passed over" in caplog.text

    @pytest.mark.parametrize("metadata", ["", "Metadata-Version: 2.1\n"])
    @pytest.mark.filterwarnings("ignore:Implicit None on return values:DeprecationWarning")
    def test_nameless_distribution(self, site: Site, metadata: str, caplog: pytest.LogCaptureFixture) -> None:
        """So is one that does not say its name."""
        site.install("ant")
        module = site.install("bad")
        (site.folder / f"{module}-1.0.dist-info" / "METADATA").write_text(metadata)
        assert "ant" in Registry().names()
        assert "is passed over" in caplog.text


class TestTable:
    """What `tasklink plugins` shows."""

    def test_all_kinds_of_trouble_at_once(self, site: Site) -> None:
        """Every plugin is told about, whatever is wrong with the others, with the text of its error as the reason."""
        site.install("good", version="1.2")
        site.install("broken", "import zzz_missing")
        site.install("odd", "Plugin = 3")
        site.install("away", GOOD + "        unavailable = classmethod(lambda cls: 'no wings')\n")
        site.install("future", GOOD + f"        api = {API + 1}\n")
        site.install("twin")
        site.install("twin", distribution="acme-twin")
        names = {"good", "broken", "odd", "away", "future", "twin"}
        rows = [plugin for plugin in Registry().plugins() if plugin.name in names]
        assert [(row.name, row.distribution, row.status, row.api) for row in rows] == [
            ("away", "tasklink-away", "unavailable", 1),
            ("broken", "tasklink-broken", "broken", None),
            ("future", "tasklink-future", "incompatible", API + 1),
            ("good", "tasklink-good", "ok", 1),
            ("odd", "tasklink-odd", "broken", None),
            ("twin", "acme-twin", "conflict", None),
            ("twin", "tasklink-twin", "conflict", None),
        ]
        for row in rows:
            if row.status != "ok":
                with pytest.raises(PluginError) as caught:
                    Registry().get(row.name)
                assert row.reason == str(caught.value)
        assert issubclass(Registry().get("good"), Communicator)

    def test_row(self, site: Site) -> None:
        """A row says everything that is known, and can be written as JSON."""
        site.install("ant", version="1.2")
        (row,) = [plugin for plugin in Registry().plugins() if plugin.name == "ant"]
        assert row.capabilities is not None
        assert json.loads(json.dumps(row.as_dict())) == {
            "kind": "communicator",
            "name": "ant",
            "distribution": "tasklink-ant",
            "version": "1.2",
            "value": "tasklink_ant:Plugin",
            "status": "ok",
            "reason": "",
            "api": 1,
            "capabilities": row.capabilities.as_dict(),
        }

    def test_observers(self, site: Site) -> None:
        """Observers have rows too, without what only communicators have; none of them is made for it."""
        site.install("bar", "class Plugin:\n    def __init__(self):\n        raise SystemExit", group=OBSERVERS)
        (row,) = [plugin for plugin in Registry(OBSERVERS).plugins() if plugin.name == "bar"]
        assert (row.kind, row.name, row.status, row.api, row.capabilities) == ("observer", "bar", "ok", None, None)
        assert json.dumps(row.as_dict())


class TestStrict:
    """Only what is listed may be loaded."""

    def test_unlisted_name_is_refused(self, site: Site) -> None:
        """A name that is not listed is not imported; the error says what is allowed and how to allow more."""
        site.install("ant")
        module = site.install("bee")
        registry = Registry(allowed=["ant"])
        assert issubclass(registry.get("ant"), Communicator)
        with pytest.raises(PluginError, match=r"'bee' may not be loaded: .*allowed: 'ant'.*strict = true"):
            registry.get("bee")
        assert module not in sys.modules

    def test_unlisted_name_is_not_looked_for(self) -> None:
        """Whether it is installed makes no difference."""
        with pytest.raises(PluginError, match=r"allowed: none"):
            Registry(allowed=[]).get("bee")

    def test_listed_distribution(self, site: Site) -> None:
        """A name listed with its distribution is allowed as it stands, and lets no other distribution in."""
        site.install("ant")
        other = site.install("ant", distribution="acme-ant")
        registry = Registry(allowed=["tasklink-ant:ant"])
        assert registry.get("tasklink-ant:ant").__module__ == "tasklink_ant"
        for name in ("ant", "acme-ant:ant"):
            with pytest.raises(PluginError, match="may not be loaded"):
                registry.get(name)
        assert [(row.distribution, row.status) for row in registry.plugins() if row.name == "ant"] == [
            ("acme-ant", "refused"),
            ("tasklink-ant", "ok"),
        ]
        assert other not in sys.modules


SETTINGS = """
    import attrs

    @attrs.frozen
    class Settings:
        depth: int = 3
"""


class TestSettings:
    """From a table of the config to an object."""

    def test_table_becomes_settings(self, site: Site) -> None:
        """The settings class that the communicator names is loaded, and made from the table and its defaults."""
        module = site.install("ant")
        (site.folder / f"{module}_settings.py").write_text(dedent(SETTINGS))
        registry = Registry()
        assert attrs.asdict(registry.settings("ant")) == {"depth": 3}
        assert attrs.asdict(registry.settings("ant", {"depth": 7})) == {"depth": 7}
        assert attrs.fields_dict(registry.settings_class("ant")).keys() == {"depth"}

    def test_mistake_in_the_table(self, site: Site) -> None:
        """A key that the settings do not have is a mistake in the config, which is named."""
        module = site.install("ant")
        (site.folder / f"{module}_settings.py").write_text(dedent(SETTINGS))
        with pytest.raises(ConfigError, match=r"communicators\.ant.*dept"):
            Registry().settings("ant", {"dept": 7})
        with pytest.raises(ConfigError, match=r"communicators\.ant\.depth.*'?deep"):
            Registry().settings("ant", {"depth": "deep"})

    @pytest.mark.parametrize(
        ("code", "reason"),
        [
            ("raise SystemExit", "SystemExit"),
            ("pass", "has no attribute 'Settings'"),
            ("class Settings: ...", "is not an attrs class"),
            ("Settings = 3", "is not an attrs class"),
            ("import attrs\n@attrs.define\nclass Settings:\n    depth: 'Unknown' = 3", "NameError"),
        ],
    )
    def test_broken_settings(self, site: Site, code: str, reason: str) -> None:
        """Settings that cannot be loaded make a broken plugin."""
        module = site.install("ant")
        (site.folder / f"{module}_settings.py").write_text(code)
        with pytest.raises(BrokenPluginError, match=f"'ant' of tasklink-ant 1.0 is broken: .*{reason}"):
            Registry().settings("ant")

    @pytest.mark.parametrize("settings", ["", ":Settings", "zzz_missing:Settings"])
    def test_malformed_name_of_settings(self, site: Site, settings: str) -> None:
        """So does a name that leads nowhere."""
        site.install("ant", GOOD + f"        settings = {settings!r}\n")
        with pytest.raises(BrokenPluginError, match="loading its settings raised"):
            Registry().settings_class("ant")


class TestInstances:
    """Observers are made, where they can be."""

    def test_class_object_and_module(self, site: Site) -> None:
        """A class is instantiated without arguments; an object and a module are taken as they are."""
        site.install("made", "class Plugin: ...", group=OBSERVERS)
        site.install("there", "Plugin = [1]", group=OBSERVERS)
        module = site.install("whole", "", group=OBSERVERS, value="tasklink_whole")
        registry = Registry(OBSERVERS)
        assert type(registry.instance("made")) is registry.get("made")
        assert registry.instance("there") == [1]
        assert registry.instance("whole") is sys.modules[module]

    def test_class_that_cannot_be_made(self, site: Site) -> None:
        """An observer that fails while it is made is broken."""
        site.install("made", "class Plugin:\n    def __init__(self, needed): ...", group=OBSERVERS)
        with pytest.raises(
            BrokenPluginError, match=r"observer 'made' of tasklink-made 1.0 .*Plugin\(\) raised TypeError"
        ):
            Registry(OBSERVERS).instance("made")
