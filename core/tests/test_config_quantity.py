"""Sizes and durations: what is one, what is not, and that what is shown can be written back."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasklink.config import format_duration, format_size, parse_duration, parse_size


class TestSize:
    """`parse_size` and `format_size`."""

    @pytest.mark.parametrize(
        ("text", "size"),
        [
            ("64 MiB", 64 * 2**20),
            ("64MiB", 64 * 2**20),
            (" 1.5 GiB ", 3 * 2**29),
            ("1 TiB", 2**40),
            ("1 kB", 1000),
            ("2.5 MB", 2_500_000),
            ("1 GB", 10**9),
            ("1 TB", 10**12),
            ("512 B", 512),
            ("4096", 4096),
            (4096, 4096),
            (0, 0),
        ],
    )
    def test_is_a_number_of_bytes(self, text, size):
        """Binary and decimal units, with and without a blank; a plain number counts bytes."""
        assert parse_size(text) == size
        assert type(parse_size(text)) is int

    def test_rounds_a_fraction_of_a_byte_down(self):
        """1.1 KiB would be 1126.4 bytes."""
        assert parse_size("1.1 KiB") == 1126

    @pytest.mark.parametrize(
        "value",
        [
            *[
                "",
                "B",
                "64 mib",
                "64 KB",
                "64 kb",
                "64 MiB/s",
                "-1 MiB",
                "1e3 B",
                "1_000",
                "½ MiB",
                "٣ B",
                "nan",
                "inf",
            ],
            *[-1, True, False, 1.0, math.nan, math.inf, None, [1], b"1"],
        ],
    )
    def test_refuses_what_is_none(self, value):
        """The error names the value and says how a size is written."""
        with pytest.raises(ValueError, match=r'not a size; write .* "64 MiB"') as error:
            parse_size(value)
        assert repr(value) in str(error.value)

    @given(st.integers(min_value=0, max_value=2**80) | st.integers(0, 4096).map(lambda n: n * 2**20))
    def test_can_be_written_back(self, size):
        """What `format_size` shows is the same size again, to the byte."""
        assert parse_size(format_size(size)) == size

    @pytest.mark.parametrize(
        ("size", "text"),
        [(0, "0 B"), (1, "1 B"), (1536, "1.5 KiB"), (64 << 20, "64 MiB"), (10**9, "1 GB"), (1234567, "1234567 B")],
    )
    def test_is_shown_in_the_unit_with_the_fewest_digits(self, size, text):
        """A person would write it like that."""
        assert format_size(size) == text


class TestDuration:
    """`parse_duration` and `format_duration`."""

    @pytest.mark.parametrize(
        ("text", "seconds"),
        [
            ("500 ms", 0.5),
            ("10 s", 10.0),
            ("10min", 600.0),
            ("1.5 h", 5400.0),
            ("2 d", 172_800.0),
            ("90", 90.0),
            ("0", 0.0),
            (0.1, 0.1),
            (7, 7.0),
        ],
    )
    def test_is_a_number_of_seconds(self, text, seconds):
        """Each unit; a plain number counts seconds."""
        assert parse_duration(text) == seconds
        assert type(parse_duration(text)) is float

    @pytest.mark.parametrize(
        "value",
        [
            *["", "s", "10 parsecs", "10 minutes", "10 M", "-1 s", "1 h 30 min", "1e3 s", "nan", "inf", "9" * 500],
            *[-1, -0.5, True, False, math.nan, math.inf, -math.inf, 10**400, "9" * 350, None, [1]],
        ],
    )
    def test_refuses_what_is_none(self, value):
        """The error names the value and says how a duration is written."""
        with pytest.raises(ValueError, match=r'not a duration; write .* "10 min"') as error:
            parse_duration(value)
        assert repr(value) in str(error.value)

    @given(st.floats(min_value=0, allow_nan=False, allow_infinity=False) | st.integers(0, 10**6).map(float))
    def test_can_be_written_back(self, seconds):
        """What `format_duration` shows is the same duration again, to the last bit."""
        assert parse_duration(format_duration(seconds)) == seconds

    @pytest.mark.parametrize(
        ("seconds", "text"),
        [(0, "0 s"), (0.25, "250 ms"), (2, "2 s"), (90, "90 s"), (600, "10 min"), (86400, "1 d"), (1e-5, "0.00001 s")],
    )
    def test_is_shown_in_the_unit_with_the_fewest_digits(self, seconds, text):
        """A person would write it like that."""
        assert format_duration(seconds) == text


@given(st.text() | st.from_regex(r"[0-9.]{1,6} ?[A-Za-z]{0,3}", fullmatch=True))
def test_any_text_is_a_quantity_or_a_value_error(text):
    """No text gets another exception out of the parsers, nor a value that is negative or not finite."""
    for parse in (parse_size, parse_duration):
        try:
            value = parse(text)
        except ValueError:
            continue
        assert 0 <= value < math.inf
