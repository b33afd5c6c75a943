"""Prompts with shared prefixes: several questions about each of some passages of real text."""

from __future__ import annotations

import ast
import json
import os
from collections.abc import Callable
from importlib import resources

_PASSAGE = 1700


def _bytes(text: str) -> list[int]:
    return [3 + byte for byte in text.encode()[:2000]]


def prompts(count: int, encode: Callable[[str], list[int]] = _bytes) -> list[list[int]]:
    """`count` prompts, as `encode` makes tokens of them, over the demo's document, and over those of the file that `CASCADE_VLLM_TRACE` names.

    The file has one JSON object a line with `input` (a document) and `qa_pairs` (a list, or one written as a Python literal, of
    objects whose `Q` is asked).
    """
    found = _own()
    trace = os.environ.get("CASCADE_VLLM_TRACE")
    if trace:
        found = _traced(trace) + found
    if len(found) < count:
        raise ValueError(f"only {len(found)} prompts for {count}: name a file with CASCADE_VLLM_TRACE")
    return [encode(f"{passage}\n{question}\n") for passage, question in found[:count]]


def _own() -> list[tuple[str, str]]:
    folder = resources.files("cascade_kv.demo")
    lines = folder.joinpath("questions.txt").read_text().split("\n")
    questions = [line for line in lines if line.endswith("?")]
    return _ask(folder.joinpath("document.txt").read_text(), questions, passages=5)


def _traced(path: str) -> list[tuple[str, str]]:
    found = []
    with open(path) as file:
        for line in file:
            one = json.loads(line)
            pairs = one["qa_pairs"]
            pairs = ast.literal_eval(pairs) if isinstance(pairs, str) else pairs
            found += _ask(one["input"].strip(), [pair["Q"] for pair in pairs], passages=4)
    return found


def _ask(document: str, questions: list[str], passages: int) -> list[tuple[str, str]]:
    starts = [at * _PASSAGE for at in range(passages) if (at + 1) * _PASSAGE <= len(document)]
    return [(document[start : start + _PASSAGE], question) for start in starts for question in questions]
