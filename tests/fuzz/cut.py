"""The same bytes, cut: what a target makes of the whole it must make of any cut of it."""

import random
import zlib


def chance_of(data):
    """A `random.Random` that is drawn from the data, so that a finding is found again."""
    return random.Random(zlib.crc32(data))


def cut(data, chance):
    """Cut the data into chunks: at a few places, or now and then after every byte."""
    if len(data) <= 200 and chance.randrange(8) == 0:
        return [data[place : place + 1] for place in range(len(data))]
    places = sorted({chance.randrange(len(data) + 1) for _ in range(chance.choice([1, 2, 9]))} - {0, len(data)})
    return [data[begin:end] for begin, end in zip([0, *places], [*places, len(data)], strict=True) if begin < end]
