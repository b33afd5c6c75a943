"""The document, the questions, and the prompts made of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cascade_kv.demo.job import DemoError, Job

_SEPARATOR = "---"


@dataclass(frozen=True, slots=True)
class Prompt:
    """One question over the document.

    Attributes:
        question: its text.
        stored: whether the first process asks it too.
        tokens: the whole prompt, document first.
        shared: leading tokens, whole blocks, that all prompts over this document have in common.
        whole: leading tokens, whole blocks, after which at least one token is left.
    """

    question: str
    stored: bool
    tokens: list[int]
    shared: int
    whole: int


def read_questions(path: str) -> tuple[list[str], list[str]]:
    """Questions for both processes, and further ones for the second; one a line, `#` starts a comment.

    A line `---` parts the two; without it the first half (rounded up) is for both.

    Raises:
        DemoError: the file cannot be read or has no question for the first process.
    """
    lines = [line.strip() for line in _read_text(path, "questions").splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    if _SEPARATOR in lines:
        cut = lines.index(_SEPARATOR)
        first, further = lines[:cut], [line for line in lines[cut + 1 :] if line != _SEPARATOR]
    else:
        cut = (len(lines) + 1) // 2
        first, further = lines[:cut], lines[cut:]
    if not first:
        raise DemoError(
            f"{path} has no question for the first process: write one a line, before any line '{_SEPARATOR}'"
        )
    return first, further


def make_prompts(job: Job, tokenizer: Any, context_tokens: int) -> list[Prompt]:
    """Tokenise every question after the document.

    Args:
        context_tokens: the longest sequence that the model can attend to.

    Raises:
        DemoError: the document is shorter than a block, or a prompt and its answer do not fit the model's context.
    """
    document = _read_text(job.document, "document").strip()
    shared = common_prefix(_encode(tokenizer, document, "A"), _encode(tokenizer, document, "B"))
    if shared < job.block_tokens:
        raise DemoError(
            f"the document makes {shared} tokens, less than one block of {job.block_tokens}: nothing would be stored. "
            "Give a longer document or a smaller --block-tokens"
        )
    first, further = read_questions(job.questions)
    prompts = []
    for question in first + further:
        tokens = _encode(tokenizer, document, question)
        if len(tokens) + job.new_tokens > context_tokens:
            raise DemoError(
                f"document and question make {len(tokens)} tokens, the answer {job.new_tokens} more, and the model's context "
                f"is {context_tokens}: give a shorter document"
            )
        prompts.append(
            Prompt(
                question=question,
                stored=question in first,
                tokens=tokens,
                shared=_whole_blocks(min(shared, len(tokens) - 1), job.block_tokens),
                whole=_whole_blocks(len(tokens) - 1, job.block_tokens),
            )
        )
    return prompts


def _encode(tokenizer: Any, document: str, question: str) -> list[int]:
    text = f"Read the document and answer the question after it.\n\n{document}\n\nQuestion: {question}"
    if tokenizer.chat_template is None:
        return list(tokenizer(text + "\nAnswer:")["input_ids"])
    chat = [{"role": "user", "content": text}]
    return list(tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True)["input_ids"])


def common_prefix(a: list[int], b: list[int]) -> int:
    """How many leading tokens two sequences share."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _whole_blocks(tokens: int, block_tokens: int) -> int:
    return tokens // block_tokens * block_tokens


def _read_text(path: str, what: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DemoError(f"cannot read the {what} file {path}: {error}") from error
