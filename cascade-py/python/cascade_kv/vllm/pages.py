"""vLLM's paged tensors as arrays of bytes, a row for each of its blocks."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from vllm.v1.kv_cache_interface import UniformTypeKVCacheSpecs, group_kernel_blocks


def layer_arrays(caches: dict[str, torch.Tensor], kv_cache_config: Any) -> tuple[dict[str, int], list[np.ndarray]]:
    """Arrays [blocks, page bytes] over the memory of the layers' tensors, in the order of the group's layer names.

    Returns:
        For each layer the index of its array (layers that share a tensor have the same), and the arrays.

    Raises:
        ValueError: a tensor is not in host memory, or its pages are not runs of memory.
    """
    group = kv_cache_config.kv_cache_groups[0]
    spec = group.kv_cache_spec
    by_layer = spec.kv_cache_specs if isinstance(spec, UniformTypeKVCacheSpecs) else {}
    parts: dict[str, int] = {}
    arrays: list[np.ndarray] = []
    places: dict[int, int] = {}
    for name in sorted(group.layer_names):
        tensor = group_kernel_blocks(caches[name], kv_cache_config.num_blocks)
        if tensor.device.type != "cpu":
            raise ValueError(f"{name} is on {tensor.device}: host memory is needed")
        place = places.setdefault(tensor.data_ptr(), len(arrays))
        if place == len(arrays):
            arrays.append(_as_bytes(tensor, by_layer.get(name, spec).page_size_bytes, name))
        parts[name] = place
    return parts, arrays


def _as_bytes(tensor: torch.Tensor, page: int, name: str) -> np.ndarray:
    """The pages as bytes, whatever the element type and the order of heads and tokens within a page."""
    width = tensor.element_size()
    used = sum((extent - 1) * stride for extent, stride in zip(tensor.shape[1:], tensor.stride()[1:], strict=True)) + 1
    if used * width > page or tensor[0].numel() * width != page:
        raise ValueError(f"the pages of {name} are not runs of {page} bytes: this KV cache layout is not supported")
    flat = torch.tensor([], dtype=torch.uint8).set_(
        tensor.untyped_storage(),
        tensor.storage_offset() * width,
        (tensor.shape[0], page),
        (tensor.stride(0) * width, 1),
    )
    return flat.numpy()
