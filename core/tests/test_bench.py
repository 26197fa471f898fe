"""What `tasklink bench` stands on: visits to real processes, what is measured, and what is made of it."""

from __future__ import annotations

import fcntl
import time
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasklink.bench import picture
from tasklink.bench.advice import ABOUT_AS_FAST, advise
from tasklink.bench.item import ASK, SERVE, as_array, look_at, make_array
from tasklink.bench.machine import describe, machine_facts
from tasklink.bench.session import Bench, Tally
from tasklink.bench.statistic import median, percentile
from tasklink.bench.visit import Entrant, Outcome, Visit, carry_out

if TYPE_CHECKING:
    from tasklink.guardian import Guardian

TASKS = Path(__file__).parent / "tasks"
FREE = {"placement": "free"}
ORDERS = [{"key": f"order {number}", "value": number, **FREE} for number in (1, 2, 3)]


@pytest.fixture
def visit(guardian: Guardian, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Visit one of the contenders that misbehave."""
    monkeypatch.syspath_prepend(TASKS)

    def visit(name: str, seconds: float = 30.0) -> list[Outcome]:
        entrant = Entrant(name.lower(), f"contenders:{name}", str(tmp_path / "lock"))
        return carry_out(Visit(entrant, ORDERS, seconds), guardian)

    return visit


class TestVisits:
    """Whatever a contender does, there is an outcome for each order, and nobody is left behind."""

    def test_orders_are_carried_out(self, visit: Any) -> None:
        """What it prints meanwhile is not taken for an answer."""
        assert visit("Steady") == [Outcome("steady", f"order {n}", {"value": n}) for n in (1, 2, 3)]

    def test_hanging(self, visit: Any, tmp_path: Path) -> None:
        """Who hangs is ended at the deadline, with its children; what came before counts."""
        begun = time.monotonic()
        first, *others = visit("Hanging", seconds=1.5)
        assert time.monotonic() - begun < 10
        assert first.values == {"value": 1}
        assert [outcome.reason for outcome in others] == ["it was ended after 2 s"] * 2
        with (tmp_path / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # waits until both have let go of it

    def test_dying(self, visit: Any) -> None:
        """Who dies is quoted."""
        first, *others = visit("Dying")
        assert first.values == {"value": 1}
        assert [outcome.reason for outcome in others] == ["its process ended: the cable is cut"] * 2

    def test_refusing(self, visit: Any) -> None:
        """Who does not do one thing does the others."""
        assert [outcome.reason for outcome in visit("Choosy")] == ["", "not this one", ""]

    def test_failing(self, visit: Any) -> None:
        """What it raises is the reason."""
        assert {outcome.reason for outcome in visit("Failing")} == {"OSError: no more room"}

    def test_absent(self, visit: Any) -> None:
        """Who needs what is not installed is not even started."""
        first, *_ = visit("Absent")
        assert first.reason == "semaphore_alphabet is not installed"


class TestItems:
    """What is measured, in small."""

    def test_every_item_over_a_communicator(self, guardian: Guardian) -> None:
        """Each item gives figures that can be: times and rates above zero, memory as large as the array."""
        pytest.importorskip("tasklink_unix", reason="a communicator is needed")
        size = 8 << 20
        orders: list[dict[str, Any]] = [
            {"key": item, "item": item, "count": 4, "warm": 1, "bytes": size, **FREE} for item in ASK
        ]
        outcomes = carry_out(Visit(Entrant("unix", "tasklink.bench.ours:CommunicatorWire", "unix"), orders), guardian)
        values = {outcome.key: outcome.values for outcome in outcomes}
        reasons = {outcome.key: outcome.reason for outcome in outcomes if outcome.reason}
        assert set(reasons) <= {"handovers"}
        for item in ("round_trips", "messages", "busy_writes", "stream", "transfers"):
            assert all(value > 0 for value in values[item].values()), item
        assert values["round_trips"]["median_us"] <= values["round_trips"]["p99_us"]
        # The memory that the item before has used may still be there, and be used again.
        assert 0 <= values["memory"]["receiver_private_x"] < 1.5
        assert values["memory"]["receiver_shared_x"] < 0.1

    def test_every_item_of_a_run(self, guardian: Guardian) -> None:
        """Tasks and captured output."""
        pytest.importorskip("tasklink_unix", reason="a communicator is needed")
        orders = [
            {"key": "noop", "item": "noop", "count": 1, **FREE},
            {"key": "first_message", "item": "first_message", "count": 1, **FREE},
            {"key": "at_once", "item": "at_once", "count": 2, "parallel": 2, **FREE},
            {"key": "capture", "item": "capture", "lines": 1000, **FREE},
        ]
        outcomes = carry_out(Visit(Entrant("unix", "tasklink.bench.ours:Runs", "unix"), orders), guardian)
        for outcome in outcomes:
            assert not outcome.reason
            assert all(value > 0 for value in outcome.values.values())

    def test_both_halves(self) -> None:
        """What can be asked can be served."""
        assert set(ASK) == set(SERVE)

    @pytest.mark.parametrize("size", [2, 8, 1000, 4096, 1 << 20, (1 << 20) + 3])
    def test_arrays_are_looked_at(self, size: int) -> None:
        """One that came whole passes; one that is too short, or ends in something else, does not."""
        look_at(make_array(size), size)
        with pytest.raises(ValueError, match="not the same"):
            look_at(make_array(size), size + 1)
        with pytest.raises(ValueError, match="not the same"):
            look_at(as_array(bytearray(b"\1" * (size - 1) + b"\0")), size)


class TestStatistic:
    """Many values to few."""

    @given(st.lists(st.floats(-1e9, 1e9), min_size=1))
    def test_median(self, values: list[float]) -> None:
        """At least half of the values are on either side of it."""
        middle = median(values)
        assert sum(value <= middle for value in values) * 2 >= len(values)
        assert sum(value >= middle for value in values) * 2 >= len(values)

    @given(st.lists(st.integers(), min_size=1), st.integers(1, 100))
    def test_percentile(self, values: list[int], percent: int) -> None:
        """It is one of the values, so many of a hundred do not exceed it, and no smaller one would do."""
        found = percentile(values, percent)
        assert found in values
        assert sum(value <= found for value in values) * 100 >= percent * len(values)
        assert sum(value < found for value in values) * 100 < percent * len(values)


NAMES = st.lists(st.sampled_from(["pipe", "unix", "shm", "zmq"]), min_size=1, unique=True)
SIZES = st.lists(st.sampled_from([256, 4096, 65536, 1 << 20, 1 << 24]), min_size=1, unique=True)
TIMES = st.floats(1.0, 1e6)


@st.composite
def measured(draw: st.DrawFn) -> tuple[dict[str, float], dict[str, dict[int, float]]]:
    """Draw what may have been measured."""
    names, sizes = draw(NAMES), draw(SIZES)
    return {name: draw(TIMES) for name in names}, {name: {size: draw(TIMES) for size in sizes} for name in names}


class TestAdvice:
    """Which protocol for what."""

    @given(measured())
    def test_it_follows_from_the_values(self, values: Any) -> None:
        """The one for small messages is about as fast as the fastest; the other one is the better one when advised."""
        trips, transfers = values
        advice = advise(trips, transfers)
        assert trips[advice.small] <= ABOUT_AS_FAST * min(trips.values())
        if advice.beyond is None:
            assert advice.large == advice.small
            return
        beyond = [size for size in transfers[advice.small] if size > advice.beyond]
        for size in beyond:
            assert transfers[advice.large][size] * ABOUT_AS_FAST < transfers[advice.small][size]

    @given(measured())
    def test_the_order_does_not_matter(self, values: Any) -> None:
        """Who was measured first is no better."""
        trips, transfers = values
        backwards = dict(reversed(trips.items())), dict(reversed(transfers.items()))
        assert advise(trips, transfers) == advise(*backwards)


class TestSession:
    """What is visited, and what came of it."""

    @pytest.mark.parametrize(
        ("largest", "sizes"),
        [(1, [65536]), (65536, [65536]), (100_000, [65536, 100_000]), (1 << 20, [65536, 1 << 18, 1 << 20])],
    )
    def test_sizes(self, largest: int, sizes: list[int]) -> None:
        """From the smallest up to the one that was asked for."""
        assert Bench(["unix"], largest=largest).sizes == sizes

    def test_tally(self) -> None:
        """Medians of the rounds; a reason where there is no value."""
        tally = Tally()
        for value in (3.0, 1.0, 2.0):
            tally.add(Outcome("unix", "messages", {"per_s": value}))
        tally.add(Outcome("unix", "stream", reason="it broke"))
        assert tally.median("unix", "messages", "per_s") == 2
        assert tally.median("unix", "stream", "gb_per_s") is None
        assert tally.reason("unix", "stream") == "it broke"
        assert tally.values("unix") == {"messages": {"per_s": {"median": 2.0, "rounds": [3.0, 1.0, 2.0]}}}

    def test_machine(self) -> None:
        """The facts without which figures say nothing."""
        facts = machine_facts()
        packages = facts["packages"]
        assert isinstance(packages, dict)
        assert "tasklink" in packages
        assert str(facts["python"]) in describe(facts)


class TestPicture:
    """The picture. Whether it is good is for people to see; that there is one is checked."""

    def test_it_is_drawn(self, tmp_path: Path) -> None:
        """With communicators, peers and the limit; also of who has a part of the values only."""
        pytest.importorskip("matplotlib", reason="it is an extra: tasklink[plot]")
        sizes = {65536: 100.0, 1 << 20: 800.0}
        curves = [
            picture.Curve("unix", picture.OURS, sizes, {65536: 2.0, 1 << 20: 3.0}),
            picture.Curve("multiprocessing.Pipe", picture.PEER, sizes, {}),
            picture.Curve("memcpy", picture.LIMIT, {65536: 2.0}, {65536: 40.0}),
        ]
        for ending in ("png", "svg"):
            path = tmp_path / f"picture.{ending}"
            picture.draw(curves, path, "title", "note")
            assert path.stat().st_size > 1000

    @given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
    def test_names_do_not_cover_each_other(self, heights: list[float]) -> None:
        """They are moved apart, stay in order, and stay inside."""
        wanted = {str(number): height for number, height in enumerate(heights)}
        placed = picture.spread(wanted, gap=0.05)
        ordered = sorted(placed.values())
        assert all(later - earlier > 0.0499 for earlier, later in pairwise(ordered))
        assert ordered[0] > -1e-5
        assert ordered[-1] < 1 + 1e-5
        by_place = sorted(placed, key=lambda name: placed[name])
        assert [wanted[name] for name in by_place] == sorted(heights)
