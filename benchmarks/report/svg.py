"""Bar charts as SVG, readable on light and on dark backgrounds.

There is no background, and every colour keeps its contrast to white and to near-black alike. (A
media query would not do: it follows the system's theme, which need not be the page's.)
"""

from __future__ import annotations

from typing import Any
from xml.sax.saxutils import escape

from .groups import figure, label, ranked

TEXT = "#75808c"
COLOURS = {"fullduplex": "#2f81f7", "fullduplex-pure": "#7aa5d8", "floor": "#9a8250"}
OTHER = "#8b949e"

PANEL_WIDTH = 520
LABEL_WIDTH = 238
BAR_WIDTH = 190
ROW = 21
HEAD = 42
GAP = 18
#: Bars of more than this many times the best are cut, or the others could not be told apart.
CUT = 12.0


def _text(x: float, y: float, content: str, style: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{style}>{escape(content)}</text>'


def _bar(x: float, y: float, width: float, colour: str, cut: bool) -> str:
    height = ROW - 8
    bar = f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height}" rx="2" '
    bar += f'fill="{colour}"/>'
    if not cut:
        return bar
    # Two slanted gaps near the end say that the bar is longer than it is drawn.
    gaps = "".join(
        f"M{x + width - offset:.1f} {y + height + 1}l6 {-height - 2}h3l-6 {height + 2}z"
        for offset in (26, 18)
    )
    return (
        f'<mask id="cut{x:.0f}-{y:.0f}"><rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" '
        f'height="{height}" fill="#fff"/><path d="{gaps}" fill="#000"/></mask>'
        f'<g mask="url(#cut{x:.0f}-{y:.0f})">{bar}</g>'
    )


def panel(cell: dict[str, Any], x: float, y: float) -> tuple[str, float]:
    """Draw a cell; returns the SVG and its height."""
    peers = ranked(cell)
    direction = "more is better" if cell["higher_is_better"] else "less is better"
    parts = [
        _text(x, y + 14, cell["title"], ' class="title"'),
        _text(x, y + 30, f"{cell['unit']}, {direction}", ' class="small"'),
    ]
    values = [peer["median"] for _, peer in peers]
    # The floor is no competitor: it may be far below all of them.
    rivals = [peer["median"] for name, peer in peers if name != "floor"]
    smallest = min((value for value in rivals if value > 0), default=max(values, default=1.0))
    limit = max(values, default=1.0)
    if not cell["higher_is_better"]:
        limit = min(limit, smallest * CUT)
    for row, (name, peer) in enumerate(peers):
        top = y + HEAD + row * ROW
        middle = top + ROW / 2 + 1
        value = peer["median"]
        cut = value > limit
        width = BAR_WIDTH * min(value, limit) / limit if limit else 0.0
        style = ' class="ours"' if name.startswith("fullduplex") else ""
        parts.append(_text(x + LABEL_WIDTH - 8, middle, label(peer, name), style, "end"))
        colour = COLOURS.get(name, OTHER)
        parts.append(_bar(x + LABEL_WIDTH, top, max(width, 1.0), colour, cut))
        if not cut:
            parts.append(_whisker(peer["quartiles"], limit, x + LABEL_WIDTH, top))
        end = x + LABEL_WIDTH + max(width, 1.0)
        if not cut:
            end = max(end, x + LABEL_WIDTH + BAR_WIDTH * min(peer["quartiles"][1] / limit, 1.05))
        parts.append(_text(end + 7, middle, figure(value), style))
    return "\n".join(parts), HEAD + len(peers) * ROW


def _whisker(quartiles: list[float], limit: float, x: float, top: float) -> str:
    """A line from the first to the third quartile of the rounds."""
    low, high = (x + BAR_WIDTH * min(value / limit, 1.05) for value in quartiles)
    if high - low < 2:
        return ""
    middle = top + (ROW - 8) / 2
    path = f"M{low:.1f} {middle:.1f}H{high:.1f}M{low:.1f} {middle - 3:.1f}v6M{high:.1f} "
    path += f"{middle - 3:.1f}v6"
    return f'<path d="{path}" stroke="{TEXT}" stroke-width="1.2" fill="none"/>'


def chart(cells: list[dict[str, Any]], title: str, note: str, columns: int = 2) -> str:
    """Draw small multiples with a note below them."""
    columns = min(columns, max(len(cells), 1))
    parts: list[str] = []
    y = 10.0
    for start in range(0, len(cells), columns):
        heights = []
        for column, cell in enumerate(cells[start : start + columns]):
            drawn, height = panel(cell, 12 + column * PANEL_WIDTH, y)
            parts.append(drawn)
            heights.append(height)
        y += max(heights) + GAP
    width = 12 + columns * PANEL_WIDTH
    for line in note.splitlines():
        parts.append(_text(12, y + 8, line, ' class="small"'))
        y += 15
    height = y + 8
    style = (
        f"text{{font:13px system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif;"
        f"fill:{TEXT}}}.title{{font-weight:600;font-size:14px}}.small{{font-size:11.5px}}"
        f".ours{{font-weight:600}}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height:.0f}" '
        f'viewBox="0 0 {width} {height:.0f}" role="img">\n<title>{escape(title)}</title>\n'
        f"<style>{style}</style>\n" + "\n".join(parts) + "\n</svg>\n"
    )
