"""What the tests of ZeroMQ need where the settings of the workspace are not: they also run from the wheel."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Say what a long run is."""
    config.addinivalue_line("markers", "soak: long runs, by hand: pytest -m soak")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave long runs out when nobody has said which tests are meant."""
    if not config.option.markexpr:
        items[:] = [item for item in items if item.get_closest_marker("soak") is None]
