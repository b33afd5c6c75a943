"""A plot of the time to first token as SVG, with nothing but the standard library."""

from __future__ import annotations

from typing import Any, TypeAlias
from xml.sax.saxutils import escape

# Title, note, and the times of each kind of bar.
Group: TypeAlias = tuple[str, str, dict[str, dict[str, Any]]]

_LEFT, _BAR_SPACE, _RIGHT = 330, 480, 130
_TOP, _BAR, _GROUP = 74, 18, 76
_COLOURS = {"recomputed": "#9aa5b1", "from the arena": "#1f77b4", "from both": "#2f9e6e", "from files": "#e08a1e"}
_COLOURS |= {"from the other node": "#8e5bb5", "from the own arena": "#1f77b4"}


def ttft_svg(result: dict[str, Any]) -> str:
    """Horizontal bars for each question, and for prompts beyond the arena: recomputed, and by the tier that served; lines from
    the least to the most time."""
    groups = [_question(question) for question in result["questions"]] + [_beyond(result["overflow"])]
    host = result["host"]
    note = f"{host['model']} on {host['device']}, {host['threads']} threads; median, line: min to max"
    return bars_svg("Time to first token: recomputed against restored from shared memory and from files", note, groups)


def bars_svg(title: str, note: str, groups: list[Group]) -> str:
    """Horizontal bars of each group under a title, with the kinds that occur explained above them."""
    width, height = _LEFT + _BAR_SPACE + _RIGHT, _TOP + _GROUP * len(groups) + 50
    longest = max(times["max"] for _, _, bars in groups for times in bars.values())
    kinds = [kind for kind in _COLOURS if any(kind in bars for _, _, bars in groups)]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="13">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        _text(16, 26, title, size=16),
        _text(16, 46, note),
    ]
    for index, kind in enumerate(kinds):
        x = _LEFT + index * 130
        parts += [f'<rect x="{x}" y="56" width="12" height="12" fill="{_COLOURS[kind]}"/>', _text(x + 18, 67, kind)]
    for index, group in enumerate(groups):
        parts += _draw(group, _TOP + 12 + index * _GROUP, _BAR_SPACE / longest)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _question(question: dict[str, Any]) -> Group:
    title = question["question"]
    note = f"{question['restored_tokens']} of {question['prompt_tokens']} tokens restored, {question['speedup']:.1f}x"
    bars = {
        "recomputed": question["ttft_recomputed_seconds"],
        "from the arena": question["ttft_restored_seconds"],
        "from files": question["files"]["ttft_seconds"],
    }
    return title if len(title) <= 46 else title[:43] + "...", note, bars


def _beyond(over: dict[str, Any]) -> Group:
    title = f"{over['prompts']} prompts of {over['prompt_tokens']} tokens, more than fit"
    note = f"{over['stored_bytes'] / 1e6:.0f} MB stored, an arena of {over['arena_bytes'] / 1e6:.0f} MB"
    names = {"arena": "from the arena", "both": "from both", "files": "from files"}
    served = {names[tier]: row["ttft_seconds"] for tier, row in over["by_tier"].items()}
    return title, note, {"recomputed": over["ttft_recomputed_seconds"], **served}


def _draw(group: Group, y: int, scale: float) -> list[str]:
    title, note, bars = group
    parts = [_text(_LEFT - 12, y + 14, title, anchor="end"), _text(_LEFT - 12, y + 33, note, anchor="end", size=11)]
    for row, (kind, times) in enumerate(bars.items()):
        top = y + row * (_BAR + 2)
        middle = top + _BAR / 2
        low, median, high = (_LEFT + times[key] * scale for key in ("min", "median", "max"))
        parts += [
            f'<rect x="{_LEFT}" y="{top}" width="{max(median - _LEFT, 1):.1f}" height="{_BAR}" fill="{_COLOURS[kind]}"/>',
            f'<path d="M{low:.1f} {middle}H{high:.1f}" stroke="#222" stroke-width="1.5"/>',
            _text(high + 6, top + 14, f"{times['median'] * 1e3:,.0f} ms"),
        ]
    return parts


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int = 13) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">{escape(text)}</text>'
