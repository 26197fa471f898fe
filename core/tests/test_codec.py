"""Objects to buffers and back: any object passes or is refused by name; large memory passes without a copy."""

from __future__ import annotations

import datetime
import json
import signal
import subprocess
import sys
import threading
import tracemalloc
from collections import OrderedDict
from contextlib import suppress
from fractions import Fraction
from pickle import PickleBuffer
from typing import TYPE_CHECKING, NoReturn

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasklink import codec, framing
from tasklink.codec import CLOUDPICKLE, JSON, PER_LEVEL, PICKLE, RAW, WITHHELD, decode, encode
from tasklink.errors import DecodeError, EncodeError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tasklink.codec import Buffer

    # The number of a codec and the buffers that it has made.
    Payload = tuple[int, list[Buffer]]

MIB = 1 << 20


def carried(payload: Payload, *, whole: bool = True) -> Payload:
    """A payload as it is behind the wire."""
    number, buffers = payload
    sent = framing.encode(buffers, number)
    parts = [sent] if whole else framing.split(sent)
    (message,) = framing.FrameDecoder().feed(b"".join(b"".join(part) for part in parts))
    assert message.buffers is not None
    return message.codec, message.buffers


def round_trip(contents: object, number: int = PICKLE) -> object:
    """An object as it is behind the wire."""
    return decode(*carried(encode(contents, number)))


def shares_memory(array: np.ndarray, buffers: list[Buffer]) -> bool:
    """Whether an array lies in one of the out-of-band buffers."""
    return any(np.shares_memory(array, np.frombuffer(buffer, np.uint8)) for buffer in buffers[1:])


atoms = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.complex_numbers(allow_nan=False)
    | st.text()
    | st.binary()
    | st.binary().map(bytearray)
    | st.fractions()
    | st.datetimes()
    | st.uuids()
)
hashable = st.integers() | st.text() | st.binary() | st.tuples(st.integers(), st.text())
objects = st.recursive(
    atoms | st.frozensets(hashable) | st.sets(hashable),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(hashable, inner),
    max_leaves=12,
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)

# Whose texts look like structure.
awkward_values = st.recursive(
    st.integers() | st.text('[]{}"\\\\é', max_size=6),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text('[]{}"\\\\', max_size=4), inner, max_size=3),
    max_leaves=12,
)


def depth_of(contents: object) -> int:
    """How deep lists and dicts lie in one another."""
    if isinstance(contents, dict):
        contents = list(contents.values())
    return 1 + max(map(depth_of, contents), default=0) if isinstance(contents, list) else 0


class TestObjects:
    """Pickles."""

    @given(objects)
    def test_any_object_arrives_equal_and_of_its_type(self, contents: object) -> None:
        """What was sent is what arrives."""
        arrived = round_trip(contents)
        assert arrived == contents
        assert type(arrived) is type(contents)

    @pytest.mark.parametrize(
        "contents",
        [
            OrderedDict(a=1),
            Fraction(1, 3),
            datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC),
            range(3),
            ValueError("as a value"),
            len,
            threading.Thread,
        ],
        ids=repr,
    )
    def test_objects_of_libraries_go_as_plain_pickles(self, contents: object) -> None:
        """Nothing but plain pickle is asked for what plain pickle can do."""
        payload = encode(contents)
        assert payload[0] == PICKLE
        assert repr(decode(*carried(payload))) == repr(contents)

    def test_an_object_that_refers_to_itself(self) -> None:
        """A cycle stays a cycle."""
        contents: list[object] = [1]
        contents.append(contents)
        arrived = round_trip(contents)
        assert isinstance(arrived, list)
        assert arrived[1] is arrived

    @pytest.mark.parametrize("size", [0, 1, 4095, 4096, 64 << 10, MIB, 9 * MIB])
    @pytest.mark.parametrize("number", [PICKLE, JSON])
    def test_bytes_go_as_they_are(self, size: int, number: int) -> None:
        """`bytes` of any size are one raw buffer, not copied, whatever the codec of the run."""
        contents = bytes(range(256)) * (size // 256) + bytes(size % 256)
        used, buffers = encode(contents, number)
        assert used == RAW
        assert buffers[0] is contents
        assert decode(*carried((used, buffers))) == contents

    def test_raw_buffers_of_a_record_decode_to_bytes(self) -> None:
        """Several raw buffers are a tuple of `bytes`."""
        assert decode(*carried((RAW, [b"one", b"", b"three"]))) == (b"one", b"", b"three")

    @pytest.mark.parametrize("beyond", [-1, 0, 1])
    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
    def test_copied_in_slices(self, kind: Callable[[bytes], Buffer], beyond: int) -> None:
        """A large buffer is copied in slices, none is forgotten, and it costs no memory but that of the bytes."""
        contents = bytes(range(251)) * (9 * MIB // 251)
        contents += bytes(2 * codec._SLICE + beyond - len(contents) % codec._SLICE)
        buffer = kind(contents)
        tracemalloc.start()
        try:
            made = codec.copied(buffer)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert type(made) is bytes
        assert made == contents
        assert peak < len(contents) + MIB

    def test_other_threads_run_meanwhile(self) -> None:
        """While a large buffer is copied other threads run: signals do not wait for all of it."""
        buffer = memoryview(bytes(96 * MIB))
        ticks: list[None] = []
        over = threading.Event()

        def tick() -> None:
            while not over.wait(0.0002):
                ticks.append(None)

        interval = sys.getswitchinterval()
        ticker = threading.Thread(target=tick)
        ticker.start()
        try:
            sys.setswitchinterval(1e-5)
            before = len(ticks)
            codec.copied(buffer)
            count = len(ticks) - before
        finally:
            sys.setswitchinterval(interval)
            over.set()
            ticker.join()
        assert count >= 5  # it could be two that ran before and behind the only slice


ARRAYS = {
    "large": np.arange(200_000, dtype=np.float64),
    "at the limit": np.arange(codec.OUT_OF_BAND, dtype=np.uint8),
    "fortran": np.asfortranarray(np.arange(60_000, dtype=np.int32).reshape(200, 300)),
    "structured": np.zeros(1000, dtype=[("x", "f8"), ("name", "S8")]),
    "big-endian": np.arange(5000, dtype=">i4"),
    "three dimensions": np.arange(24_000, dtype=np.int16).reshape(20, 30, 40),
}
OTHER_ARRAYS = {
    "small": np.arange(10),
    "empty": np.empty((0, 3)),
    "zero-dimensional": np.array(7.5),
    "non-contiguous": np.arange(100_000).reshape(100, 1000)[::2, ::3],
    "reversed": np.arange(10_000)[::-1],
    "objects": np.array([{"a": 1}, None, "text"], dtype=object),
    "dates": np.arange("2024-01", "2034-01", dtype="datetime64[D]"),
    "texts": np.array(["a", "bc"] * 5000),
    "broadcast": np.broadcast_to(np.arange(3), (2000, 3)),
}


class TestArrays:
    """Memory that is not copied."""

    @pytest.mark.parametrize("name", ARRAYS)
    @pytest.mark.parametrize("whole", [True, False], ids=["whole", "in pieces"])
    def test_a_large_array_is_the_memory_it_was_read_into(self, name: str, whole: bool) -> None:
        """It is sent from where it lies, and arrives equal, writable, in its order, over the received buffer."""
        array = ARRAYS[name]
        sent = encode(array)
        assert len(sent[1]) == 2
        assert shares_memory(array, sent[1])

        number, buffers = carried(sent, whole=whole)
        arrived = decode(number, buffers)

        assert isinstance(arrived, np.ndarray)
        assert arrived.dtype == array.dtype
        np.testing.assert_array_equal(arrived, array)
        assert shares_memory(arrived, buffers)
        assert arrived.flags.writeable
        assert arrived.flags.f_contiguous == array.flags.f_contiguous
        arrived[...] = arrived[::-1].copy()  # memory of its own: no fault, and no harm to what was sent

    @pytest.mark.parametrize("name", OTHER_ARRAYS)
    def test_any_array_arrives_equal_and_writable(self, name: str) -> None:
        """Arrays that have no contiguous memory of their own to lend are copied."""
        array = OTHER_ARRAYS[name]
        arrived = round_trip(array)
        assert isinstance(arrived, np.ndarray)
        assert arrived.dtype == array.dtype
        np.testing.assert_array_equal(arrived, array)
        assert arrived.flags.writeable

    def test_arrays_inside_other_objects(self) -> None:
        """Each one goes out of band, wherever it stands; one that stands twice goes once."""
        array = np.arange(10_000.0)
        sent = encode({"x": [array, array], "y": (np.ones((100, 100)), "text")})
        assert len(sent[1]) == 3

        number, buffers = carried(sent)
        arrived = decode(number, buffers)
        assert isinstance(arrived, dict)
        assert arrived["x"][0] is arrived["x"][1]
        np.testing.assert_array_equal(arrived["x"][0], array)
        assert shares_memory(arrived["y"][0], buffers)

    def test_an_array_that_may_not_be_written_to_arrives_so(self) -> None:
        """A promise that was made on one side holds on the other."""
        array = np.arange(10_000.0)
        array.flags.writeable = False
        arrived = round_trip(array)
        assert isinstance(arrived, np.ndarray)
        assert not arrived.flags.writeable

    def test_more_buffers_than_the_wire_allows(self) -> None:
        """What is beyond the limit stays in the body, so the frame can be sent."""
        assert codec.MOST_OUT_OF_BAND + 1 == framing.MAX_BUFFERS
        lender = Lender(bytearray(codec.OUT_OF_BAND))
        contents = [Lender(lender.block) for _ in range(framing.MAX_BUFFERS + 5)]

        number, buffers = encode(contents)

        assert len(buffers) == framing.MAX_BUFFERS
        framing.encode(buffers, number)
        assert decode(number, buffers) == [codec.OUT_OF_BAND] * len(contents)


class Lender:
    """Something that lends its memory, and of which only the size arrives."""

    def __init__(self, block: bytearray) -> None:
        self.block = block

    def __reduce_ex__(self, protocol: object) -> tuple[object, ...]:
        return len, (PickleBuffer(self.block),)


IN_MAIN = """
import sys
import numpy as np
from dataclasses import dataclass
from tasklink import codec, framing

@dataclass
class Peak:
    height: float
    trace: np.ndarray

    def twice(self):
        return 2 * self.height

number, buffers = codec.encode([Peak(1.5, np.arange(10_000.0)), "text"])
sys.stdout.buffer.write(b"".join(framing.encode(buffers, number)))
"""


class TestCode:
    """Functions and classes that the other side does not have."""

    def test_lambdas_and_closures(self) -> None:
        """They go through cloudpickle, and work on the other side."""
        offset = 10
        payload = encode([lambda x: x + offset])
        assert payload[0] == CLOUDPICKLE
        (function,) = decode(*carried(payload))  # type: ignore[misc]
        assert function(1) == 11

    def test_local_classes(self) -> None:
        """So do classes that no module holds."""

        class Local:
            value = 7

        arrived = round_trip(Local())
        assert arrived.value == 7  # type: ignore[attr-defined]

    def test_a_class_of_main_arrives_with_its_array_out_of_band(self) -> None:
        """What a script defines is sent by value, and its arrays without a copy."""
        data = subprocess.run([sys.executable, "-c", IN_MAIN], stdout=subprocess.PIPE, check=True).stdout
        (message,) = framing.FrameDecoder().feed(data)
        buffers = message.buffers
        assert buffers is not None

        assert message.codec == CLOUDPICKLE
        peak, text = message.contents  # type: ignore[misc]
        assert (peak.twice(), text) == (3.0, "text")
        assert shares_memory(peak.trace, buffers)

    def test_a_text_that_mentions_main_is_still_a_text(self) -> None:
        """The word alone changes nothing but the codec."""
        array = np.arange(10_000)
        payload = encode(["see __main__", array])
        arrived = decode(*carried(payload))
        assert isinstance(arrived, list)
        assert arrived[0] == "see __main__"
        np.testing.assert_array_equal(arrived[1], array)
        assert len(payload[1]) == 2

    def test_without_cloudpickle(self) -> None:
        """Where it is not installed, what needs it is refused with that advice, and the rest goes on."""
        script = """
import sys
sys.modules["cloudpickle"] = None
from tasklink.codec import decode, encode
from tasklink.errors import EncodeError
class Here: pass
assert encode(Here())[0] == 1
assert decode(*encode([Here, "__main__"])) == [Here, "__main__"]
try:
    encode(lambda: None)
except EncodeError as error:
    print(error)
"""
        text = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, check=True)
        assert "builtins.function cannot be pickled" in text.stdout
        assert "install cloudpickle on both sides" in text.stdout


class Stubborn:
    """Refuses to be pickled."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __reduce__(self) -> NoReturn:
        raise self.error


class UnspeakableError(Exception):
    """An error whose text cannot be had."""

    def __str__(self) -> NoReturn:
        raise ValueError("no text")


def _encode_until(struck: list[int]) -> None:
    signal.setitimer(signal.ITIMER_REAL, 50e-6, 0.1)  # again, should a finalizer of another test stop it
    while not struck:
        encode(struck)


class TestWhatCannotBeEncoded:
    """EncodeErrors."""

    @pytest.mark.parametrize(
        ("contents", "names"),
        [
            (threading.Lock(), ["_thread.lock"]),
            ({"deep": [threading.Lock()]}, ["builtins.dict", "_thread.lock"]),
            ((n for n in "abc"), ["builtins.generator"]),
            (Stubborn(RuntimeError("not me")), ["Stubborn", "not me"]),
            (Stubborn(UnspeakableError()), ["Stubborn", "UnspeakableError"]),
            (sys._getframe(), ["builtins.frame"]),
        ],
        ids=["lock", "nested lock", "generator", "refuses", "unspeakable", "frame"],
    )
    def test_the_error_names_the_type_and_says_why(self, contents: object, names: list[str]) -> None:
        """Whoever sent it can see what it was, and what in it was to blame."""
        with pytest.raises(EncodeError) as caught:
            encode(contents)
        for name in names:
            assert name in str(caught.value)

    def test_a_signal_handler_that_raises(self) -> None:
        """What a handler raises within `encode` comes out of it as it is: the object has not refused."""
        struck: list[int] = []

        def strike(number: int, _: object) -> NoReturn:
            signal.setitimer(signal.ITIMER_REAL, 0)
            struck.append(number)
            raise RuntimeError("time is up")

        before = signal.signal(signal.SIGALRM, strike)
        try:
            for _ in range(500):
                struck.clear()
                with pytest.raises(RuntimeError, match="time is up"):
                    _encode_until(struck)
        finally:
            signal.signal(signal.SIGALRM, before)

    @pytest.mark.parametrize("number", [PICKLE, JSON])
    def test_nested_too_deep(self, number: int) -> None:
        """A recursion that has no end in sight is refused like anything else."""
        contents: list[object] = []
        for _ in range(100_000):
            contents = [contents]
        with pytest.raises(EncodeError, match=r"builtins\.list .*recursion"):
            encode(contents, number)
        while contents:  # taking it apart by recursion would not end well either
            contents = contents[0]  # type: ignore[assignment]

    @pytest.mark.parametrize(
        "contents", [{1, 2}, object(), float("nan"), [float("inf")], np.arange(3), {"a": b"bytes"}, 10**5000], ids=type
    )
    def test_what_json_cannot_say(self, contents: object) -> None:
        """The error names the type and lists what the codec carries."""
        kind = type(contents)
        with pytest.raises(EncodeError, match=f"{kind.__module__}.{kind.__qualname__} cannot be sent with codec json"):
            encode(contents, JSON)

    def test_a_dict_that_raises(self) -> None:
        """Whatever a class raises while json looks at it is an EncodeError."""

        class Raising(dict[str, int]):
            def items(self) -> NoReturn:  # type: ignore[override]
                raise RuntimeError("not now")

        with pytest.raises(EncodeError, match="not now"):
            encode(Raising(a=1), JSON)


class TestJson:
    """Data only."""

    @given(json_values)
    def test_what_json_can_say_arrives_equal(self, contents: object) -> None:
        """Data round trips through the codec json."""
        payload = encode(contents, JSON)
        assert payload[0] == JSON
        assert decode(*carried(payload)) == contents

    @given(st.binary(max_size=50))
    def test_garbage_is_a_decode_error(self, garbage: bytes) -> None:
        """Bytes that are no JSON raise DecodeError and nothing else."""
        with suppress(DecodeError):
            decode(JSON, [garbage])

    @pytest.mark.parametrize("text", [b"[" * 200_000, b"1" * 10_000], ids=["deep", "long number"])
    def test_json_that_would_exhaust_its_reader(self, text: bytes) -> None:
        """Nesting without end, and numbers that take quadratic time, are refused."""
        with pytest.raises(DecodeError):
            decode(JSON, [text])

    @given(awkward_values, st.integers(1, 5), st.booleans())
    def test_a_limit_of_depth(self, contents: object, deepest: int, spaced: bool) -> None:
        """What lies deeper is refused, all else arrives; what texts hold, be it brackets, does not count."""
        text = json.dumps(contents, indent=1 if spaced else None, ensure_ascii=spaced)
        number = JSON + deepest * PER_LEVEL
        depth = depth_of(contents)
        if depth <= deepest:
            assert decode(number, [text.encode()]) == contents
        else:
            with pytest.raises(DecodeError, match=f"nested {depth} deep; the limit is {deepest}"):
                decode(number, [text.encode()])

    def test_depth_is_looked_at_before_it_is_parsed(self) -> None:
        """A parser that calls itself takes stack: here it has as much as it asks for, and would crash the process."""
        code = (
            "import sys; sys.setrecursionlimit(10**9)\n"
            "from tasklink import codec, errors\n"
            "try: codec.decode(codec.JSON + 64 * codec.PER_LEVEL, [b'[' * 10_000_000])\n"
            "except errors.DecodeError as error: print(error)"
        )
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=False)
        assert (run.returncode, run.stderr) == (0, "")
        assert run.stdout.endswith("are nested 10000000 deep; the limit is 64, `limits.depth` of the Task\n")

    @given(st.binary(max_size=50) | st.text('[]{}"\\\\,:1 ', max_size=50).map(str.encode))
    def test_a_limit_changes_nothing_else(self, garbage: bytes) -> None:
        """What is not too deep is decoded, or refused, as it is without a limit."""
        results = []
        for number in (JSON, JSON + 60 * PER_LEVEL):
            try:
                results.append(decode(number, [garbage]))
            except DecodeError as error:
                results.append(str(error))
        assert repr(results[0]) == repr(results[1])  # NaN is equal to nothing

    @pytest.mark.parametrize("encoding", ["utf-16", "utf-32-be", "utf-8-sig"])
    def test_json_in_another_encoding(self, encoding: str) -> None:
        """It is UTF-8, and is not guessed: a peer does not choose which modules are imported here."""
        with pytest.raises(DecodeError, match="json"):
            decode(JSON, ['{"a": 1}'.encode(encoding)])


class Calls:
    """Calls a function when it is unpickled."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


def raise_error(error: BaseException) -> NoReturn:
    """Raise it."""
    raise error


def raise_unspeakable() -> NoReturn:
    """Raise an error whose text cannot be had."""
    raise UnspeakableError


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a package that can be imported now, and no more when it has been forgotten."""
    package = tmp_path / "tasklink_absent"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "peaks.py").write_text("class Other: pass\n\nclass Peak: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    return "tasklink_absent.peaks"


def forget(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Take a package away again."""
    for loaded in [key for key in sys.modules if key.startswith(name)]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != str(tmp_path)])


class TestWhatCannotBeDecoded:
    """DecodeErrors."""

    def test_the_module_is_missing(self, module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The error names the module and the class, and keeps the bytes."""
        peaks = __import__(module, fromlist=["Peak"])
        # Texts before it, one of them the name of the module, so that it stands in the memo of the pickle.
        payload = carried(encode([module, ["x", "x"], sys.intern(module), peaks.Peak(), np.arange(10_000)]))
        forget("tasklink_absent", monkeypatch, tmp_path)

        with pytest.raises(DecodeError) as caught:
            decode(*payload)

        assert "need tasklink_absent.peaks.Peak, but the module 'tasklink_absent'" in str(caught.value)
        assert caught.value.buffers is payload[1]
        assert isinstance(caught.value.__cause__, ModuleNotFoundError)

    def test_the_module_is_missing_far_into_a_large_pickle(
        self, module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where the class cannot be found in reasonable time, the module alone is named."""
        peaks = __import__(module, fromlist=["Peak"])
        payload = carried(encode([bytes(2 * MIB), peaks.Peak()]))
        forget("tasklink_absent", monkeypatch, tmp_path)

        with pytest.raises(DecodeError, match="need the module 'tasklink_absent', which cannot be imported here"):
            decode(*payload)

    def test_the_class_is_missing(self, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """The error names the class and the module that should have it."""
        peaks = __import__(module, fromlist=["Peak"])
        payload = carried(encode(peaks.Peak()))
        monkeypatch.delattr(peaks, "Peak")

        with pytest.raises(DecodeError, match=r"not defined here: .*'Peak'.*tasklink_absent\.peaks"):
            decode(*payload)

    @pytest.mark.parametrize("number", [PICKLE, CLOUDPICKLE])
    def test_a_module_that_its_own_code_misses(self, number: int) -> None:
        """When it is not the class's module that is missing, or nobody says which, the error says what it knows."""
        body = encode(Calls(__import__, "tasklink_nowhere"))[1][0]
        with pytest.raises(DecodeError, match="need the module 'tasklink_nowhere', which cannot be imported"):
            decode(number, [body])
        body = encode(Calls(raise_error, ModuleNotFoundError("nameless")))[1][0]
        with pytest.raises(DecodeError, match="ModuleNotFoundError: nameless"):
            decode(number, [body])

    @pytest.mark.parametrize(
        "call",
        [
            Calls(sys.exit, 3),
            Calls(raise_error, RuntimeError("no")),
            Calls(raise_unspeakable),
            Calls(raise_error, MemoryError()),
            Calls(int, "x"),
        ],
        ids=["SystemExit", "RuntimeError", "UnspeakableError", "MemoryError", "ValueError"],
    )
    def test_whatever_unpickling_raises_is_contained(self, call: Calls, request: pytest.FixtureRequest) -> None:
        """SystemExit too: reading a message never ends its reader."""
        payload = carried(encode(call))
        with pytest.raises(DecodeError, match=request.node.callspec.id) as caught:
            decode(*payload)
        assert caught.value.buffers is payload[1]
        assert decode(*encode(5)) == 5

    def test_the_users_interrupt_is_not_swallowed(self) -> None:
        """Control-C while a message is decoded is the user's own."""
        with pytest.raises(KeyboardInterrupt):
            decode(*encode(Calls(raise_error, KeyboardInterrupt())))

    def test_a_pickle_that_is_cut_off(self) -> None:
        """Cut after any byte, it raises DecodeError."""
        _, (body,) = encode({"a": [1.5, "text", b"bytes", range(3)], "b": Fraction(1, 3)})
        for cut in range(len(body)):
            with pytest.raises(DecodeError, match="pickle"):
                decode(PICKLE, [body[:cut]])

    def test_out_of_band_buffers_that_are_missing(self) -> None:
        """A pickle that refers to more buffers than there are says so."""
        _, buffers = encode([np.arange(10_000), np.arange(20_000)])
        assert len(buffers) == 3
        for count in (1, 2):
            with pytest.raises(DecodeError, match="buffers"):
                decode(PICKLE, buffers[:count])

    @pytest.mark.parametrize("number", sorted(codec.PICKLES))
    def test_a_pickle_from_who_may_send_data_only(self, number: int) -> None:
        """It is not touched: its bytes are kept, and the error says why."""
        _, buffers = encode(Calls(pytest.fail, "it was decoded"))
        size = sum(map(len, buffers))
        text = rf"^the contents \({codec.NAMES[number]}, {size} bytes\) would run code .*codec json, .* data only$"
        with pytest.raises(DecodeError, match=text) as caught:
            decode(WITHHELD + number, buffers)
        assert caught.value.buffers is buffers
        assert caught.value.__cause__ is None

    def test_no_number_of_the_wire_is_withheld(self) -> None:
        """The numbers of withheld contents are out of the reach of a peer, who has one byte."""
        _, buffers = encode([1])
        for number in range(256):
            if number not in codec.NAMES:
                with pytest.raises(DecodeError, match=f"codec {number} is not known here"):
                    decode(number, buffers)
        assert min(WITHHELD + number for number in codec.PICKLES) > 255

    def test_an_unknown_codec(self) -> None:
        """Its number and the known ones are named, and the bytes kept."""
        buffers = [bytearray(b"from the future")]
        with pytest.raises(
            DecodeError, match=r"codec 77 is not known here; known are 0 \(raw\), 1 \(pickle\)"
        ) as caught:
            decode(77, buffers)  # type: ignore[arg-type]
        assert caught.value.buffers is buffers
