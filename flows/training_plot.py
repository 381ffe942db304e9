"""A training curve as one SVG picture: loss on the left, validation PSNR on the right, over steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

_WIDTH, _HEIGHT, _MARGIN = 720, 320, 56


def curve_svg(rows: Sequence[Mapping[str, Any]], *, title: str) -> str:
    """Return the SVG text for log rows with `step`, `loss` and, at times, `validation_psnr_db`."""
    loss = [(float(row["step"]), float(row["loss"])) for row in rows]
    psnr = [(float(row["step"]), float(row["validation_psnr_db"])) for row in rows if row.get("validation_psnr_db")]
    last = max((step for step, _ in loss), default=1.0)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" '
        f'font-size="12" role="img" aria-label="training curve of {escape(title)}">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        f'<text x="{_MARGIN}" y="22" font-size="14">{escape(title)}: {last:,.0f} steps</text>',
        f'<path d="M{_MARGIN} {_MARGIN - 16}V{_HEIGHT - _MARGIN}H{_WIDTH - _MARGIN}V{_MARGIN - 16}" fill="none" '
        'stroke="#999"/>',
        _series(loss, last=last, colour="#3266ad", label="loss", right=False),
        _series(psnr, last=last, colour="#b4532a", label="validation PSNR dB", right=True),
        f'<text x="{_WIDTH - _MARGIN}" y="{_HEIGHT - _MARGIN + 18}" text-anchor="end">{last:,.0f}</text>',
        f'<text x="{_MARGIN}" y="{_HEIGHT - _MARGIN + 18}">0</text>',
        "</svg>",
    ]
    return "\n".join(part for part in parts if part) + "\n"


def _series(points: Sequence[tuple[float, float]], *, last: float, colour: str, label: str, right: bool) -> str:
    if not points:
        return ""
    # The first tenth of a run falls from a height that would flatten all the rest.
    settled = [value for step, value in points if step >= 0.1 * last] or [value for _, value in points]
    low, high = min(settled), max(settled)
    spread = (high - low) or 1.0
    top, bottom = _MARGIN - 10, _HEIGHT - _MARGIN

    def place(step: float, value: float) -> str:
        x = _MARGIN + (_WIDTH - 2 * _MARGIN) * step / last
        y = bottom - (bottom - top) * min(max((value - low) / spread, 0.0), 1.0)
        return f"{x:.1f},{y:.1f}"

    line = " ".join(place(step, value) for step, value in points)
    x, anchor = (_WIDTH - _MARGIN + 6, "start") if right else (_MARGIN - 6, "end")
    legend = _WIDTH - _MARGIN if right else _MARGIN
    side = "end" if right else "start"
    return (
        f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
        f'<text x="{x}" y="{top + 4}" text-anchor="{anchor}" fill="{colour}">{high:.4g}</text>'
        f'<text x="{x}" y="{bottom}" text-anchor="{anchor}" fill="{colour}">{low:.4g}</text>'
        f'<text x="{legend}" y="{_HEIGHT - 14}" text-anchor="{side}" fill="{colour}">{label}</text>'
    )
