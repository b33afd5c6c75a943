"""Writes the models of these tests: a small Llama with random weights, whose greedy output changes with any token of its prompt.

usage: make_model.py FOLDER KIND...   (plain, window, other; lora-a, lora-b: adapters of plain: a folder of that name for each)
"""

import json
import sys
from pathlib import Path

import safetensors.torch
import tokenizers
import torch
import transformers


def write(folder: str, kind: str) -> None:
    """A checkpoint of 11 MB: `other` has other weights, `window` layers with a sliding window beside full ones."""
    torch.manual_seed(1 if kind == "other" else 0)
    common = dict(
        vocab_size=1000,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=8192,
        bos_token_id=1,
        eos_token_id=2,
        tie_word_embeddings=False,
        initializer_range=0.08,
    )
    if kind == "window":
        common |= {"tie_word_embeddings": True, "sliding_window": 256, "query_pre_attn_scalar": 64}
        config = transformers.Gemma2Config(**common)
        model = transformers.Gemma2ForCausalLM(config)
    else:
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**common))
    model.to(torch.float32).eval().save_pretrained(folder)
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=bytes_tokenizer(), bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    tokenizer.save_pretrained(folder)


def write_adapter(folder: str, seed: int) -> None:
    """A LoRA of rank 8 on queries and values, with random weights."""
    numbers = torch.Generator().manual_seed(seed)
    weights = {}
    for layer in range(4):
        for name, width in (("q_proj", 256), ("v_proj", 128)):
            place = f"base_model.model.model.layers.{layer}.self_attn.{name}"
            weights[f"{place}.lora_A.weight"] = torch.randn(8, 256, generator=numbers) * 0.1
            weights[f"{place}.lora_B.weight"] = torch.randn(width, 8, generator=numbers) * 0.1
    Path(folder).mkdir()
    safetensors.torch.save_file(weights, f"{folder}/adapter_model.safetensors")
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 8, "lora_alpha": 8, "bias": "none"}
    config |= {"target_modules": ["q_proj", "v_proj"], "base_model_name_or_path": "plain"}
    Path(folder, "adapter_config.json").write_text(json.dumps(config))


def bytes_tokenizer() -> tokenizers.Tokenizer:
    """A token for each byte."""
    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {word: at for at, word in enumerate(["<unk>", "<s>", "</s>", *letters])}
    made = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    return made


if __name__ == "__main__":
    for wanted in sys.argv[2:]:
        folder = f"{sys.argv[1]}/{wanted}"
        if wanted.startswith("lora"):
            write_adapter(folder, seed=ord(wanted[-1]))
        else:
            write(folder, wanted)
