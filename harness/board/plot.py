"""Reward against divergence from the reference policy, as an SVG that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from harness.board.axes import Axis, axis
from harness.board.contents import Measure, Row, TaskBoard
from harness.board.numbers import fixed, places
from harness.contracts.task import Metric
from harness.stats.difference import Estimate
from harness.visible import visible

DIVERGENCE = "kl"
WIDTH, HEIGHT = 860, 420
LEFT, RIGHT, TOP, BOTTOM = 64, 200, 16, 52
_LEGEND_LINE = 20
# Okabe and Ito's colours, told apart with any colour vision; the yellow is too pale for a point.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1")
_SHAPES = (
    "M0,-5A5,5 0 1 1 -0.01,-5Z",
    "M-4.5,-4.5H4.5V4.5H-4.5Z",
    "M0,-6L6,0L0,6L-6,0Z",
    "M0,-6L5.6,4.6H-5.6Z",
)
_STYLE = """
.frontier{font:12px system-ui,-apple-system,"Segoe UI",sans-serif;fill:#222}
.frontier .grid{stroke:#e3e3e3}
.frontier .axis{stroke:#555;fill:none}
.frontier .base{--ink:#777}
.frontier .key{fill:#777}
.frontier .bar{stroke:var(--ink);stroke-width:1.4}
.frontier .mean{fill:var(--ink);stroke:#fff;stroke-width:.8}
.frontier .seed{fill:var(--ink);opacity:.5}
@media (prefers-color-scheme:dark){
.frontier{fill:#ddd}.frontier .grid{stroke:#333}.frontier .axis{stroke:#999}
.frontier .base{--ink:#aaa}.frontier .mean{stroke:#161616}
.frontier .method{filter:brightness(1.35)}.frontier .seed{opacity:.8}
}"""


@dataclass(frozen=True)
class _Point:
    row: Row
    x: Estimate
    y: Estimate
    seeds: tuple[tuple[int, float, float], ...]
    shape: str
    ink: str


def frontier(task: TaskBoard) -> str:
    """The plot of a task, or an empty text where no row has both metrics.

    One large mark per row is the mean over its seeds, with the 95 % interval of either metric;
    the small marks are its single seeds.
    """
    divergence = next((m for m in task.metrics if m.name == DIVERGENCE), None)
    points = _points(task)
    if divergence is None or not points or task.primary.name == DIVERGENCE:
        return ""
    height = max(HEIGHT, TOP + BOTTOM + _LEGEND_LINE * (len(points) + 3))
    xs = [v for p in points for v in (p.x.low, p.x.high, *(s[1] for s in p.seeds))]
    ys = [v for p in points for v in (p.y.low, p.y.high, *(s[2] for s in p.seeds))]
    across = axis([0.0, *xs], LEFT, WIDTH - RIGHT)
    up = axis(ys, height - BOTTOM, TOP)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="frontier" role="img"'
        f' viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
        f' aria-label="{_text(f"{task.primary.name} against {divergence.name}, {task.name}")}">',
        f"<style>{_STYLE}\n</style>",
        *_frame(across, up, divergence, task.primary, height),
        *(line for point in points for line in _seed_marks(point, across, up)),
        *(line for point in points for line in _mean_mark(point, across, up)),
        *_legend(points),
        "</svg>\n",
    ]
    return "\n".join(lines)


def _points(task: TaskBoard) -> list[_Point]:
    rows = [(r, _measure(r, task.primary.name), _measure(r, DIVERGENCE)) for r in task.rows]
    found = []
    # The look of a method must not depend on its place on this board.
    order = sorted(r.label for r in task.rows if not r.base)
    for row, up, across in rows:
        if up is None or across is None or up.estimate is None or across.estimate is None:
            continue
        index = order.index(row.label) if not row.base else 0
        xs = dict(across.seeds)
        found.append(
            _Point(
                row,
                across.estimate,
                up.estimate,
                tuple((s, xs[s], y) for s, y in up.seeds if s in xs),
                _SHAPES[index // len(_COLOURS) % len(_SHAPES)],
                "" if row.base else _COLOURS[index % len(_COLOURS)],
            )
        )
    return found


def _measure(row: Row, metric: str) -> Measure | None:
    return next((m for m in row.measures if m.metric == metric), None)


def _frame(across: Axis, up: Axis, x: Metric, y: Metric, height: int) -> Iterator[str]:
    left, right, top, bottom = LEFT, WIDTH - RIGHT, TOP, height - BOTTOM
    for tick in up.ticks:
        at, text = up.at(tick), fixed(tick, up.decimals)
        yield f'<path class="grid" d="M{left},{at:.1f}H{right}"/>'
        yield f'<text x="{left - 8}" y="{at + 4:.1f}" text-anchor="end">{text}</text>'
    for tick in across.ticks:
        at, text = across.at(tick), fixed(tick, across.decimals)
        yield f'<path class="grid" d="M{at:.1f},{top}V{bottom}"/>'
        yield f'<text x="{at:.1f}" y="{bottom + 18}" text-anchor="middle">{text}</text>'
    yield f'<path class="axis" d="M{left},{top}V{bottom}H{right}"/>'
    middle, centre = (left + right) / 2, (top + bottom) / 2
    yield f'<text x="{middle:.1f}" y="{height - 12}" text-anchor="middle">{_name(x)}</text>'
    yield (
        f'<text transform="translate(16,{centre:.1f}) rotate(-90)" text-anchor="middle">'
        f"{_name(y)}</text>"
    )


def _seed_marks(point: _Point, across: Axis, up: Axis) -> Iterator[str]:
    for seed, x, y in point.seeds:
        yield (
            f'<circle class="seed {_kind(point)}" cx="{across.at(x):.1f}" cy="{up.at(y):.1f}"'
            f' r="2.6"{_ink(point)}><title>{_text(point.row.label)}, seed {seed}</title></circle>'
        )


def _mean_mark(point: _Point, across: Axis, up: Axis) -> Iterator[str]:
    x, y = across.at(point.x.value), up.at(point.y.value)
    yield (
        f'<g class="{_kind(point)}"{_ink(point)}><title>{_text(_hover(point))}</title>'
        f'<path class="bar" d="M{across.at(point.x.low):.1f},{y:.1f}'
        f"H{across.at(point.x.high):.1f}M{x:.1f},{up.at(point.y.low):.1f}"
        f'V{up.at(point.y.high):.1f}"/>'
        f'<path class="mean" transform="translate({x:.1f},{y:.1f})" d="{point.shape}"/></g>'
    )


def _legend(points: Sequence[_Point]) -> Iterator[str]:
    x, y = WIDTH - RIGHT + 24, TOP + 10
    for point in points:
        name = point.row.label if len(point.row.label) <= 24 else point.row.label[:23] + "…"
        yield (
            f'<g class="{_kind(point)}"{_ink(point)}><path class="mean"'
            f' transform="translate({x},{y})" d="{point.shape}"/></g>'
            f'<text x="{x + 14}" y="{y + 4}">{_text(name)}</text>'
        )
        y += _LEGEND_LINE
    for line in ("large: mean, 95 % interval", "small: single seeds"):
        y += _LEGEND_LINE
        yield f'<text class="key" x="{x - 6}" y="{y - 8}">{line}</text>'


def _kind(point: _Point) -> str:
    return "base" if point.row.base else "method"


def _ink(point: _Point) -> str:
    return f' style="--ink:{point.ink}"' if point.ink else ""


def _hover(point: _Point) -> str:
    parts = (
        f"{fixed(e.value, n)} ({fixed(e.low, n)} to {fixed(e.high, n)})"
        for e, n in ((e, places([e.standard_error])) for e in (point.y, point.x))
    )
    return f"{point.row.label}: {' at '.join(parts)}"


def _name(metric: Metric) -> str:
    unit = f" ({metric.unit})" if metric.unit and metric.unit != metric.name else ""
    return _text(metric.name + unit)


def _text(text: str) -> str:
    return escape(visible(text), quote=True)
