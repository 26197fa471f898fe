"""What the targets know of the wire: how to mend the numbers of a frame, so that mutants of it get past its head."""

from tasklink.framing import HEAD, MAGIC, MESSAGE, PIECE, PREFIX, START, VERSION

_MOST_BUFFERS = 8


def mend(data, chance):
    """Make the bytes a stream of frames whose numbers agree, and leave one frame in eight as it is.

    Args:
        data: frames as they were before bytes of them were changed, moved, put in or left out.
        chance: a `random.Random`.
    """
    stream = bytearray(data)
    begin = 0
    missing = 0  # of the message that is in pieces
    while begin + PREFIX.size < len(stream):
        end, missing = _mend_frame(stream, begin, missing, chance)
        begin = end
    return bytes(stream)


def _mend_frame(stream, begin, missing, chance):
    """Mend the frame that begins there; gives where it ends, and what is missing then of the message in pieces."""
    if chance.randrange(8) == 0:
        return _next(stream, begin + 2), missing
    _, _, kind, rank, _ = PREFIX.unpack_from(stream, begin)
    end = _next(stream, begin + 2)
    kind = kind if kind in (MESSAGE, START, PIECE) else MESSAGE + kind % 3
    head = begin + PREFIX.size
    if kind == PIECE:
        length = max(0, min(end - head, missing))
        PREFIX.pack_into(stream, begin, MAGIC, VERSION, kind, rank, length)
        return max(head + length, begin + 1), missing - length
    if len(stream) < head + HEAD.size + 8:
        return len(stream), missing
    sequence, after, sent_ns, codec, flags, signal, extension, count = HEAD.unpack_from(stream, head)
    count = count if 0 < count <= _MOST_BUFFERS else 1 + count % _MOST_BUFFERS
    room = max(0, end - head - HEAD.size - 8 * count)
    signal, extension = min(signal, room), min(extension, max(0, room - signal))
    table = head + HEAD.size + signal + extension
    payload = max(0, end - table - 8 * count)
    if kind == START:
        payload = chance.choice([0, 1, 17, 300, 70_000])
    HEAD.pack_into(stream, head, sequence, after, sent_ns, codec & 3, flags, signal, extension, count)
    stream.extend(bytes(max(0, table + 8 * count - len(stream))))
    for number in range(count):
        length = payload if number == count - 1 else chance.randrange(payload + 1)
        payload -= length
        stream[table + 8 * number : table + 8 * number + 8] = length.to_bytes(8, "little")
    body = table + 8 * count
    total = sum(int.from_bytes(stream[place : place + 8], "little") for place in range(table, body, 8))
    in_frame = total if kind == MESSAGE else 0
    PREFIX.pack_into(stream, begin, MAGIC, VERSION, kind, rank, body - head + in_frame)
    return body + in_frame, total if kind == START else missing


def _next(stream, begin):
    """Where the next frame seems to begin."""
    found = stream.find(MAGIC, begin)
    return found if found >= 0 else len(stream)
