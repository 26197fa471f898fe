"""tasklink beside its peers, in one run: `python -m tests.benchmarks --help`.

Everything is measured in rounds, in which all take turns, each time between two processes that were just started. A
peer that is not installed is left out, and that is said: `uv sync --group bench` installs them all.
"""


def main():
    """Measure, and print."""
    # Here, not above: who spawns processes imports this module in them again.
    from tests.benchmarks.command import run

    run()


if __name__ == "__main__":
    main()
