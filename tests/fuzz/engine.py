"""One target under atheris, in a process of its own: `python -m tests.fuzz.engine TARGET [what libFuzzer takes]`.

The only module that needs atheris. What is looked at is imported under its eyes, so nothing of it may be imported here.
"""

import importlib
import random
import sys
from tempfile import NamedTemporaryFile

import atheris


def main(name):
    """Fuzz a target until libFuzzer has enough."""
    packages = ["tasklink", "tasklink_pipe", "tasklink_shm", "tasklink_zmq", "tomllib"]
    with atheris.instrument_imports(include=packages):
        target = importlib.import_module(f"tests.fuzz.{name}")

    def mutate(data, size, seed):
        chance = random.Random(seed)
        mutant = atheris.Mutate(data, size)
        return target.mend(mutant, chance)[:size] if chance.randrange(4) else mutant

    with NamedTemporaryFile("w", suffix=".dict") as words:
        for token in target.TOKENS:
            words.write('"' + "".join(map(r"\x{:02x}".format, token)) + '"\n')
        words.flush()
        atheris.Setup([*sys.argv, f"-dict={words.name}"], target.check, custom_mutator=mutate)
        atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv.pop(1))
