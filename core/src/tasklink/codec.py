"""Objects to buffers and back.

Contents as bytes are a list of buffers: the body first, then whatever the body refers to out of band. Arrays, and all
else that offers its memory (PEP 574), are not copied into the body: the buffer *is* their memory, and on the other
side they own the memory that the transport read into.

Codecs, by their number on the wire:

    RAW          bytes as they are: one buffer is a `bytes` object, several are a tuple of them
    PICKLE       pickle protocol 5 with out-of-band buffers; the default between an Executor and its own Tasks
    CLOUDPICKLE  a pickle that needs cloudpickle to be read; made only where plain pickle refuses
    JSON         data only, for peers that are not trusted or not Python

Decoding a pickle runs code of the sender's choice. It happens in `decode` and nowhere else, when the one who reads asks
for the contents; the loops that move messages never call it.

This module does no I/O. It is part of the Task side; `_pickle` (which `pickle` wraps) is imported for itself because
`pickle` costs a starting Task 4 ms, most of them for `re`.
"""

from __future__ import annotations

try:
    from _pickle import PickleBuffer, dumps, loads  # type: ignore[import-not-found,unused-ignore]
except ImportError:  # an interpreter without the C accelerator
    from pickle import PickleBuffer, dumps, loads

from io import BytesIO

from tasklink.errors import DecodeError, EncodeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, Union

    Buffer = Union[bytes, bytearray, memoryview]

RAW = 0
PICKLE = 1
CLOUDPICKLE = 2
JSON = 3

PICKLES = frozenset({PICKLE, CLOUDPICKLE})

NAMES = {RAW: "raw", PICKLE: "pickle", CLOUDPICKLE: "cloudpickle", JSON: "json"}

# A smaller buffer costs more as an entry of its own (table, iovec, allocation) than as part of the body.
OUT_OF_BAND = 4096
# The wire allows this many and the body; what is beyond stays in the body.
MOST_OUT_OF_BAND = (1 << 16) - 1

# The opcode behind every name in a pickle of protocol 5. To look for one byte first costs a small message 0.03 us, for
# a word 0.18 us.
_STACK_GLOBAL = 0x93

# Copied at a time, with the interpreter's lock held: up to 10 ms, where the memory is new.
_SLICE = 4 << 20

# How far into a pickle the class that is missing is looked for.
_SEARCHED_BYTES = 1 << 20


# Added to the number of a codec, out of the reach of the wire's one byte: the contents are not to be decoded here;
WITHHELD = 0x100
# and so many times this: they are to be decoded if their lists and dicts lie only so deep in one another.
PER_LEVEL = 0x200


def decode(codec: int, buffers: list[Buffer]) -> object:
    """Turn buffers back into an object.

    Args:
        codec: the number of the codec that made them.
        buffers: the body, then the out-of-band buffers; each one is contiguous bytes.

    Raises:
        DecodeError: the codec is not known, or the bytes are not what it makes, or something that they refer to
            is missing here; or they are withheld, or nested deeper than was allowed.
    """
    try:
        if codec == PICKLE and len(buffers) == 1:  # nearly every message
            return loads(buffers[0])
        decoder = _DECODERS.get(codec)
        if decoder is not None:
            return decoder(buffers)
        if codec >= PER_LEVEL:
            _check_depth(buffers, codec // PER_LEVEL)
            return _from_json(buffers)
    except DecodeError:
        raise
    # Unpickling runs foreign code, so anything may come out, SystemExit too. KeyboardInterrupt is not caught:
    # it is the user's own.
    except (Exception, SystemExit) as error:
        raise DecodeError(_reason(codec, buffers, error), buffers) from error
    raise _no_decoder(codec, buffers)


def _no_decoder(codec: int, buffers: list[Buffer]) -> DecodeError:
    if codec >= WITHHELD:
        return DecodeError(
            f"the contents ({NAMES[codec - WITHHELD]}, {sum(map(len, buffers))} bytes) would run code when they are "
            "decoded; codec json, which was chosen for this Task, allows data only",
            buffers,
        )
    known = ", ".join(f"{number} ({name})" for number, name in NAMES.items())
    return DecodeError(f"codec {codec} is not known here; known are {known}", buffers)


def encode(contents: object, codec: int = PICKLE) -> tuple[int, list[Buffer]]:
    """Turn an object into buffers: the number of the codec that was used, and the buffers that `decode` takes.

    `bytes` go as they are under every codec. With PICKLE, what plain pickle refuses (lambdas, local classes)
    and what the other side could not find (classes of `__main__`) goes through cloudpickle, where it is installed.

    Raises:
        EncodeError: the codec cannot express the object.
    """
    if codec == JSON or type(contents) is bytes:
        return (RAW, [contents]) if type(contents) is bytes else (JSON, [_to_json(contents)])
    buffers: list[Buffer] = [b""]
    try:
        buffers[0] = body = dumps(contents, 5, buffer_callback=_keeper(buffers))
    except Exception as error:
        if not _is_refusal(error, contents):
            raise
        return _cloudpickled(contents, error)
    # Whatever is in __main__ is pickled by name, but our __main__ is not the peer's. A text that happens to hold
    # the word only costs time: cloudpickle gives the same object.
    if _STACK_GLOBAL in body and b"__main__" in body:
        return _cloudpickled(contents, None)
    return PICKLE, buffers


def _is_refusal(error: Exception, contents: object) -> bool:
    """Whether it is the object that cannot be pickled; else it was a signal handler that raised, in our midst.

    What pickle itself raises comes from no frame below ours. `__reduce__` of any class may raise anything, and again.
    """
    traceback = error.__traceback__
    if traceback is None or traceback.tb_next is None:
        return True
    try:
        dumps(contents, 5, buffer_callback=_keeper([b""]))
    except Exception:  # noqa: BLE001 - as above
        return True
    return False


def _cloudpickled(contents: object, refusal: Exception | None) -> tuple[int, list[Buffer]]:
    buffers: list[Buffer] = [b""]
    try:
        from cloudpickle import dumps as cloud_dumps  # noqa: PLC0415 - rare, and absent in most Tasks
    except ImportError:
        if refusal is None:
            buffers[0] = dumps(contents, 5, buffer_callback=_keeper(buffers))
            return PICKLE, buffers
        raise EncodeError(
            f"{_type_name(contents)} cannot be pickled: {_text(refusal)}. "
            "Send plain data, or install cloudpickle on both sides for functions and local classes."
        ) from refusal
    try:
        buffers[0] = cloud_dumps(contents, 5, buffer_callback=_keeper(buffers))
    except Exception as error:
        raise EncodeError(
            f"{_type_name(contents)} cannot be pickled: {_text(error)}. Send plain data instead."
        ) from error
    return CLOUDPICKLE, buffers


def _keeper(buffers: list[Buffer]) -> Callable[[PickleBuffer], bool]:
    """Make the function that takes the buffers of a pickle behind its body, and leaves small ones where they are."""

    def keep_in_band(buffer: PickleBuffer) -> bool:
        view = buffer.raw()
        if len(view) < OUT_OF_BAND or len(buffers) > MOST_OUT_OF_BAND:
            return True
        buffers.append(view)
        return False

    return keep_in_band


def _to_json(contents: object) -> bytes:
    import json  # noqa: PLC0415 - 4 ms of start-up that only users of this codec pay

    try:
        return json.dumps(contents, allow_nan=False, separators=(",", ":")).encode()
    except Exception as error:  # items() of any dict may raise anything
        raise EncodeError(
            f"{_type_name(contents)} cannot be sent with codec json: {_text(error)}. "
            "It carries None, bool, finite numbers, str, lists and dicts of these, and bytes on their own."
        ) from error


def copied(buffer: Buffer) -> bytes:
    """Make bytes of a buffer: a large one in slices, between which other threads run, or signals would wait for it."""
    if len(buffer) <= _SLICE or type(buffer) is bytes:
        return bytes(buffer)
    memory = BytesIO(bytes(len(buffer)))  # whose memory is that of these zeros, which take none
    with memory.getbuffer() as target, memoryview(buffer) as source:
        for begin in range(0, len(buffer), _SLICE):
            target[begin : begin + _SLICE] = source[begin : begin + _SLICE]
    return memory.getvalue()


def _from_raw(buffers: list[Buffer]) -> bytes | tuple[bytes, ...]:
    if len(buffers) == 1:
        return copied(buffers[0])
    return tuple(map(copied, buffers))


def _from_pickle(buffers: list[Buffer]) -> object:
    return loads(buffers[0], buffers=buffers[1:]) if len(buffers) > 1 else loads(buffers[0])


def _from_json(buffers: list[Buffer]) -> object:
    import json  # noqa: PLC0415 - as above

    # As text: from bytes, json would guess the encoding, and import what decodes it at the word of the peer.
    return json.loads(str(buffers[0], "utf-8"))


def _check_depth(buffers: list[Buffer], deepest: int) -> None:
    """See how deep it goes before it is parsed: a parser that calls itself may run out of stack.

    Only the brackets matter, and only those outside of texts. What is no JSON has a depth, too.
    """
    from itertools import accumulate  # noqa: PLC0415 - for this only

    body = bytes(buffers[0]).replace(b"\\\\", b"").replace(b'\\"', b"")  # quotes that are left begin or end a text
    marks = body.translate(_STEPS, _NEITHER_STEP_NOR_QUOTE).replace(b'""', b"")
    steps = b"".join(marks.split(b'"')[::2])
    depth = max(accumulate(memoryview(steps).cast("b")), default=0)
    if depth > deepest:
        raise DecodeError(
            f"the contents (json, {len(buffers[0])} bytes) are nested {depth} deep; the limit is {deepest}, "
            "`limits.depth` of the Task",
            buffers,
        )


# One step down for what opens a list or a dict, one up for what closes it: 1 and -1, as signed bytes.
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
_NEITHER_STEP_NOR_QUOTE = bytes(byte for byte in range(256) if byte not in b'[]{}"')

_DECODERS: dict[int, Callable[[list[Buffer]], object]] = {
    RAW: _from_raw,
    PICKLE: _from_pickle,
    CLOUDPICKLE: _from_pickle,
    JSON: _from_json,
}


def _reason(codec: int, buffers: list[Buffer], error: BaseException) -> str:
    """Say what is missing: the text of a DecodeError."""
    name = NAMES[codec % WITHHELD]
    if isinstance(error, ModuleNotFoundError) and error.name:
        wanted = _wanted_of(error.name, buffers[0])
        if wanted is None:
            return f"the contents ({name}) need the module {error.name!r}, which cannot be imported here"
        return f"the contents ({name}) need {wanted}, but the module {error.name!r} cannot be imported here"
    if isinstance(error, AttributeError):
        return f"the contents ({name}) need something that is not defined here: {_text(error)}"
    size = sum(map(len, buffers))
    return f"the contents ({name}, {size} bytes) cannot be decoded: {type(error).__name__}: {_text(error)}"


def _wanted_of(module: str, body: Buffer) -> str | None:
    """Find which class or function of a missing module a pickle wants; None when it cannot be told."""
    from pickletools import genops  # noqa: PLC0415 - for the text of an error only

    texts: list[str] = []  # as they were pushed; the last two before a STACK_GLOBAL are a module and a name in it
    memo: list[str] = []
    try:
        for opcode, argument, _position in genops(bytes(body[:_SEARCHED_BYTES])):
            if isinstance(argument, str):
                texts.append(argument)
            elif opcode.name == "MEMOIZE":
                memo.append(texts[-1] if texts else "")
            elif opcode.name.endswith("BINGET"):
                texts.append(memo[argument or 0])
            elif opcode.name == "STACK_GLOBAL" and f"{texts[-2]}.".startswith(f"{module}."):
                return f"{texts[-2]}.{texts[-1]}"
    except (ValueError, IndexError):
        pass  # it is longer than what is searched, or written by other rules than Python's own
    return None


def _text(error: BaseException) -> str:
    try:
        return str(error)
    # The error may be of a class that came with the pickle.
    except Exception:  # noqa: BLE001
        return f"(its text cannot be shown: {type(error).__name__})"


def _type_name(contents: object) -> str:
    kind = type(contents)
    return f"an object of type {kind.__module__}.{kind.__qualname__}"
