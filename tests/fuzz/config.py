r"""The config: an input is a file, and behind a `\0` what the command line and the environment say, a line each.

A line that begins with `TASKLINK_` is a variable, one that begins with `--with ` the communicators, any other one is
for `--set`. Whatever they say, there is a Config or a ConfigError, and nothing that is named is looked for.
"""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from tasklink.config import Config, format_duration, format_size, parse_duration, parse_overrides, parse_size, structure
from tasklink.errors import ConfigError
from tasklink_pipe.settings import PipeSettings
from tasklink_shm.settings import SharedMemorySettings
from tests.fuzz.oracle import harmless

TOKENS = (
    b"[tasks.a]", b"run = \"m:f\"", b"command = [\"c\"]", b"communicators = [\"pipe\"]", b"timeout = \"10 min\"",
    b"[communicators.shm]", b"ring = \"64 MiB\"", b"[defaults]", b"parameters = {", b"\"\"\"", b"'''", b"1e9", b"inf",
    b"\0TASKLINK_TIMEOUT=", b"\n--with ", b"\ntasks.a.", b"tasks.\"a\".env.X=", b"[[tasks]]", b"\\u0041", b"1979-05-27",
)  # fmt: skip

_SETTINGS = {"shm": SharedMemorySettings, "pipe": PipeSettings}


def mend(data, chance):
    """Close what was opened last, so that more of it is TOML."""
    text, separator, rest = data.partition(b"\0")
    lines = text.split(b"\n")
    number = chance.randrange(len(lines))
    line = lines[number]
    lines[number] += b'"' * (line.count(b'"') % 2) + b"]" * max(0, line.count(b"[") - line.count(b"]"))
    lines[number] += b"}" * max(0, line.count(b"{") - line.count(b"}"))
    return b"\n".join(lines) + separator + rest


_GOOD = b'[tasks.a]\nrun = "m:f"\ntimeout = 1\nenv = {A = "b"}\n[communicators.shm]\nring = 1\n'


@cache
def _folder():
    folder = TemporaryDirectory()
    # What attrs and cattrs write for a class, they write when it is used for the first time.
    path = Path(folder.name, "good.toml")
    path.write_bytes(_GOOD)
    _look_at(Config.load(path, environ={"TASKLINK_STRICT": "true"}), _GOOD)
    return folder


def check(data):
    """Read it, and all that can be asked of it."""
    text, _, rest = data.partition(b"\0")
    path = Path(_folder().name, "tasks.toml")
    path.write_bytes(text)
    with harmless((4 << 20) + 200 * len(data)):  # tables in tables take as much of the stack as Python lets them
        _look_at_quantities(text[:50].decode("utf-8", "replace"))
        try:
            environ, communicators, overrides = _given(rest.decode("utf-8", "surrogateescape"))
            config = Config.load(path, environ=environ, communicators=communicators, overrides=overrides)
        except ConfigError as error:
            _says_what_is_wrong(error)
            return
        _look_at(config, text)


def _given(rest):
    lines = [line for line in rest.split("\n") if line]
    variables = dict(line.partition("=")[::2] for line in lines if line.startswith("TASKLINK_"))
    communicators = [line.removeprefix("--with ") for line in lines if line.startswith("--with ")]
    others = [line for line in lines if not line.startswith(("TASKLINK_", "--with "))]
    return variables, communicators[-1] if communicators else None, parse_overrides(others)


def _look_at(config, text):
    lines = text.count(b"\n") + 1
    for entry in config.entries():
        assert entry.text
        place, _, line = entry.origin.rpartition(":")
        assert not place or 1 <= int(line) <= lines, entry
    for name, spec in config.tasks.items():
        assert config.task(name) is spec
        assert spec.label
        if spec.command is not None:
            assert len(spec.arguments()) == len(spec.command)
    for name, table in config.settings.items():
        try:
            structure(table, _SETTINGS.get(name, SharedMemorySettings))
        except ConfigError as error:
            _says_what_is_wrong(error)


def _says_what_is_wrong(error):
    assert str(error)


def _look_at_quantities(text):
    for parse, format_ in ((parse_size, format_size), (parse_duration, format_duration)):
        try:
            amount = parse(text)
        except ValueError:
            continue
        assert parse(format_(amount)) == amount
