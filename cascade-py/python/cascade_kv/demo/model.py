"""The model of the demo: loading, forward passes in stated splits, greedy answers."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import torch
import transformers

from cascade_kv.demo.job import DemoError, Job, step


@dataclass(frozen=True, slots=True)
class Runner:
    """A loaded model with its tokenizer; float32, so that a greedy text does not hang on rounding."""

    model: Any
    tokenizer: Any

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self.model.device

    @property
    def context_tokens(self) -> int:
        """Longest sequence of the model."""
        return int(self.model.config.max_position_embeddings)

    def empty_cache(self) -> transformers.DynamicCache:
        """A cache with nothing in it."""
        return transformers.DynamicCache(config=self.model.config)

    @torch.no_grad()
    def forward(self, tokens: list[int], cache: transformers.DynamicCache, last_only: bool = False) -> torch.Tensor:
        """Logits [len(tokens), vocabulary] (or of the last token alone) after the tokens in `cache`, which grows."""
        ids = torch.tensor([tokens], device=self.device)
        out = self.model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=int(last_only))
        return out.logits[0]

    @torch.no_grad()
    def answer(self, tokens: list[int], cache: transformers.DynamicCache | None, new_tokens: int) -> list[int]:
        """Greedy continuation of a prompt by Transformers' own `generate`; with a cache, only the rest is prefilled."""
        ids = torch.tensor([tokens], device=self.device)
        whole = self.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            past_key_values=cache,
            max_new_tokens=new_tokens,
            do_sample=False,
            pad_token_id=self.tokenizer.eos_token_id,
        )
        return whole[0, len(tokens) :].tolist()

    def text(self, tokens: list[int]) -> str:
        """Tokens as text for people."""
        return self.tokenizer.decode(tokens, skip_special_tokens=True).strip()

    def finish(self) -> None:
        """Wait for the device, so that a clock read next tells the truth."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def fork(runner: Runner, cache: transformers.DynamicCache) -> transformers.DynamicCache:
    """A second cache over the same tensors; growing one leaves the other alone, since layers grow by concatenation."""
    twin = runner.empty_cache()
    for new, old in zip(twin.layers, cache.layers, strict=True):
        new.lazy_initialization(old.keys, old.values)
        new.keys, new.values = old.keys, old.values
    return twin


def extend(runner: Runner, tokens: list[int], cache: transformers.DynamicCache, until: int, block_tokens: int) -> None:
    """Grow `cache` to the first `until` tokens in passes of one block each.

    Which pass made a block's KV decides its last bits; with a pass for each block it follows from the block's place
    alone, whichever prompt stored it, and another process can repeat it.
    """
    for begin in range(cache.get_seq_length(), until, block_tokens):
        runner.forward(tokens[begin : begin + block_tokens], cache, last_only=True)


def load_runner(job: Job, who: str) -> Runner:
    """Load model and tokenizer, on a GPU if torch finds one.

    Raises:
        DemoError: the model cannot be loaded.
    """
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    transformers.utils.logging.disable_progress_bar()
    options = {"gguf_file": job.gguf} if job.gguf else {}
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        with step(f"{who}: loading the model on {device} (about 30 s on two cores)"):
            tokenizer = transformers.AutoTokenizer.from_pretrained(job.model_dir, **options)
            model = transformers.AutoModelForCausalLM.from_pretrained(job.model_dir, dtype=torch.float32, **options)
            model = model.to(device).eval()
    except (OSError, ValueError, ImportError) as error:
        raise DemoError(f"cannot load the model in {job.model_dir}: {error}") from error
    return Runner(model, tokenizer)
