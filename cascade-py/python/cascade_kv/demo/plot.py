"""A plot of the time to first token as SVG, with nothing but the standard library."""

from __future__ import annotations

from typing import Any
from xml.sax.saxutils import escape

_LEFT, _BAR_SPACE, _RIGHT = 330, 480, 130
_TOP, _BAR, _GROUP = 74, 18, 76
_COLOURS = {"recomputed": "#9aa5b1", "from the arena": "#1f77b4", "from files": "#e08a1e"}


def ttft_svg(result: dict[str, Any]) -> str:
    """Horizontal bars for each question: recomputed, from the arena, from files; lines from the least to the most time."""
    questions = result["questions"]
    width, height = _LEFT + _BAR_SPACE + _RIGHT, _TOP + _GROUP * len(questions) + 30
    longest = max(_times(question, kind)["max"] for question in questions for kind in _COLOURS)
    host = result["host"]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="13">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        _text(16, 26, "Time to first token: recomputed against restored from shared memory and from files", size=16),
        _text(16, 46, f"{host['model']} on {host['device']}, {host['threads']} threads; median, line: min to max"),
    ]
    for index, (kind, colour) in enumerate(_COLOURS.items()):
        x = _LEFT + index * 130
        parts += [f'<rect x="{x}" y="56" width="12" height="12" fill="{colour}"/>', _text(x + 18, 67, kind)]
    for index, question in enumerate(questions):
        parts += _group(question, _TOP + 12 + index * _GROUP, _BAR_SPACE / longest)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _group(question: dict[str, Any], y: int, scale: float) -> list[str]:
    title = question["question"]
    title = title if len(title) <= 46 else title[:43] + "..."
    note = f"{question['restored_tokens']} of {question['prompt_tokens']} tokens restored, {question['speedup']:.1f}x"
    parts = [_text(_LEFT - 12, y + 14, title, anchor="end"), _text(_LEFT - 12, y + 33, note, anchor="end", size=11)]
    for row, (kind, colour) in enumerate(_COLOURS.items()):
        times = _times(question, kind)
        top = y + row * (_BAR + 2)
        middle = top + _BAR / 2
        low, median, high = (_LEFT + times[key] * scale for key in ("min", "median", "max"))
        parts += [
            f'<rect x="{_LEFT}" y="{top}" width="{max(median - _LEFT, 1):.1f}" height="{_BAR}" fill="{colour}"/>',
            f'<path d="M{low:.1f} {middle}H{high:.1f}" stroke="#222" stroke-width="1.5"/>',
            _text(high + 6, top + 14, f"{times['median'] * 1e3:,.0f} ms"),
        ]
    return parts


def _times(question: dict[str, Any], kind: str) -> dict[str, Any]:
    if kind == "from files":
        return question["files"]["ttft_seconds"]
    return question["ttft_recomputed_seconds" if kind == "recomputed" else "ttft_restored_seconds"]


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int = 13) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">{escape(text)}</text>'
