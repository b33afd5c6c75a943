"""What a Transformers model tells about its KV cache: geometry, and a fingerprint of everything that shapes the values.

Kept apart from the cache adapter so that each rule of "may these bytes be reused?" can be read in one place.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from cascade_kv import BlockId

# Rotary embeddings whose frequencies depend on the length of the whole sequence: the same prefix has other keys in a
# longer prompt, so its blocks cannot be shared by prefix.
_LENGTH_DEPENDENT_ROPE = frozenset({"dynamic", "longrope", "su"})

# Fields of a configuration that name places or versions and do not change a single value of the cache.
_NEUTRAL_CONFIG_FIELDS = frozenset(
    {"_name_or_path", "name_or_path", "transformers_version", "gguf_file", "use_cache", "output_attentions"}
    | {"output_hidden_states", "return_dict", "torchscript"}
)


class UnsupportedCacheError(ValueError):
    """This model or cache cannot be stored by prefix blocks; the message names the reason and, where one exists, a cure."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """The shape of one model's KV cache.

    Attributes:
        layers: number of decoder layers with keys and values.
        kv_heads: key/value heads of each layer.
        head_dim: elements of one head.
        dtype: element type of keys and values.
    """

    layers: int
    kv_heads: int
    head_dim: int
    dtype: torch.dtype

    @property
    def token_bytes(self) -> int:
        """Bytes of keys and values of one token over all layers."""
        return self.layers * 2 * self.kv_heads * self.head_dim * self.dtype.itemsize


def geometry_of(model: Any) -> Geometry:
    """Read the cache geometry from a model's configuration.

    Raises:
        UnsupportedCacheError: the cache of this model is not one full-attention `DynamicLayer` a decoder layer, or its
            content depends on more than the tokens of the prefix.
    """
    config = model.config
    text = config.get_text_config(decoder=True)
    _refuse_composite(config, text)
    _refuse_length_dependent_rope(text)
    _refuse_other_layers(DynamicCache(config=config), text.num_hidden_layers)
    devices = {str(device) for device in (getattr(model, "hf_device_map", None) or {}).values()}
    if len(devices) > 1:
        raise UnsupportedCacheError(
            f"the model is spread over the devices {sorted(devices)}; load it on one device (no device_map='auto')"
        )
    heads = text.num_attention_heads
    return Geometry(
        layers=text.num_hidden_layers,
        kv_heads=getattr(text, "num_key_value_heads", None) or heads,
        head_dim=getattr(text, "head_dim", None) or text.hidden_size // heads,
        dtype=model.dtype,
    )


def check_layers(cache: Any, layers: int) -> None:
    """Refuse a cache that does not consist of exactly `layers` plain `DynamicLayer`s.

    Raises:
        UnsupportedCacheError: another cache class, another kind of layer, or another number of layers.
    """
    if not isinstance(cache, DynamicCache):
        raise UnsupportedCacheError(f"expected a transformers.DynamicCache, got {type(cache).__name__}")
    _refuse_other_layers(cache, layers)


def _refuse_other_layers(cache: DynamicCache, layers: int) -> None:
    kinds = sorted({type(layer).__name__ for layer in cache.layers if type(layer) is not DynamicLayer})
    if kinds:
        raise UnsupportedCacheError(
            f"the model has layers of kind {', '.join(kinds)}: they keep a window or a running state instead of every "
            "token's keys and values, so their content cannot be cut into prefix blocks; only full attention is supported"
        )
    if len(cache.layers) != layers:
        raise UnsupportedCacheError(
            f"the cache has {len(cache.layers)} layers where the model has {layers}: layers that share keys and values "
            "are not supported"
        )


def _refuse_composite(config: Any, text: Any) -> None:
    if getattr(config, "is_encoder_decoder", False):
        raise UnsupportedCacheError(
            "encoder-decoder models: the cache depends on the encoder's input, not on a token prefix"
        )
    if text is not config:
        raise UnsupportedCacheError(
            f"{type(config).__name__} is a composite (multimodal) model: its tokens alone do not identify the cache"
        )


def _refuse_length_dependent_rope(text: Any) -> None:
    for rope in _rope_parameters(text):
        kind = rope.get("rope_type", rope.get("type"))
        if kind in _LENGTH_DEPENDENT_ROPE:
            raise UnsupportedCacheError(
                f"rotary embedding of type '{kind}' changes with the length of the prompt: a prefix has no fixed keys"
            )


def _rope_parameters(text: Any) -> Iterator[dict[str, Any]]:
    """The rotary parameters of a configuration: one dict, or one for each layer type."""
    for name in ("rope_parameters", "rope_scaling"):
        found = getattr(text, name, None)
        if isinstance(found, dict):
            yield found
            yield from (inner for inner in found.values() if isinstance(inner, dict))


def has_adapter(model: Any) -> bool:
    """Whether PEFT layers (LoRA and kin) are attached: switching them changes the cache but no parameter."""
    return any(hasattr(module, "disable_adapters") and hasattr(module, "merged_adapters") for module in model.modules())


def weights_version(model: Any) -> tuple[tuple[str, int, int], ...]:
    """A cheap stamp that changes when a parameter or buffer is replaced or written in place (not through `.data`)."""
    return tuple((name, tensor.data_ptr(), _version(tensor)) for name, tensor in _named_tensors(model))


def _version(tensor: torch.Tensor) -> int:
    # Tensors made under inference_mode keep no version counter.
    return 0 if tensor.is_inference() else tensor._version


def fingerprint(model: Any) -> str:
    """64 hexadecimal digits over configuration, attention kernel and every byte of every parameter and buffer.

    All bytes are hashed, because a sample would miss a fine-tune that touched other elements; BLAKE3 does that at
    gigabytes a second, a small part of the time that loading the model took.

    Raises:
        UnsupportedCacheError: a parameter has no data (meta device, offloaded).
    """
    whole = hashlib.sha256()
    whole.update(_canonical_config(model))
    for name, tensor in _named_tensors(model):
        if tensor.is_meta:
            raise UnsupportedCacheError(f"parameter '{name}' has no data (offloaded or on the meta device)")
        head = json.dumps([name, list(tensor.shape), str(tensor.dtype)]).encode()
        whole.update(len(head).to_bytes(8, "little") + head)
        whole.update(bytes(BlockId.content(_bytes_of(tensor))))
    return whole.hexdigest()


def _canonical_config(model: Any) -> bytes:
    fields = _without_neutral(model.config.to_dict())
    # The kernel decides the last bits of every layer after the first, and the promise is bit-equal logits.
    fields["attention_kernel"] = model.config._attn_implementation
    return json.dumps([type(model).__name__, fields], sort_keys=True, default=str).encode()


def _without_neutral(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _without_neutral(v) for k, v in value.items() if k not in _NEUTRAL_CONFIG_FIELDS}
    return value


def _named_tensors(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def _bytes_of(tensor: torch.Tensor) -> Any:
    """A host view (a copy only if the tensor is on a device or not contiguous) of a tensor's bytes, shape [n] uint8."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
