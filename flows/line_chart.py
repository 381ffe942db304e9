"""Several lines in one SVG picture, with a legend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

_WIDTH, _HEIGHT, _LEFT, _TOP, _ROW = 760, 360, 64, 40, 18
# Colours told apart also without red and green (Okabe and Ito).
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000", "#999933")


def lines_svg(
    lines: Mapping[str, Sequence[tuple[float, float]]], *, title: str, across: str, up: str, marks: bool = True
) -> str:
    """Return the SVG text of named lines of (x, y) points; lines without points are named only."""
    points = [point for line in lines.values() for point in line]
    xs, ys = [x for x, _ in points] or [0.0], [y for _, y in points] or [0.0]
    left, right, low, high = min(xs), max(xs), min(ys), max(ys)
    width, height = (right - left) or 1.0, (high - low) or 1.0
    inner_width, inner_height = _WIDTH - _LEFT - 24, _HEIGHT - _TOP - 56

    def place(x: float, y: float) -> tuple[float, float]:
        return _LEFT + inner_width * (x - left) / width, _TOP + inner_height * (1 - (y - low) / height)

    bottom = _TOP + inner_height
    total = _HEIGHT + _ROW * len(lines)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {total}" font-family="sans-serif" '
        f'font-size="12" role="img" aria-label="{escape(title)}">',
        f'<rect width="{_WIDTH}" height="{total}" fill="white"/>',
        f'<text x="{_LEFT}" y="22" font-size="14">{escape(title)}</text>',
        f'<path d="M{_LEFT} {_TOP}V{bottom}H{_LEFT + inner_width}" fill="none" stroke="#999"/>',
        f'<text x="{_LEFT - 6}" y="{_TOP + 4}" text-anchor="end">{high:.4g}</text>',
        f'<text x="{_LEFT - 6}" y="{bottom}" text-anchor="end">{low:.4g}</text>',
        f'<text x="{_LEFT}" y="{bottom + 18}">{left:,.4g}</text>',
        f'<text x="{_LEFT + inner_width}" y="{bottom + 18}" text-anchor="end">{right:,.4g}</text>',
        f'<text x="{_LEFT + inner_width / 2}" y="{bottom + 34}" text-anchor="middle">{escape(across)}</text>',
        f'<text x="16" y="{_TOP + inner_height / 2}" text-anchor="middle" '
        f'transform="rotate(-90 16 {_TOP + inner_height / 2})">{escape(up)}</text>',
    ]
    for index, (name, line) in enumerate(lines.items()):
        colour = _COLOURS[index % len(_COLOURS)]
        dash = ' stroke-dasharray="6 3"' if index // len(_COLOURS) % 2 else ""
        placed = [place(x, y) for x, y in line]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"{dash}/>')
        if marks:
            parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{colour}"/>' for x, y in placed]
        row = _HEIGHT + _ROW * index
        parts.append(f'<path d="M{_LEFT} {row - 4}h24" stroke="{colour}" stroke-width="2"{dash}/>')
        parts.append(f'<text x="{_LEFT + 32}" y="{row}">{escape(name)}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"
