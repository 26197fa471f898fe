"""TaskSpec: one Task, and the arguments of its command."""

import datetime
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasklink.config import UNTRUSTED, Limits, TaskSpec
from tasklink.errors import ConfigError


def count_peaks():
    """Stand for a user's function."""


class TestValues:
    """What a spec may say."""

    def test_python_values_are_as_good_as_those_of_a_file(self):
        """Lists, text and plain numbers are brought into one form."""
        spec = TaskSpec(command=["ls", "-l"], communicators=["pipe"], timeout="10 min", grace=1, cwd="/data", prefix=[])
        assert spec == TaskSpec(
            command=("ls", "-l"), communicators=("pipe",), timeout=600.0, grace=1.0, cwd=Path("/data"), prefix=()
        )

    @pytest.mark.parametrize(
        ("values", "told"),
        [
            ({}, "a task needs exactly one of run"),
            ({"run": count_peaks, "command": ("ls",)}, "a task needs exactly one of run"),
            ({"run": "mylab.analysis"}, 'has the form "module:attribute"'),
            ({"run": "mylab.analysis:"}, 'has the form "module:attribute"'),
            ({"run": "my-lab:count"}, 'has the form "module:attribute"'),
            ({"run": "a:b:c"}, 'has the form "module:attribute"'),
            ({"run": 5}, 'has the form "module:attribute"'),
            ({"command": ()}, "begins with the name of a program"),
            ({"command": ("", "x")}, "begins with the name of a program"),
            ({"command": "ls -l"}, r'not an array of texts; write \["ls -l"\]'),
            ({"command": ("ls", Path("x"))}, "is not text"),
            ({"run": count_peaks, "communicators": "pipe"}, r'not an array of texts; write \["pipe"\]'),
            ({"run": count_peaks, "communicators": ()}, "at least one communicator"),
            ({"run": count_peaks, "communicators": ("",)}, "a name is empty"),
            ({"run": count_peaks, "communicators": ("a", "b", "a")}, 'communicator "a" is named twice'),
            ({"run": count_peaks, "timeout": 0}, "timeout of 0"),
            ({"run": count_peaks, "timeout": "10 parsecs"}, "not a duration"),
            ({"run": count_peaks, "grace": -1}, "not a duration"),
            ({"run": count_peaks, "env": {"A=B": "c"}}, '"A=B" cannot be set'),
            ({"run": count_peaks, "env": {"": "c"}}, '"" cannot be set'),
            ({"run": count_peaks, "env": {"A": "\0"}}, '"A" cannot be set'),
            ({"run": count_peaks, "codec": "yaml"}, "codec"),
            ({"run": count_peaks, "trust": "some"}, "trust"),
            ({"run": count_peaks, "limits": {"depth": 0}}, "a depth below 1"),
            ({"run": count_peaks, "limits": {"kept": "much"}}, "not a size"),
            ({"run": count_peaks, "trust": "none", "codec": "pickle"}, 'take codec = "pickle" out'),
        ],
    )
    def test_what_makes_no_sense_is_refused(self, values, told):
        """The error says what would be right."""
        with pytest.raises((ValueError, TypeError), match=told):
            TaskSpec(**values)

    def test_what_is_not_trusted_sends_data(self):
        """The codec follows from the trust, unless it is said."""
        assert TaskSpec(run=count_peaks).codec == "pickle"
        assert TaskSpec(run=count_peaks, trust="none").codec == "json"
        assert TaskSpec(run=count_peaks, codec="json").trust == "full"

    def test_limits_follow_from_the_trust(self):
        """Without it what is not said is that of UNTRUSTED; with it nothing is limited but what is said."""
        assert TaskSpec(run=count_peaks).limits == Limits()
        assert TaskSpec(run=count_peaks, limits={"kept": "1 kB"}).limits == Limits(kept=1000)
        assert TaskSpec(run=count_peaks, trust="none").limits == UNTRUSTED
        spec = TaskSpec(run=count_peaks, trust="none", limits=Limits(output=5))
        assert attrs.evolve(spec, name="again").limits == attrs.evolve(UNTRUSTED, output=5)

    @pytest.mark.parametrize("run", ["m:f", "mylab.analysis:Task.main", "_m1:été", count_peaks, TaskSpec])
    def test_what_can_be_run(self, run):
        """References, functions and classes."""
        assert TaskSpec(run=run).run is run

    @pytest.mark.parametrize(
        ("spec", "label"),
        [
            (TaskSpec(name="count", run="m:f"), "count"),
            (TaskSpec(run="mylab.analysis:count"), "mylab.analysis:count"),
            (TaskSpec(run=count_peaks), "count_peaks"),
            (TaskSpec(command=("/usr/bin/ls", "-l")), "ls"),
        ],
    )
    def test_label(self, spec, label):
        """The name, or else what a person would call it."""
        assert spec.label == label


class TestArguments:
    """Parameters in the places of a command."""

    def test_every_place_is_filled(self):
        """Several in one item, the same one twice, and the program itself."""
        spec = TaskSpec(command=("{tool}", "-i{input}:{input}", "{tool}{n}"))
        assert spec.arguments({"tool": "fastp", "input": "a b", "n": 3}) == ("fastp", "-ia b:a b", "fastp3")

    def test_those_of_the_run_come_before_those_of_the_spec(self):
        """A spec's own parameters are defaults."""
        spec = TaskSpec(command=("head", "-n", "{n}", "{file}"), parameters={"n": 5, "file": "a"})
        assert spec.arguments() == ("head", "-n", "5", "a")
        assert spec.arguments({"n": 7}) == ("head", "-n", "7", "a")

    def test_other_braces_stay(self):
        """Braces of other languages are no placeholders, and a place without a parameter is none either."""
        command = ("awk", "{print}", "{ print $1 }", "{}", "{{x}}", "${HOME}", "{x", "x}", '{"x": 1}', "{0}")
        assert TaskSpec(command=command).arguments() == command
        assert TaskSpec(command=command).arguments({"x": 1})[4] == "{1}"

    def test_a_value_is_not_searched_for_places(self):
        """What a parameter brings along is data."""
        assert TaskSpec(command=("echo", "{a}{b}")).arguments({"a": "{b}", "b": "{a}"}) == ("echo", "{b}{a}")

    @pytest.mark.parametrize(
        ("value", "text"),
        [
            ("", ""),
            (True, "true"),
            (1.5, "1.5"),
            (Path("/a b"), "/a b"),
            (datetime.date(2026, 1, 2), "2026-01-02"),
        ],
    )
    def test_values_are_written_as_the_config_has_them(self, value, text):
        """A switch is true or false, as in TOML."""
        assert TaskSpec(command=("x", "{a}")).arguments({"a": value}) == ("x", text)

    @pytest.mark.parametrize("value", [None, [1], {"a": 1}, b"x", object()])
    def test_values_that_are_no_arguments(self, value):
        """There is no one way to write them."""
        with pytest.raises(ConfigError, match=r"tasks\.x\.parameters\.a = .*cannot be an argument"):
            TaskSpec(command=("x", "{a}")).arguments({"a": value})

    def test_parameters_without_a_place_are_all_told(self):
        """A parameter that would have no effect is a mistake; the places are listed."""
        spec = TaskSpec(name="trim", command=("fastp", "-i", "{input}"))
        with pytest.raises(ConfigError) as error:
            spec.arguments({"inptu": "a", "n": 1})
        assert str(error.value).splitlines() == [
            'tasks.trim.parameters.inptu = "a": no {inptu} in the command; did you mean "input"? Allowed: input',
            "tasks.trim.parameters.n = 1: no {n} in the command; allowed: input",
        ]

    @given(st.lists(st.text(alphabet="{}ab_ $'\"\\%"), min_size=1), st.text(), st.text())
    def test_only_places_change(self, items, a, b):
        """For any braces in any order, the result is that of replacing the places, and nothing else."""
        command = ("x{a}", "{b}", *items)
        arguments = TaskSpec(command=command).arguments({"a": a, "b": b})
        for item, argument in zip(command, arguments, strict=True):
            pieces = [piece.split("{b}") for piece in item.split("{a}")]
            assert argument == a.join(b.join(piece) for piece in pieces)
