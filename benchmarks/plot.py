"""Growth as a drawing: cost of one round against size, both logarithmic, written as SVG."""

from __future__ import annotations

import math
import re
import statistics
from collections import defaultdict
from collections.abc import Mapping

WIDTH, HEIGHT, EDGE = 640, 360, 56
SIZE = re.compile(r"growth, one look, ([\d,]+) (\w+), CPU ms")
COLOURS = {"devices": "#c0392b", "guests": "#2471a3", "rules": "#1e8449"}
TIMES = (1, 10, 100)
COSTS = (0.1, 1.0, 10.0, 100.0)


def growth(found: Mapping[str, list[float]]) -> str:
    """The drawing of the `growth, one look` figures."""
    lines: defaultdict[str, list[float]] = defaultdict(list)
    for title, figures in found.items():
        if named := SIZE.match(title):
            lines[named[2]].append(statistics.median(figures))
    parts = [_frame(), *(_line(kind, costs) for kind, costs in lines.items())]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif"'
        f' font-size="13">'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>{"".join(parts)}</svg>\n'
    )


def _x(times: float) -> float:
    return EDGE + math.log10(times) / 2 * (WIDTH - 3 * EDGE)


def _y(cost: float) -> float:
    low, high = math.log10(COSTS[0]), math.log10(COSTS[-1])
    share = (math.log10(max(cost, COSTS[0])) - low) / (high - low)
    return HEIGHT - EDGE - share * (HEIGHT - 2 * EDGE)


def _frame() -> str:
    ticks = [f'<text x="{_x(t):.0f}" y="{HEIGHT - EDGE + 20}" text-anchor="middle">× {t}</text>' for t in TIMES]
    for cost in COSTS:
        y = f"{_y(cost):.0f}"
        ticks.append(f'<line x1="{EDGE}" x2="{_x(100):.0f}" y1="{y}" y2="{y}" stroke="#ddd"/>')
        ticks.append(f'<text x="{EDGE - 6}" y="{y}" text-anchor="end" dy="4">{cost:g}</text>')
    title = f'<text x="{EDGE}" y="24">milliseconds of CPU for one look; from 1 device, 1 guest, 10 rules</text>'
    return "".join([title, *ticks])


def _line(kind: str, costs: list[float]) -> str:
    points = [(_x(times), _y(cost)) for times, cost in zip(TIMES, costs, strict=False)]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    colour = COLOURS.get(kind, "#333")
    x, y = points[-1]
    return (
        f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
        f'<text x="{x + 6:.0f}" y="{y:.0f}" dy="4" fill="{colour}">{kind}</text>'
    )
