"""Latency and bandwidth over size, drawn: the picture by which a person chooses a protocol.

Only this file imports matplotlib, which comes with the extra `tasklink[plot]`; not pyplot, which looks for a screen.

Communicators are thick and coloured, in colours that the colour-blind can tell apart (Okabe and Ito); others who were
measured are thin and grey; the copying of memory is a dashed line: no one who copies gets beyond it. Names stand at the
ends of the lines, moved apart where they would cover each other.
"""

from __future__ import annotations

from math import log2
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import attrs

from tasklink.bench.advice import spell_size

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

OURS, PEER, LIMIT = "ours", "peer", "limit"

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = "os^Dv<"
_PEER_COLOUR = "#7A7A7A"
_LIMIT_COLOUR = "#9A9A9A"
_POINTS = {OURS: 9.5, PEER: 7.0, LIMIT: 8.5}

# Of the figure, in inches; and of its width, the edge with the ticks and the gap between a line and its name.
_WIDTH, _HEIGHT = 12.0, 5.8
_EDGE, _GAP = 0.062, 0.032


@attrs.frozen
class Curve:
    """One who was measured.

    Attributes:
        name: as it stands at the line.
        kind: OURS, PEER or LIMIT.
        latency: by size in bytes, microseconds from sending to having, one way.
        bandwidth: by size in bytes, GB/s of many, one after the other.
    """

    name: str
    kind: str
    latency: Mapping[int, float]
    bandwidth: Mapping[int, float]


def draw(curves: Sequence[Curve], path: Path, title: str, note: str) -> None:
    """Draw curves into a file; its ending says which format.

    Args:
        curves: who was measured.
        path: where to put the picture.
        title: what stands above it.
        note: what stands below it: where it was measured.

    Raises:
        OSError: the file cannot be written.
        ValueError: matplotlib does not know that ending.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - optional, and half a second

    figure = Figure(figsize=(_WIDTH, _HEIGHT), dpi=150)
    figure.text(_EDGE, 0.935, title, fontsize=14, fontweight="bold")
    figure.text(_EDGE, 0.025, "\n".join(wrap(note, 190)), fontsize=7, color="#555555", linespacing=1.4)
    names = max((len(curve.name) * (_POINTS[curve.kind] / 72) * 0.7 for curve in curves), default=0.0) / _WIDTH
    width = (1 - 2 * (_EDGE + _GAP + names)) / 2
    left = figure.add_axes((_EDGE, 0.165, width, 0.645))
    right = figure.add_axes((1 - _GAP - names - width, 0.165, width, 0.645))
    styles = _styles(curves)
    _panel(left, {curve.name: curve.latency for curve in curves}, styles)
    _panel(right, {curve.name: curve.bandwidth for curve in curves}, styles)
    left.set_title(
        "Latency: from the call that sends to having the contents\n(one at a time; lower is better)", **_HEAD
    )
    right.set_title(
        "Bandwidth: many large results, one after the other\n(the first, slower ones included; higher is better)",
        **_HEAD,
    )
    left.yaxis.set_major_formatter(lambda value, _: _spell_tick(value))
    right.yaxis.set_major_formatter(lambda value, _: f"{value:g} GB/s")
    figure.savefig(path)


_HEAD: dict[str, Any] = {"fontsize": 9.5, "loc": "left", "pad": 10}


@attrs.frozen
class _Style:
    """How a line and its name are drawn."""

    line: dict[str, Any]
    points: float
    weight: str = "normal"


def _styles(curves: Sequence[Curve]) -> dict[str, _Style]:
    ours = [curve.name for curve in curves if curve.kind == OURS]
    styles = {}
    for curve in curves:
        points = _POINTS[curve.kind]
        if curve.kind == OURS:
            number = ours.index(curve.name)
            line: dict[str, Any] = {
                "color": _COLOURS[number % len(_COLOURS)],
                "marker": _MARKERS[number % len(_MARKERS)],
                "linewidth": 2.4,
                "markersize": 5.5,
                "zorder": 3,
            }
            styles[curve.name] = _Style(line, points, "bold")
        elif curve.kind == LIMIT:
            line = {"color": _LIMIT_COLOUR, "linewidth": 1.2, "linestyle": (0, (4, 3)), "zorder": 2}
            styles[curve.name] = _Style(line, points)
        else:
            styles[curve.name] = _Style({"color": _PEER_COLOUR, "linewidth": 0.7, "zorder": 1}, points)
    return styles


def _panel(axes: Axes, lines: Mapping[str, Mapping[int, float]], styles: Mapping[str, _Style]) -> None:
    lines = {name: dict(sorted(values.items())) for name, values in lines.items() if values}
    for name, values in lines.items():
        axes.plot(list(values), list(values.values()), **styles[name].line)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    sizes = sorted({size for values in lines.values() for size in values})
    axes.set_xticks(apart(sizes))
    axes.minorticks_off()
    axes.xaxis.set_major_formatter(lambda value, _: spell_size(int(value)))
    axes.tick_params(labelsize=8.5, length=3, color="#AAAAAA")
    axes.set_xlabel("size of what is sent", fontsize=9)
    axes.grid(visible=True, which="major", color="#E4E4E4", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    _set_decades(axes, [value for values in lines.values() for value in values.values()])
    _label_ends(axes, lines, styles, end=max(sizes, default=1))


def apart(sizes: Sequence[int], most: int = 6) -> list[int]:
    """Choose which sizes have a tick, so that their labels do not touch: the largest one has.

    >>> apart([256, 4 << 10, 64 << 10, 1 << 20, 16 << 20, 64 << 20])
    [67108864, 1048576, 65536, 4096, 256]
    """
    chosen: list[int] = []
    for size in reversed(sizes):
        if not chosen or log2(chosen[-1] / size) >= log2(sizes[-1] / sizes[0]) / most:
            chosen.append(size)
    return chosen


def _set_decades(axes: Axes, values: Sequence[float]) -> None:
    """Put ticks at 1, 2 and 5 of each decade that there is, where they are few decades; else at the decades."""
    from matplotlib.ticker import LogLocator  # noqa: PLC0415 - see `draw`

    if not values:
        return
    low, high = min(values), max(values)
    axes.set_ylim(low / 1.35, high * 1.35)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 5000 else (1,)))


def _label_ends(axes: Axes, lines: Mapping[str, Mapping[int, float]], styles: Mapping[str, _Style], end: int) -> None:
    """Write each name to the right of its line, and draw a thin line to it where it had to be moved."""
    wanted = {name: _height(axes, end, list(values.values())[-1]) for name, values in lines.items()}
    most = max((styles[name].points for name in lines), default=1)
    gap = 1.3 * most / (axes.get_position().height * _HEIGHT * 72)
    for name, height in spread(wanted, min(gap, 1.0 / max(1, len(wanted) - 1))).items():
        style = styles[name]
        axes.annotate(
            name,
            xy=list(lines[name].items())[-1],
            xytext=(1 + (_GAP - 0.006) / axes.get_position().width, height),
            textcoords="axes fraction",
            verticalalignment="center",
            fontsize=style.points,
            fontweight=style.weight,
            color=style.line["color"],
            arrowprops={
                "arrowstyle": "-",
                "color": style.line["color"],
                "linewidth": 0.5,
                "alpha": 0.7,
                "relpos": (0, 0.5),
                "shrinkA": 1,
                "shrinkB": 3,
            },
            annotation_clip=False,
        )


def _height(axes: Axes, size: float, value: float) -> float:
    """Say how high a point is within its panel, from 0 to 1."""
    return float(axes.transLimits.transform(axes.transScale.transform((size, value)))[1])


def _spell_tick(microseconds: float) -> str:
    for factor, unit in ((1.0, "µs"), (1e3, "ms")):
        if microseconds < factor * 999.5:
            return f"{microseconds / factor:g} {unit}"
    return f"{microseconds / 1e6:g} s"


def spread(wanted: Mapping[str, float], gap: float) -> dict[str, float]:
    """Move positions apart as little as needed, keeping their order and staying between 0 and 1.

    >>> spread({"a": 0.5, "b": 0.5, "c": 0.9}, gap=0.2)
    {'a': 0.4, 'b': 0.6, 'c': 0.9}
    >>> spread({"low": 0.55, "a": 1.0, "b": 1.0, "c": 1.0}, gap=0.2)
    {'low': 0.4, 'a': 0.6, 'b': 0.8, 'c': 1.0}
    """
    # Neighbours that are too close become a group, which is centred on where its members want to be, as far as there
    # is room; groups that then touch are joined.
    groups: list[tuple[list[str], float]] = []
    for name in sorted(wanted, key=lambda name: wanted[name]):
        groups.append(_group([name], wanted, gap))
        while len(groups) > 1 and _bottom(groups[-1], gap) - _top(groups[-2], gap) < gap - 1e-9:
            groups[-2:] = [_group(groups[-2][0] + groups[-1][0], wanted, gap)]
    return {
        name: round(_bottom(group, gap) + index * gap, 6) for group in groups for index, name in enumerate(group[0])
    }


def _group(names: list[str], wanted: Mapping[str, float], gap: float) -> tuple[list[str], float]:
    """Put neighbours together: their names, and where the middle of them is."""
    half = (len(names) - 1) * gap / 2
    centre = sum(wanted[name] for name in names) / len(names)
    return names, min(max(centre, half), max(half, 1 - half))


def _bottom(group: tuple[list[str], float], gap: float) -> float:
    return group[1] - (len(group[0]) - 1) * gap / 2


def _top(group: tuple[list[str], float], gap: float) -> float:
    return group[1] + (len(group[0]) - 1) * gap / 2
