"""From tables to attrs classes: what is taken, what is refused, and how that is told."""

import enum
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasklink.config import Duration, Size, Table, structure
from tasklink.config.problem import Origin
from tasklink.errors import ConfigError


class Mode(enum.Enum):
    """How it works."""

    FAST = "fast"
    SAFE = "safe"


@attrs.frozen
class Ring:
    """A table in a table."""

    slots: int = attrs.field(default=4, validator=attrs.validators.gt(0))
    size: Size = Size(1)


@attrs.frozen
class Settings:
    """Every type that a settings class may have."""

    text: str = ""
    count: int = 0
    ratio: float = 0.0
    switch: bool = False
    size: Size = Size(1)
    limit: Size | None = None
    wait: Duration = Duration(1.0)
    patience: Duration | None = None
    kind: Literal["stream", "datagram", 3] = "stream"
    mode: Mode = Mode.FAST
    names: tuple[str, ...] = ()
    numbers: list[int] = attrs.field(factory=list)
    pair: tuple[int, Size] = (0, Size(0))
    plain: tuple = ()
    unique: frozenset[str] = frozenset()
    sequence: Sequence[Size] = ()
    limits: Mapping[str, Size] = attrs.field(factory=dict)
    folder: Path | None = None
    ring: Ring = attrs.field(factory=Ring)
    rings: tuple[Ring, ...] = ()
    anything: object = None
    whatever: Any = None


def refusal(table, cls=Settings, where="communicators.shm") -> str:
    """Return what is said about a table that is refused."""
    with pytest.raises(ConfigError) as error:
        structure(table, cls, where=where)
    assert type(error.value) is ConfigError
    return str(error.value)


class TestWhatIsTaken:
    """Values that suit their types."""

    def test_defaults(self):
        """An empty table gives the class's own defaults."""
        assert structure({}, Settings) == Settings()

    @pytest.mark.parametrize(
        ("key", "written", "value"),
        [
            ("text", "x", "x"),
            ("count", 3, 3),
            ("ratio", 0.5, 0.5),
            ("ratio", 2, 2.0),
            ("switch", True, True),
            ("size", "64 MiB", 64 << 20),
            ("size", 100, 100),
            ("limit", "1 kB", 1000),
            ("wait", "10 min", 600.0),
            ("patience", 5, 5.0),
            ("kind", "datagram", "datagram"),
            ("kind", 3, 3),
            ("mode", "safe", Mode.SAFE),
            ("names", ["a", "b"], ("a", "b")),
            ("numbers", [1, 2], [1, 2]),
            ("pair", [1, "1 KiB"], (1, 1024)),
            ("plain", [1, "x"], (1, "x")),
            ("unique", ["a", "a"], frozenset("a")),
            ("sequence", ["1 KiB", 1], (1024, 1)),
            ("limits", {"a": "1 KiB"}, {"a": 1024}),
            ("folder", "/data", Path("/data")),
            ("ring", {"size": "2 KiB"}, Ring(size=Size(2048))),
            ("rings", [{"slots": 2}, {}], (Ring(slots=2), Ring())),
            ("anything", {"a": [1]}, {"a": [1]}),
            ("whatever", "x", "x"),
        ],
    )
    def test_values(self, key, written, value):
        """Each type takes the values that TOML has for it, and makes the class's type of them."""
        taken = getattr(structure({key: written}, Settings), key)
        assert taken == value
        assert type(taken) is type(value)

    def test_a_path_may_begin_at_home(self, monkeypatch):
        """As a shell would read it."""
        monkeypatch.setenv("HOME", "/home/ada")
        assert structure({"folder": "~/data"}, Settings).folder == Path("/home/ada/data")

    def test_private_attributes_have_keys_without_the_underscore(self):
        """As their constructor has it."""

        @attrs.frozen
        class Private:
            _key: int = attrs.field(validator=attrs.validators.lt(9))

        assert structure({"key": 5}, Private) == Private(key=5)


class TestWhatIsRefused:
    """Nothing is coerced, and every refusal says what would be right."""

    @pytest.mark.parametrize(
        ("key", "written", "told"),
        [
            ("text", 4, '= 4: not text; write it in quotes: "4"'),
            ("text", True, '= true: not text; write it in quotes: "true"'),
            ("text", ["a"], '= ["a"]: not text'),
            ("count", True, "= true: not a whole number"),
            ("count", 1.0, "= 1.0: not a whole number"),
            ("count", "1", '= "1": not a whole number'),
            ("ratio", "1", '= "1": not a number'),
            ("ratio", False, "= false: not a number"),
            ("ratio", 10**400, "int too large to convert to float"),
            ("switch", 1, "= 1: not true or false"),
            ("switch", "yes", '= "yes": not true or false'),
            ("size", 1.5, "= 1.5: not a size; write a whole number of bytes"),
            ("size", -1, "= -1: not a size"),
            ("size", True, "= true: not a size"),
            ("size", [1], "= [1]: not a size"),
            ("limit", "1 parsec", '= "1 parsec": not a size'),
            ("wait", "10 parsecs", '= "10 parsecs": not a duration; write a number of seconds'),
            ("wait", math.nan, "= nan: not a duration"),
            ("patience", {}, "= {}: not a duration"),
            ("kind", "stram", 'did you mean "stream"? Allowed: 3, datagram, stream'),
            ("kind", 3.0, "= 3.0: not one of the values it can have; allowed: 3, datagram, stream"),
            ("mode", "FAST", '= "FAST": not one of the values it can have; allowed: fast, safe'),
            ("mode", ["fast"], "not one of the values it can have"),
            ("names", "pipe", '= "pipe": not an array; write ["pipe"]'),
            ("names", ["a", 1], 'names[1] = 1: not text; write it in quotes: "1"'),
            ("pair", [1], "= [1]: not an array of 2 values"),
            ("pair", [1, "x"], 'pair[1] = "x": not a size'),
            ("unique", {"a": 1}, "= {a = 1}: not an array"),
            ("limits", ["a"], '= ["a"]: not a table'),
            ("limits", {"a": 1, "b c": "x"}, 'limits."b c" = "x": not a size'),
            ("folder", 4, "= 4: not a path; write it as text"),
            ("folder", "", '= "": not a path'),
            ("folder", "~nobody-of-that-name/x", "not a path here"),
            ("ring", 1, "ring = 1: not a table"),
            ("rings", [{}, {"slots": "2"}], 'rings[1].slots = "2": not a whole number'),
        ],
    )
    def test_values(self, key, written, told):
        """Each type refuses what is of another kind, and names key and value."""
        text = refusal({key: written})
        assert text.startswith(f"communicators.shm.{key}")
        assert told in text

    def test_an_unknown_key(self):
        """The nearest key is suggested, and all are listed."""
        assert refusal({"slot": 1}, Ring) == (
            'communicators.shm.slot: unknown key; did you mean "slots"? Allowed: size, slots'
        )

    def test_an_unknown_key_like_no_other(self):
        """Nothing is suggested, and all are listed."""
        assert refusal({"x": 1}, Ring) == "communicators.shm.x: unknown key; allowed: size, slots"

    def test_a_key_of_a_table_further_in(self):
        """The table is named that has such a key."""
        assert refusal({"slots": 1}) == "communicators.shm.slots: unknown key; it belongs in [ring]"

    def test_a_missing_key(self):
        """A key without a default has to be there."""

        @attrs.frozen
        class Needy:
            host: str

        assert refusal({}, Needy) == "communicators.shm.host: missing, and there is no default"

    def test_a_long_value_is_cut(self):
        """A message stays readable."""
        text = refusal({"count": "x" * 10_000})
        assert len(text) < 200
        assert "…" in text

    def test_without_a_place(self):
        """The keys alone are told."""
        assert refusal({"slots": 0}, Ring, where="").startswith("slots = 0: ")

    def test_all_problems_at_once(self):
        """Those of types, keys, validators and inner tables, one a line."""
        table = {"counts": 1, "count": "1", "ring": {"slots": 0, "size": "x"}, "rings": [{"a": 1}, {"slots": -1}]}
        keys = [line.split(" = ")[0].split(": ")[0] for line in refusal(table, where="").splitlines()]
        assert keys == ["counts", "count", "ring.size", "ring.slots", "rings[0].a", "rings[1].slots"]


class TestValidators:
    """What the class itself allows."""

    def test_each_one_is_told_with_its_key(self):
        """The constructor would stop at the first, and not say whose it was."""

        @attrs.frozen
        class Pair:
            low: int = attrs.field(default=1, validator=attrs.validators.ge(0))
            high: int = attrs.field(default=2, validator=[attrs.validators.ge(0), attrs.validators.le(9)])

        assert refusal({"low": -1, "high": 10}, Pair).splitlines() == [
            "communicators.shm.low = -1: 'low' must be >= 0: -1",
            "communicators.shm.high = 10: 'high' must be <= 9: 10",
        ]

    def test_one_that_compares_attributes(self):
        """It sees the other attribute where that is right, and stays silent where it is not."""

        @attrs.frozen
        class Range:
            low: int = 0
            high: int = attrs.field(default=9)

            @high.validator
            def _ordered(self, _attribute, value):
                if value < self.low:
                    raise ValueError(f"must not be less than low, which is {self.low}")

        assert refusal({"low": 5, "high": 3}, Range) == (
            "communicators.shm.high = 3: must not be less than low, which is 5"
        )
        assert refusal({"low": "x", "high": 3}, Range) == 'communicators.shm.low = "x": not a whole number'
        assert structure({"high": 3}, Range) == Range(0, 3)
        assert refusal({"high": -3}, Range) == "communicators.shm: must not be less than low, which is 0"

    @pytest.mark.parametrize("error", [ValueError, TypeError, ConfigError])
    def test_the_whole_instance_may_be_refused(self, error):
        """What `__attrs_post_init__` raises is told of the table."""

        @attrs.frozen
        class Either:
            host: str = ""
            path: str = ""

            def __attrs_post_init__(self):
                if self.host and self.path:
                    raise error("give host or path, not both")

        assert refusal({"host": "a", "path": "b"}, Either) == "communicators.shm: give host or path, not both"

    def test_converters_come_before_validators(self):
        """A validator sees the value as the instance will have it; a converter may refuse too."""

        @attrs.frozen
        class Converted:
            level: str = attrs.field(converter=str.lower, validator=attrs.validators.in_(["low", "high"]))
            sign: int = attrs.field(default=0, converter=lambda value: int(value) // abs(int(value)) if value else 0)
            late: str = attrs.field(default="", converter=attrs.Converter(lambda value, _: value, takes_self=True))

        assert structure({"level": "HIGH", "sign": -4, "late": "x"}, Converted).level == "high"
        assert refusal({"level": "MIDDLE"}, Converted) == (
            "communicators.shm.level = \"MIDDLE\": 'level' must be in ['low', 'high'] (got 'middle')"
        )


class TestTable:
    """A table that knows its place."""

    TABLE = Table(
        {"slots": 0, "wait": 1},
        ("communicators", "my shm"),
        {("communicators", "my shm", "slots"): Origin("a.toml", 7)},
    )

    def test_is_a_mapping(self):
        """Whoever expects a mapping may have it."""
        assert dict(self.TABLE) == {"slots": 0, "wait": 1}
        assert len(self.TABLE) == 2
        assert self.TABLE == {"slots": 0, "wait": 1}

    def test_gives_errors_their_place(self):
        """File and line come first; a key whose place is unknown is told without."""
        assert refusal(self.TABLE, Ring).splitlines() == [
            'communicators."my shm".wait: unknown key; allowed: size, slots',
            "a.toml:7: communicators.\"my shm\".slots = 0: 'slots' must be > 0: 0",
        ]


TOML_VALUES = st.recursive(
    st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.dates() | st.times() | st.datetimes(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from([field.name for field in attrs.fields(Settings)]), TOML_VALUES))
def test_any_table_gives_settings_or_a_config_error(table):
    """Whatever TOML can say, no other exception comes out, and what comes out is of the declared types."""
    try:
        settings = structure(table, Settings)
    except ConfigError:
        return
    assert type(settings.count) is int
    assert type(settings.size) is int
    assert type(settings.switch) is bool
    assert type(settings.names) is tuple
