"""Columns of figures -> drawings: paths of inline SVG and the places of what is written beside them.

A drawing is a square of 1,000 units that the page stretches to any width (`preserveAspectRatio="none"`, strokes that do
not scale), so it needs no script, prints, and fits a telephone; what is written on it stands beside it in HTML, at
places given in percent. A path of zero length with round ends is a dot.

Of many points those stay that can be seen: in each column of pixels the first, the last, the lowest and the highest.
"""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

SIDE = 1000  # units of a drawing
COLUMNS, LOG_COLUMNS = 600, 250  # of pixels, along a linear and a logarithmic axis
EARLY = 0.03  # share of the steps whose steep fall may leave the drawing at its top
FEW = 12  # points of which none may
MARGIN = 0.06  # of the range, above and below


def columns_of(places: Sequence[float], count: int) -> list[int]:
    """Return the column of pixels of each place along an axis that reaches from the lowest to the highest of them.

    >>> columns_of([0, 1, 9, 10], 2)
    [0, 0, 1, 1]
    """
    low, high = min(places, default=0.0), max(places, default=0.0)
    width = (high - low) or 1.0
    return [min(count - 1, int((place - low) / width * count)) for place in places]


def thin_points(xs: Sequence[float], ys: Sequence[float]) -> list[int]:
    """Return the numbers of the points to draw, in order: no other one would change a pixel of the line.

    Args:
        xs: places along the axis, which may also be drawn by their logarithms, so both have their columns.
        ys: as many heights.

    >>> thin_points(range(6), [3, 1, 2, 0, 5, 4])
    [0, 1, 2, 3, 4, 5]
    """
    if len(xs) <= COLUMNS:
        return list(range(len(xs)))
    logs = [math.log(max(1.0, x)) for x in xs]
    return sorted(extremes(columns_of(xs, COLUMNS), ys) | extremes(columns_of(logs, LOG_COLUMNS), ys))


def extremes(columns: Sequence[int], ys: Sequence[float]) -> set[int]:
    """Return the numbers of the first, last, lowest and highest point of each column; columns do not fall.

    >>> sorted(extremes([0, 0, 0, 0, 0, 1], [3, 1, 2, 9, 4, 7]))
    [0, 1, 3, 4, 5]
    """
    kept, first = set(), 0
    for place in range(1, len(columns) + 1):
        if place == len(columns) or columns[place] != columns[first]:
            group = range(first, place)
            kept |= {first, place - 1, min(group, key=ys.__getitem__), max(group, key=ys.__getitem__)}
            first = place
    return kept


@dataclass(frozen=True)
class Axis:
    """Figures from `low` to `high` along one side of a drawing."""

    low: float
    high: float

    def part(self, value: float) -> float:
        """Return where a figure lies, 0 at the low end and 1 at the high one."""
        return (value - self.low) / ((self.high - self.low) or 1.0)

    def across(self, value: float) -> float:
        """Return a place from the left, in units."""
        return round(self.part(value) * SIDE, 1)

    def down(self, value: float) -> float:
        """Return a place from the top, in units; what is beyond stays a little outside."""
        return round((1 - min(1.05, max(-0.05, self.part(value)))) * SIDE, 1)


def round_steps(low: float, high: float, most: int) -> list[float]:
    """Return round numbers between two figures: multiples of 1, 2 or 5 times a power of ten.

    >>> round_steps(4.4, 6.3, 5), round_steps(0, 18_000, 5)
    ([4.5, 5.0, 5.5, 6.0], [0, 5000, 10000, 15000])
    """
    if not high > low:
        return [low]
    unit = 10.0 ** math.floor(math.log10((high - low) / most))
    step = next(unit * size for size in (1, 2, 5, 10, 20) if (high - low) / (unit * size) <= most)
    digits = max(0, -math.floor(math.log10(step)) + 1)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(place * step, digits) if step < 1 else round(place * step) for place in range(first, last + 1)]


def range_of(xs: Sequence[float], ys: Sequence[float]) -> list[float]:
    """Return the heights that a drawing must reach: of a long curve not its steep beginning."""
    if len(xs) <= FEW:
        return list(ys)
    start = xs[0] + EARLY * (xs[-1] - xs[0])
    return [y for x, y in zip(xs, ys, strict=True) if x >= start]


def make_axis(*groups: Iterable[float]) -> Axis:
    """Return the axis of all figures of some groups, with a margin.

    >>> make_axis([4.0], [5.0, 6.0])
    Axis(low=3.88, high=6.12)
    """
    values = [value for group in groups for value in group] or [0.0, 1.0]
    low, high = min(values), max(values)
    margin = MARGIN * (high - low) or 0.5
    return Axis(round(low - margin, 4), round(high + margin, 4))


def draw_line(xs: Iterable[float], ys: Iterable[float | None], across: Axis, down: Axis) -> str:
    """Return the path of a line through points; None is a gap.

    >>> draw_line([0, 1, 2, 3], [0, 1, None, 1], Axis(0, 3), Axis(0, 1))
    'M0 1000L333.3 0M1000 0'
    """
    parts, pen = [], "M"
    for x, y in zip(xs, ys, strict=True):
        if y is None:
            pen = "M"
            continue
        parts.append(f"{pen}{across.across(x):g} {down.down(y):g}")
        pen = "L"
    return "".join(parts)


def draw_dots(xs: Iterable[float], ys: Iterable[float | None], across: Axis, down: Axis) -> str:
    """Return the path of a dot at every point.

    >>> draw_dots([0, 1], [0, 1], Axis(0, 1), Axis(0, 1))
    'M0 1000h0M1000 0h0'
    """
    pairs = zip(xs, ys, strict=True)
    return "".join(f"M{across.across(x):g} {down.down(y):g}h0" for x, y in pairs if y is not None)


def spread(places: Sequence[float], least: float) -> list[float]:
    """Return places in percent moved apart, so that what is written there does not lie on one another.

    >>> spread([50.0, 51.0, 80.0], 6), spread([99.0, 98.0], 6)
    ([47.5, 53.5, 80.0], [100.0, 94.0])
    """
    order = sorted(range(len(places)), key=places.__getitem__)
    moved = list(places)
    for lower, upper in itertools.pairwise(order):
        if (missing := least - (moved[upper] - moved[lower])) > 0:
            moved[lower] -= missing / 2
            moved[upper] += missing / 2
    # what was pushed over the edge comes back, and pushes the others
    edge = 100.0
    for place in reversed(order):
        moved[place] = min(moved[place], edge)
        edge = moved[place] - least
    return [round(place, 2) for place in moved]


def draw_spark(values: Sequence[float | None], goal: float | None) -> dict[str, str | float | None]:
    """Return a small line through figures of equal distance, its last dot, and the height of a figure to reach.

    Args:
        values: one a frame, None where there is none.
        goal: drawn as a dashed line; None for none.
    """
    known = [value for value in values if value is not None]
    across, down = Axis(0, max(1, len(values) - 1)), make_axis(known, [] if goal is None else [goal])
    last = max((place for place, value in enumerate(values) if value is not None), default=None)
    return {
        "line": draw_line(range(len(values)), values, across, down),
        "dot": "" if last is None else draw_dots([last], [values[last]], across, down),
        "goal": None if goal is None else down.down(goal),
    }


def draw_meter(runs: Sequence[float], losses: Sequence[float | None], limit: float) -> dict[str, object]:
    """Return bars of copied runs of characters, each beside its held-out loss: where both rise, a run memorises.

    Args:
        runs: characters, one a frame, at least one.
        losses: as many, nats a token; None where nothing was evaluated.
        limit: characters that a dashed line marks.

    >>> meter = draw_meter([5, 20], [4.0, None], 20)
    >>> [bar["y"] for bar in meter["bars"]], meter["limit"], meter["top"]
    ([833.3, 333.3], 333.3, '30')
    """
    top = max(1.5 * limit, *runs)
    across, height = Axis(-0.5, len(runs) - 0.5), Axis(0, top)
    down = make_axis([loss for loss in losses if loss is not None])
    edges = [(across.across(place - 0.35), across.across(place + 0.35)) for place in range(len(runs))]
    bars = [
        {"x": left, "width": round(right - left, 1), "y": height.down(run), "height": round(SIDE - height.down(run), 1)}
        | {"is_long": run >= limit}
        for (left, right), run in zip(edges, runs, strict=True)
    ]
    line, dots = (draw(range(len(runs)), losses, across, down) for draw in (draw_line, draw_dots))
    figures = {"top": f"{top:g}", "low": f"{down.low:.2f}", "high": f"{down.high:.2f}"}
    return {"bars": bars, "line": line, "dots": dots, "limit": height.down(limit), **figures}
