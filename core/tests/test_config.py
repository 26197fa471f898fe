"""Config: file, environment and command line together, what is wrong in them, and where each value comes from."""

import ast
import os
import pickle
import re
import sys
from pathlib import Path
from textwrap import dedent

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tasklink.config
from tasklink.config import Config, Size, TaskSpec, environment, parse_overrides, structure
from tasklink.config.notation import format_key, format_value, parse_key
from tasklink.errors import ConfigError

ANALYSIS = """\
observers = ["journal"]
strict = true
parallel = 2

[defaults]
communicators = ["unix", "pipe"]
timeout = "1 h"

[tasks.count]
run = "mylab.analysis:CountPeaks"
communicators = ["pipe", "shm"]
timeout = "10 min"
env = { OMP_NUM_THREADS = "4" }
[tasks.count.parameters]
threshold = 4.5

[tasks.trim]
command = ["fastp", "-i", "{input}"]
cwd = "data"

[communicators.shm]
segment = "64 MiB"
"""


@pytest.fixture
def load(tmp_path):
    """Write a text to analysis.toml and load it, without the environment of the tests."""

    def load_text(text, name="analysis.toml", **options):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else dedent(text).encode())
        return Config.load(path, **{"environ": {}, **options})

    return load_text


@pytest.fixture
def refusal(load, tmp_path):
    """Do what `load` does, and return what is said of it, without the folder."""

    def refuse(text, **options):
        with pytest.raises(ConfigError) as error:
            load(text, **options)
        assert type(error.value) is ConfigError
        return str(error.value).replace(f"{tmp_path}{os.sep}", "")

    return refuse


class TestFile:
    """What stands in a file."""

    def test_every_value_arrives(self, load, tmp_path):
        """Texts have become seconds, lists tuples, and paths whole."""
        config = load(ANALYSIS)
        assert config == Config(
            path=tmp_path / "analysis.toml",
            tasks={
                "count": TaskSpec(
                    name="count",
                    run="mylab.analysis:CountPeaks",
                    communicators=("pipe", "shm"),
                    timeout=600.0,
                    env={"OMP_NUM_THREADS": "4"},
                    parameters={"threshold": 4.5},
                ),
                "trim": TaskSpec(name="trim", command=("fastp", "-i", "{input}"), cwd=tmp_path / "data"),
            },
            communicators=("unix", "pipe"),
            timeout=3600.0,
            observers=("journal",),
            strict=True,
            parallel=2,
            settings={"shm": {"segment": "64 MiB"}},
        )

    def test_a_pyproject_holds_it_in_a_table_of_its_own(self, load, refusal, tmp_path):
        """Keys are the same as in a file of its own, and lines are those of the file."""
        text = '[project]\nname = "x"\n[tool.tasklink.tasks.a]\nrun = "m:f"\n[tool.tasklink]\nstrict = true\n'
        config = load(f"{text}[tool.other]\nstrict = 1\n", name="pyproject.toml")
        assert config.tasks == {"a": TaskSpec(name="a", run="m:f")}
        assert config.origin("strict") == f"{tmp_path / 'pyproject.toml'}:6"
        assert refusal(text + "paralel = 1\n", name="pyproject.toml").startswith(
            'pyproject.toml:7: paralel: unknown key; did you mean "parallel"?'
        )

    @pytest.mark.parametrize("text", ["", "tool = 5", "[tool]\ntasklink = 5", "[tool.other]\nx = 1"])
    def test_a_pyproject_without_that_table(self, refusal, text):
        """A file that was named on purpose has to say something."""
        assert refusal(text, name="pyproject.toml") == "pyproject.toml: has no table [tool.tasklink]"

    def test_an_empty_file_is_a_config(self, load, tmp_path):
        """It says nothing, and everything has its default."""
        assert load("") == Config(path=tmp_path / "analysis.toml")

    def test_no_file_is_a_config(self):
        """A function can be run without one."""
        assert Config.load(environ={}) == Config()
        assert Config().grace == 2.0

    def test_an_editor_may_mark_the_file_as_utf8(self, load):
        """Some put three bytes in front that no one sees."""
        assert load(b"\xef\xbb\xbfparallel = 3\r\n").parallel == 3

    def test_paths_begin_at_the_folder_of_the_file(self, load, tmp_path):
        """Wherever the config is loaded from; an interpreter without a slash is looked for on PATH."""
        spec = load(
            """
            [tasks.a]
            run = "m:f"
            cwd = "."
            python = ".venv/bin/python"
            stdout = "/var/log/a"
            stderr = "../a.err"
            [tasks.b]
            run = "m:f"
            python = "python3.9"
            [tasks.c]
            run = "m:f"
            python = "./python3"
            """
        ).tasks
        assert spec["a"].cwd == tmp_path
        assert spec["a"].python == tmp_path / ".venv/bin/python"
        assert spec["a"].stdout == Path("/var/log/a")
        assert spec["a"].stderr == tmp_path / "../a.err"
        assert spec["b"].python == Path("python3.9")
        assert spec["c"].python == tmp_path / "python3"

    def test_a_relative_name_of_the_file_gives_whole_paths_too(self, load, tmp_path, monkeypatch):
        """The folder may change before the Task is started."""
        load(ANALYSIS)
        monkeypatch.chdir(tmp_path)
        assert Config.load("analysis.toml", environ={}).tasks["trim"].cwd == tmp_path / "data"

    def test_can_be_pickled(self, load):
        """A config may travel to where Tasks are started."""
        config = load(ANALYSIS)
        copy = pickle.loads(pickle.dumps(config))
        assert copy == config
        assert copy.origin("strict") == config.origin("strict")


class TestProblems:
    """What is said about a file that cannot be used."""

    def test_all_are_told_at_once_in_the_order_of_the_file(self, refusal):
        """Each with file, line, key, value, what is allowed and what may have been meant."""
        text = refusal(
            """\
            strict = "yes"
            [tasks.count]
            run = "mylab.analysis:CountPeaks"
            timeout = "10 parsecs"

            comunicators = ["pipe"]
            keep_messages = 1
            codec = "pickel"
            env.OMP_NUM_THREADS = 4
            [tasks.trim]
            command = [
                "fastp",
                5,
            ]
            communicators = "pipe"
            [defaults]
            timeout = 0
            communicators = ["pipe", "pipe"]
            """
        )
        duration = 'write a number of seconds or a text like "500 ms", "10 min", "1.5 h", "2 d"'
        allowed = ", ".join(sorted(field.name for field in attrs.fields(TaskSpec) if field.name != "name"))
        assert text.splitlines() == [
            'analysis.toml:1: strict = "yes": not true or false',
            f'analysis.toml:4: tasks.count.timeout = "10 parsecs": not a duration; {duration}',
            f'analysis.toml:6: tasks.count.comunicators: unknown key; did you mean "communicators"? Allowed: {allowed}',
            "analysis.toml:7: tasks.count.keep_messages = 1: not true or false",
            'analysis.toml:8: tasks.count.codec = "pickel": not one of the values it can have; '
            'did you mean "pickle"? Allowed: json, pickle',
            'analysis.toml:9: tasks.count.env.OMP_NUM_THREADS = 4: not text; write it in quotes: "4"',
            'analysis.toml:13: tasks.trim.command[1] = 5: not text; write it in quotes: "5"',
            'analysis.toml:15: tasks.trim.communicators = "pipe": not an array; write ["pipe"]',
            "analysis.toml:17: defaults.timeout = 0: a timeout of 0 ends every Task before it begins; "
            "leave it out for no limit",
            'analysis.toml:18: defaults.communicators = ["pipe", "pipe"]: communicator "pipe" is named twice',
        ]

    def test_a_task_says_what_it_runs_once(self, refusal):
        """Neither nothing nor two things; other problems of the table are told beside it."""
        text = refusal('[tasks.a]\ntimeout = -1\n[tasks.b]\nrun = "m:f"\ncommand = ["x"]\n')
        what = 'a task needs exactly one of run = "module:attribute" and command = ["program", "argument", ...]'
        assert [line.split(" = -1")[0] for line in text.splitlines()] == [
            f"analysis.toml:1: tasks.a: {what}",
            "analysis.toml:2: tasks.a.timeout",
            f"analysis.toml:3: tasks.b: {what}",
        ]

    def test_parameters_need_a_place_in_the_command(self, refusal):
        """A parameter without effect is a mistake, and so is a value that is no argument."""
        assert refusal(
            """\
            [tasks.trim]
            command = ["fastp", "-i", "{input}", "{out}"]
            [tasks.trim.parameters]
            inptu = "a"
            out = [1]
            """
        ).splitlines() == [
            'analysis.toml:4: tasks.trim.parameters.inptu = "a": no {inptu} in the command; '
            'did you mean "input"? Allowed: input, out',
            "analysis.toml:5: tasks.trim.parameters.out = [1]: cannot be an argument; "
            "give a text, a number, a path, true or false",
        ]

    @pytest.mark.parametrize("name", ["", "a:b"])
    def test_names_of_tasks(self, refusal, name):
        """A colon would make it look like module:attribute."""
        assert f'tasks."{name}": the name of a task has' in refusal(f'[tasks."{name}"]\nrun = "m:f"\n')

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("tasks = 1", "analysis.toml:1: tasks = 1: not a table"),
            ("[tasks]\na = 1", "analysis.toml:2: tasks.a = 1: not a table"),
            ("[[tasks]]\nrun = 'm:f'", 'analysis.toml:1: tasks = [{run = "m:f"}]: not a table'),
            ("communicators.shm = 1", "analysis.toml:1: communicators.shm = 1: not a table"),
            ("parallel = 0", "analysis.toml:1: parallel = 0: must be 1 or more"),
            ("parallel = true", "analysis.toml:1: parallel = true: not a whole number"),
            ("timeout = 5", "analysis.toml:1: timeout: unknown key; it belongs in [defaults]"),
            (
                "communicators = ['pipe']",
                'analysis.toml:1: communicators = ["pipe"]: holds the tables [communicators.NAME]; '
                "a list for all tasks stands in [defaults]",
            ),
            ("[tasks.a]\nrun = 'm'", 'analysis.toml:2: tasks.a.run = "m": what is run has the form "module:attribute"'),
            ("[tasks.a]\nrun = 5", 'analysis.toml:2: tasks.a.run = 5: what is run has the form "module:attribute"'),
        ],
    )
    def test_single_ones(self, refusal, text, told):
        """One line, and nothing that follows from the same mistake."""
        assert refusal(text) == told

    @pytest.mark.parametrize(
        ("text", "line"),
        [
            ("a = 1\nb = \n", 2),
            ("a = 1\na = 2\n", 2),
            ("\n\n[a\n", 3),
            ("a = [1,\n2\n", 2),
            ('a = 1\nb = """x\n\n', 2),
            ("a = 1\nb = 2024-13-45", 2),
        ],
    )
    def test_what_is_not_toml(self, refusal, text, line):
        """The line of the mistake is told; of a text that ends too early it is the last."""
        assert refusal(text).startswith(f"analysis.toml:{line}: not TOML: ")

    def test_nested_without_end(self, refusal):
        """Python's stack ends before the file does."""
        text = refusal("a = " + "[" * 100_000)
        assert text == "analysis.toml: its arrays or tables are nested too deeply to be read"

    def test_what_is_not_utf8(self, refusal):
        """The line of the first wrong byte is told."""
        assert refusal(b"a = 1\nb = '\xe9'\n") == "analysis.toml:2: not UTF-8: b'\\xe9'"

    def test_no_such_file(self, tmp_path):
        """A file with a similar name is suggested."""
        (tmp_path / "analysis.toml").touch()
        with pytest.raises(ConfigError, match=r'analysys\.toml: no such file; did you mean "analysis\.toml"\?'):
            Config.load(tmp_path / "analysys.toml")
        with pytest.raises(ConfigError, match=r"elsewhere/x\.toml: no such file$"):
            Config.load(tmp_path / "elsewhere" / "x.toml")

    def test_no_file_at_all(self, tmp_path):
        """What the system says is told."""
        with pytest.raises(ConfigError, match="Is a directory"):
            Config.load(tmp_path)

    def test_a_task_that_is_asked_for_and_is_not_there(self, load, refusal, tmp_path):
        """The nearest is suggested, and all are listed."""
        config = load(ANALYSIS)
        assert config.task("count") is config.tasks["count"]
        with pytest.raises(ConfigError) as error:
            config.task("cuont")
        assert str(error.value) == (
            f'{tmp_path / "analysis.toml"}: no task "cuont"; did you mean "count"? Allowed: count, trim'
        )
        with pytest.raises(ConfigError, match=r'^no task "count"; allowed: none$'):
            Config().task("count")

    def test_settings_of_a_plugin_are_told_with_their_line(self, load, tmp_path):
        """The config hands the table on; whoever knows the class gets the same quality of errors."""

        @attrs.frozen
        class Settings:
            segment: Size = Size(1)

        assert structure(load(ANALYSIS).settings["shm"], Settings) == Settings(Size(64 << 20))
        config = load("[communicators.shm]\n\nsegment = '64 parsecs'\n")
        with pytest.raises(ConfigError) as error:
            structure(config.settings["shm"], Settings, where="communicators.shm")
        assert str(error.value).startswith(
            f'{tmp_path / "analysis.toml"}:3: communicators.shm.segment = "64 parsecs": not a size; write'
        )


class TestEnvironment:
    """What an operator sets for all tasks."""

    def test_it_comes_before_the_file(self, load):
        """In the defaults and in every task."""
        environ = {"TASKLINK_COMMUNICATORS": "shm, pipe", "TASKLINK_TIMEOUT": "5 s", "TASKLINK_STRICT": "false"}
        config = load(ANALYSIS, environ=environ)
        assert config.communicators == config.tasks["count"].communicators == ("shm", "pipe")
        assert config.timeout == config.tasks["count"].timeout == config.tasks["trim"].timeout == 5.0
        assert config.strict is False
        assert config.origin("tasks.trim.communicators") == "TASKLINK_COMMUNICATORS"
        assert config.origin("strict") == "TASKLINK_STRICT"

    def test_it_works_without_a_file(self):
        """There are only the defaults to set."""
        config = Config.load(environ={"TASKLINK_COMMUNICATORS": "pipe", "TASKLINK_TIMEOUT": "90"})
        assert config == Config(communicators=("pipe",), timeout=90.0)

    def test_it_is_that_of_the_process(self, monkeypatch):
        """Unless another is given."""
        monkeypatch.setenv("TASKLINK_TIMEOUT", "7")
        assert Config.load().timeout == 7.0
        assert Config.load(environ={}).timeout is None

    def test_an_empty_variable_says_nothing(self):
        """As is the custom."""
        assert Config.load(environ={"TASKLINK_TIMEOUT": "", "TASKLINK_COMMUNICATORS": " "}) == Config()

    def test_problems(self, refusal):
        """An unknown variable is a typo; every value is checked, once, however many tasks there are."""
        environ = {
            "TASKLINK_COMUNICATORS": "pipe",
            "TASKLINK_COMMUNICATORS": "pipe,,pipe",
            "TASKLINK_TIMEOUT": "soon",
            "TASKLINK_STRICT": "1",
            "PATH": "/bin",
        }
        assert refusal(ANALYSIS, environ=environ).splitlines() == [
            'environment: TASKLINK_COMUNICATORS: unknown key; did you mean "TASKLINK_COMMUNICATORS"? '
            "Allowed: TASKLINK_COMMUNICATORS, TASKLINK_STRICT, TASKLINK_TIMEOUT",
            'environment: TASKLINK_TIMEOUT = "soon": not a duration; write a number of seconds or a text like '
            '"500 ms", "10 min", "1.5 h", "2 d"',
            "environment: TASKLINK_STRICT = 1: not true or false",
            'environment: TASKLINK_COMMUNICATORS = ["pipe", "", "pipe"]: communicator "pipe" is named twice',
        ]

    def test_a_task_gets_that_of_the_process_and_more(self, monkeypatch):
        """The process's own is not touched."""
        monkeypatch.setenv("TASKLINK_TEST_A", "1")
        made = environment({"TASKLINK_TEST_A": "2", "TASKLINK_TEST_B": "3"})
        assert made == {**os.environ, "TASKLINK_TEST_A": "2", "TASKLINK_TEST_B": "3"}
        assert os.environ["TASKLINK_TEST_A"] == "1"


class TestCommandLine:
    """What is typed comes before everything else."""

    def test_communicators_for_all_tasks(self, load):
        """The environment and what the tasks say themselves come second."""
        environ = {"TASKLINK_COMMUNICATORS": "shm"}
        for chosen in ("unix, pipe", ["unix", "pipe"], ("unix", "pipe")):
            config = load(ANALYSIS, environ=environ, communicators=chosen)
            assert config.communicators == config.tasks["count"].communicators == ("unix", "pipe")
            assert config.origin("tasks.trim.communicators") == "command line"

    def test_a_value_replaces_that_of_file_and_environment(self, load):
        """By dotted key, in tables that are there and in new ones."""
        options = ["tasks.count.timeout=5 min", "tasks.count.parameters.threshold=5", "communicators.zmq.port=1"]
        config = load(ANALYSIS, environ={"TASKLINK_TIMEOUT": "1 s"}, overrides=parse_overrides(options))
        assert config.tasks["count"].timeout == 300.0
        assert config.tasks["count"].parameters == {"threshold": 5}
        assert config.tasks["trim"].timeout == 1.0
        assert config.settings["zmq"] == {"port": 1}
        assert config.origin("tasks.count.timeout") == "command line"
        assert config.origin("communicators.zmq.port") == "command line"

    def test_a_default_silences_the_variable_for_the_same(self, load):
        """Else the environment would win over what was typed, in every task."""
        environ = {"TASKLINK_TIMEOUT": "1 s"}
        config = load(ANALYSIS, environ=environ, overrides={"defaults.timeout": "2 s"})
        assert config.timeout == 2.0
        assert config.tasks["count"].timeout == 600.0
        assert config.tasks["trim"].timeout is None

    def test_one_task_may_differ_from_all(self, load):
        """The more special option wins."""
        config = load(ANALYSIS, communicators="unix", overrides={"tasks.trim.communicators": ["pipe"]})
        assert config.tasks["count"].communicators == ("unix",)
        assert config.tasks["trim"].communicators == ("pipe",)

    def test_a_whole_table_may_be_given(self, load):
        """Of a task that the file does not have, for example; what was given is not changed."""
        table = {"run": "m:f", "parameters": {"a": 1}}
        config = load(ANALYSIS, overrides={"tasks.new": table, "tasks.new.parameters.a": 2})
        assert config.tasks["new"] == TaskSpec(name="new", run="m:f", parameters={"a": 2})
        assert table == {"run": "m:f", "parameters": {"a": 1}}
        assert config.origin("tasks.new.run") == "command line"

    def test_typed_paths_begin_where_they_are_typed(self, load, tmp_path, monkeypatch):
        """That is what a shell completes."""
        (tmp_path / "here").mkdir()
        monkeypatch.chdir(tmp_path / "here")
        config = load(ANALYSIS, overrides={"tasks.trim.stdout": "out.txt"})
        assert config.tasks["trim"].stdout == tmp_path / "here" / "out.txt"
        assert config.tasks["trim"].cwd == tmp_path / "data"

    def test_problems(self, refusal):
        """They have no line, and are told once, however many tasks there are."""
        overrides = {"tasks.cuont.timeout": 5, "tasks.count.timeout": "soon", "a..b": 1, "strict.x": 1}
        assert refusal(ANALYSIS, communicators="pipe,", overrides=overrides).splitlines() == [
            'command line: --with = ["pipe", ""]: a name is empty',
            'command line: tasks.cuont.timeout = 5: no such task; did you mean "count"? Allowed: count, trim',
            'command line: "a..b" = 1: not a key; write names with dots between them',
            'command line: tasks.count.timeout = "soon": not a duration; write a number of seconds or a text like '
            '"500 ms", "10 min", "1.5 h", "2 d"',
            "command line: strict = {x = 1}: not true or false",
        ]

    @pytest.mark.parametrize(
        ("text", "key", "value"),
        [
            ("a=1", "a", 1),
            ("a = 1.5", "a", 1.5),
            ("a=true", "a", True),
            ("a=5 min", "a", "5 min"),
            ("a=", "a", ""),
            ("a='5'", "a", "5"),
            ('a=["pipe", "unix"]', "a", ["pipe", "unix"]),
            ("a=[pipe]", "a", "[pipe]"),
            ("a={b = 1}", "a", {"b": 1}),
            ("a=b=c", "a", "b=c"),
            ("a=1\nb=2", "a", "1\nb=2"),
            ("a=" + "[" * 10_000, "a", "[" * 10_000),
            ('tasks."a=b".run=m:f', 'tasks."a=b".run', "m:f"),
            (" tasks . a . run =m:f", "tasks.a.run", "m:f"),
        ],
    )
    def test_assignments(self, text, key, value):
        """The value is TOML where it can be, and text else; the key may hold quotes."""
        assert parse_overrides([text]) == {key: value}
        assert type(parse_overrides([text])[key]) is type(value)

    @pytest.mark.parametrize(
        "key", ["", "a..b", "a = 0 #", "a\nb", "[x]\na", "#\na", "{a", '"a', "a b", "é", '"""a"""']
    )
    def test_keys_that_are_none(self, key):
        """A key is a key and nothing else, whatever TOML would make of the text around it."""
        with pytest.raises(ConfigError, match=r"^command line: .* = 1: not a key; write names with dots between them$"):
            Config.load(environ={}, overrides={key: 1})

    def test_a_table_that_was_replaced_is_forgotten(self, load):
        """What is missing in the new one is not blamed on the line of the old one."""

        @attrs.frozen
        class Settings:
            host: str

        config = load("[communicators.zmq]\nhost = 'a'\n", overrides={"communicators.zmq": {}})
        with pytest.raises(ConfigError, match=r"^command line: communicators\.zmq\.host: missing"):
            structure(config.settings["zmq"], Settings)

    def test_assignments_that_are_none(self):
        """All are told."""
        with pytest.raises(ConfigError) as error:
            parse_overrides(["a", "=1", "a..b=1", "a b=1", "[a]=1", "a=1"])
        assert str(error.value).splitlines() == [
            "command line: a: not of the form key=value",
            "command line: =1: not a key; write names with dots between them",
            "command line: a..b=1: not a key; write names with dots between them",
            "command line: a b=1: not a key; write names with dots between them",
            "command line: [a]=1: not a key; write names with dots between them",
        ]


class TestEntries:
    """What `tasklink config show` prints."""

    def test_each_value_has_its_origin(self, load, tmp_path):
        """File and line, variable, command line, or default; what a task inherits comes from where it was set."""
        config = load(
            ANALYSIS,
            environ={"TASKLINK_STRICT": "false"},
            overrides={"tasks.count.parameters.timeout": 5, "tasks.trim.grace": "500 ms"},
        )
        file = tmp_path / "analysis.toml"
        shown = {entry.key: (entry.text, entry.origin) for entry in config.entries()}
        assert shown["defaults.communicators"] == ('["unix", "pipe"]', f"{file}:6")
        assert shown["defaults.grace"] == ('"2 s"', "default")
        assert shown["parallel"] == ("2", f"{file}:3")
        assert shown["strict"] == ("false", "TASKLINK_STRICT")
        assert shown["tasks.count.run"] == ('"mylab.analysis:CountPeaks"', f"{file}:10")
        assert shown["tasks.count.timeout"] == ('"10 min"', f"{file}:12")
        assert shown["tasks.count.env.OMP_NUM_THREADS"] == ('"4"', f"{file}:13")
        assert shown["tasks.count.parameters.threshold"] == ("4.5", f"{file}:15")
        assert shown["tasks.count.parameters.timeout"] == ("5", "command line")
        assert shown["tasks.count.codec"] == ('"pickle"', "default")
        assert shown["tasks.count.cwd"] == ("not set", "default")
        assert shown["tasks.trim.communicators"] == ('["unix", "pipe"]', f"{file}:6")
        assert shown["tasks.trim.timeout"] == ('"1 h"', f"{file}:7")
        assert shown["tasks.trim.grace"] == ('"500 ms"', "command line")
        assert shown["tasks.trim.cwd"] == (f'"{tmp_path / "data"}"', f"{file}:19")
        assert shown["communicators.shm.segment"] == ('"64 MiB"', f"{file}:22")
        assert "tasks.count.command" not in shown
        assert "tasks.trim.run" not in shown

    def test_what_is_shown_can_be_set(self, load):
        """Every entry, given back on the command line, makes the same config."""
        config = load(ANALYSIS)
        options = [f"{entry.key}={entry.text}" for entry in config.entries() if entry.value is not None]
        again = load(ANALYSIS, overrides=parse_overrides(options))
        values = {entry.key: entry.value for entry in config.entries()}
        assert {entry.key: entry.value for entry in again.entries()} == values
        assert "[tasks" not in " ".join(options)


def test_the_examples_of_the_documentation_are_configs(load):
    """Each TOML block of the page can be loaded."""
    page = Path(__file__).parent.parent / "docs" / "configuration.md"
    examples = re.findall(r"^```toml\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    assert [list(load(example).tasks) for example in examples] == [["count", "trim"]]


KEYS = st.lists(
    st.text(max_size=4) | st.sampled_from(["a-b", "é", '"', "a.b", "\n", "\x7f", "="]), min_size=1, max_size=4
)


@given(KEYS)
def test_a_key_that_is_shown_can_be_written(parts):
    """Whatever quotes, dots and line ends are in its parts."""
    assert parse_key(format_key(tuple(parts))) == tuple(parts)


NAMES = st.sampled_from(
    ["tasks", "defaults", "communicators", "strict", "a", "run", "command", "timeout", "env", "x.y"]
)
VALUES = st.recursive(
    st.booleans() | st.integers() | st.floats() | st.sampled_from(["pipe", "m:f", "5 s", "", "{a}"]) | st.times(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)


@given(table=st.dictionaries(NAMES, VALUES), overrides=st.dictionaries(NAMES, VALUES, max_size=2))
def test_any_toml_is_a_config_or_a_config_error(tmp_path_factory, table, overrides):
    """No other exception comes out, and every line of the error says where the problem is."""
    path = tmp_path_factory.mktemp("config") / "a.toml"
    path.write_text("".join(f"{format_key((key,))} = {format_value(value)}\n" for key, value in table.items()))
    try:
        entries = list(Config.load(path, environ={}, overrides=overrides).entries())
    except ConfigError as error:
        places = [line.removeprefix(f"{path}:").partition(":")[0] for line in str(error).splitlines()]
    else:
        places = [entry.origin.removeprefix(f"{path}:") for entry in entries if entry.origin != "default"]
    lines = [int(place) for place in places if place != "command line"]
    assert all(1 <= line <= len(table) for line in lines)


def test_it_stands_on_errors_alone():
    """Of tasklink, the config knows only the errors; beside the standard library it needs attrs and cattrs."""
    folder = Path(tasklink.config.__file__).parent
    nodes = [node for file in folder.glob("*.py") for node in ast.walk(ast.parse(file.read_text()))]
    imported = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    imported |= {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}
    ours = {name for name in imported if name.startswith("tasklink") and not name.startswith("tasklink.config")}
    assert ours == {"tasklink.errors"}
    assert {name.split(".")[0] for name in imported} - sys.stdlib_module_names == {"tasklink", "attrs", "cattrs"}
