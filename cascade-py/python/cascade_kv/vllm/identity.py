"""Which blocks may be shared: key spaces from vLLM's configuration, with what vLLM's own block hash leaves out.

vLLM's hash of a block covers its tokens, the blocks before it, LoRA name and path, multimodal hashes and the cache salt. It says
nothing of the weights, dtype, layout, block size or shard; those, and the hash algorithm, are in the key space.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from cascade_kv import BlockId, KeySpace

_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf")
# Fields of a model's configuration that name places or versions and change no value of the cache.
_NEUTRAL = frozenset({"_name_or_path", "name_or_path", "transformers_version"})
# Rotary embeddings that vLLM sets up by the longest sequence it is to serve.
_LENGTH_ROPE = ("longrope", "dynamic", "su")


class Scope(NamedTuple):
    """What the blocks of a request are kept under beside the engine's configuration.

    Attributes:
        adapter: fingerprint of its LoRA weights, or None.
        epoch: empty, or drawn when vLLM said that everything is to be forgotten: then nobody else has these blocks.
    """

    adapter: str | None = None
    epoch: str = ""


class UnsupportedModelError(ValueError):
    """This configuration cannot be kept by prefix blocks; the message has the reason and, where there is one, a cure."""


def check_supported(config: Any, kv_cache_config: Any) -> None:
    """Refuse at start what could not be right later.

    Args:
        config: vLLM's `VllmConfig`.
        kv_cache_config: vLLM's `KVCacheConfig`.

    Raises:
        UnsupportedModelError: with the reason.
    """
    from vllm.v1.kv_cache_interface import FullAttentionSpec, UniformTypeKVCacheSpecs

    parallel = config.parallel_config
    for name in ("pipeline_parallel_size", "decode_context_parallel_size", "prefill_context_parallel_size"):
        if getattr(parallel, name, 1) > 1:
            raise UnsupportedModelError(
                f"{name} > 1 is not supported: shards are told apart by tensor-parallel rank alone"
            )
    speculative = config.speculative_config
    if speculative is not None and getattr(speculative, "method", None) != "ngram":
        raise UnsupportedModelError(
            "speculative decoding with a draft model: its weights are in no key; use method 'ngram'"
        )
    if config.device_config.device_type != "cpu":
        raise UnsupportedModelError(
            f"KV on {config.device_config.device_type}: the connector reaches host memory only; use the tier 'cascade' under "
            "CascadeOffloadingConnector there (docs/vllm.md)"
        )
    groups = kv_cache_config.kv_cache_groups
    if len(groups) != 1:
        kinds = ", ".join(sorted({type(group.kv_cache_spec).__name__ for group in groups}))
        raise UnsupportedModelError(
            f"{len(groups)} groups of KV caches ({kinds}): blocks of a window or a state do not follow from the prefix one by "
            "one; start vLLM with --disable-hybrid-kv-cache-manager, which keeps every token's KV of windowed layers too"
        )
    spec = groups[0].kv_cache_spec
    specs = list(spec.kv_cache_specs.values()) if isinstance(spec, UniformTypeKVCacheSpecs) else [spec]
    for one in specs:
        if type(one) is not FullAttentionSpec:
            raise UnsupportedModelError(
                f"KV caches of kind {type(one).__name__}: only full attention is supported (windowed layers too, with "
                "--disable-hybrid-kv-cache-manager beside full ones; not MLA, Mamba or encoders)"
            )


def describe(config: Any) -> dict[str, Any]:
    """What decides the values of the cache beside the weights, from vLLM's `VllmConfig`."""
    model, cache = config.model_config, config.cache_config
    return {
        "config": _neutral(model.hf_config.to_dict()),
        "longest": model.max_model_len if _depends_on_length(model.hf_text_config) else None,
        "hash": cache.prefix_caching_hash_algo,
        "quantisation": [str(model.quantization), str(model.dtype), cache.cache_dtype],
    }


class Identity:
    """The key spaces of one engine: one for each shard (tensor-parallel rank) and LoRA adapter."""

    def __init__(self, config: Any, kv_cache_config: Any, weights: str | None, tenant_secret: str | None) -> None:
        """Fingerprint the weights, unless `weights` names them.

        Raises:
            UnsupportedModelError: no weights were found to fingerprint.
            ValueError: the secret is too short.
        """
        model, cache = config.model_config, config.cache_config
        group = kv_cache_config.kv_cache_groups[0]
        self.block_tokens: int = group.kv_cache_spec.block_size
        self.shards: int = config.parallel_config.tensor_parallel_size
        self._heads: int = model.get_total_num_kv_heads()
        self._secret = tenant_secret.encode() if tenant_secret else None
        self._spaces: dict[tuple[int, Scope], KeySpace] = {}
        described = {
            "weights": weights or checkpoint_fingerprint(model.model, model.revision, config.load_config.load_format),
            **describe(config),
            "layers": sorted(group.layer_names),
            "page": [group.kv_cache_spec.page_size_bytes, str(getattr(group.kv_cache_spec, "dtype", ""))],
        }
        self._fields: dict[str, Any] = {
            "model": str(getattr(model.hf_config, "model_type", "unknown")),
            "weights": digest(described),
            "quantisation": str(model.quantization) if model.quantization else None,
            "dtype": f"{model.dtype}/{cache.cache_dtype}".replace("torch.", ""),
            "layout": f"vllm1:{cache.kv_cache_layout}",
            "block_tokens": self.block_tokens,
            "layers": len(group.layer_names),
            "kv_heads": self._heads,
        }

    def ids(self, hashes: list[bytes], shard: int, scope: Scope) -> list[BlockId]:
        """Ids of blocks by vLLM's hashes of them, as `shard` holds them."""
        return self._space(shard, scope).foreign_batch(hashes)

    def _space(self, shard: int, scope: Scope) -> KeySpace:
        key = (shard, scope)
        if key not in self._spaces:
            # With more ranks than heads several ranks hold the same head, and so the same blocks.
            first = shard * self._heads // self.shards
            end = first + max(1, self._heads // self.shards)
            fields = dict(self._fields)
            if scope.epoch:
                fields["weights"] = digest([fields["weights"], scope.epoch])
            self._spaces[key] = KeySpace(
                **fields, head_range=(first, end), adapter=scope.adapter, tenant_secret=self._secret
            )
        return self._spaces[key]


def checkpoint_fingerprint(model: str, revision: str | None, load_format: str) -> str:
    """64 hexadecimal digits over every byte of a model's weights.

    Hashes are kept beside the user's other caches by path, size, inode and times of the file, so that this is done once.

    Raises:
        UnsupportedModelError: no weights on this machine.
    """
    if load_format == "dummy":
        return digest(["dummy", model])
    files = sorted(_weight_files(model, revision))
    if not files:
        raise UnsupportedModelError(
            f"no weights of {model} found on this machine to fingerprint: set weights_fingerprint to a name for them"
        )
    return files_fingerprint(files)


def adapter_files(place: str) -> list[Path]:
    """What decides the values of a LoRA adapter: its weights, and the configuration that scales them.

    Raises:
        UnsupportedModelError: no weights on this machine.
    """
    files = sorted(_weight_files(place, None))
    if not files:
        raise UnsupportedModelError(f"no weights of {place} found on this machine to fingerprint")
    settings = files[0].parent / "adapter_config.json"
    return [*files, settings] if settings.is_file() else files


def files_fingerprint(files: list[Path]) -> str:
    """64 hexadecimal digits over names and bytes of files."""
    return digest([[path.name, _file_digest(path)] for path in files])


def stamp(path: Path) -> list[Any]:
    """What changes when a file does."""
    real = path.resolve()
    stat = real.stat()
    return [str(real), stat.st_size, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns]


def _weight_files(model: str, revision: str | None) -> Iterable[Path]:
    place = Path(model)
    if not place.exists():
        try:
            from huggingface_hub import snapshot_download

            place = Path(snapshot_download(model, revision=revision, local_files_only=True))
        except (OSError, ValueError, ImportError):
            return []
    if place.is_file():
        return [place]
    return [path for path in place.iterdir() if path.suffix in _WEIGHTS and path.is_file()]


def _file_digest(path: Path) -> str:
    now = stamp(path)
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cascade" / "weights"
    note = home / digest(now)
    try:
        known = note.read_text()
        if len(known) == 64:
            return known
    except OSError:
        pass
    found = _content(path, now[1])
    try:
        home.mkdir(parents=True, exist_ok=True)
        partial = note.with_suffix(f".{os.getpid()}")
        partial.write_text(found)
        partial.replace(note)
    except OSError:
        pass  # a home that cannot be written costs time alone
    return found


def _content(path: Path, size: int) -> str:
    if size == 0:
        return BlockId.content(b"").hex()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        return BlockId.content(view).hex()


def _depends_on_length(text: Any) -> bool:
    found = [getattr(text, name, None) for name in ("rope_parameters", "rope_scaling")]
    return any(kind in json.dumps(one, default=str) for one in found if one for kind in _LENGTH_ROPE)


def _neutral(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _neutral(inner) for key, inner in value.items() if key not in _NEUTRAL}
    return value


def digest(value: Any) -> str:
    """64 hexadecimal digits of a value that JSON can write."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
