"""Writes the models of these tests: a small Llama with random weights, whose greedy output changes with any token of its prompt.

usage: make_model.py FOLDER KIND...   (plain, window, other: a folder of that name for each)
"""

import sys

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
        write(f"{sys.argv[1]}/{wanted}", wanted)
