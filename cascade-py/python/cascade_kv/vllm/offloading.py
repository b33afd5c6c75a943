"""vLLM's own offloading, told of what its tier `cascade` has to keep apart."""

from __future__ import annotations

import os
from typing import Any

from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorRole
from vllm.distributed.kv_transfer.kv_connector.v1.offloading_connector import OffloadingConnector

from cascade_kv.vllm.identity import UnsupportedModelError, describe, digest

# Where the tier finds it, in the extra configuration that vLLM hands down.
ENGINE = "cascade_engine"


class CascadeOffloadingConnector(OffloadingConnector):
    """`OffloadingConnector`, whose tiers see neither the model's configuration nor how its weights are loaded: this one says it."""

    def __init__(self, vllm_config: Any, role: KVConnectorRole, kv_cache_config: Any) -> None:
        """As the base class.

        Raises:
            UnsupportedModelError: LoRA or a draft model, whose weights are in no key, without `weights_fingerprint`.
        """
        self._extra = vllm_config.kv_transfer_config.kv_connector_extra_config
        if role == KVConnectorRole.SCHEDULER:
            tell(vllm_config, self._extra)
        super().__init__(vllm_config, role, kv_cache_config)

    def reset_cache(self) -> bool | None:
        """As the base class; and the tier finds nothing any more of what was stored until now: weights may have changed."""
        done = super().reset_cache()
        # No transfer is under way now, so that nothing of before is stored under the new name.
        if ENGINE in self._extra:
            self._extra[ENGINE]["epoch"] = os.urandom(16).hex()
        return done


def tell(config: Any, extra: dict[str, Any]) -> None:
    """Put into the extra configuration what the tier needs to know of vLLM's `VllmConfig`.

    Raises:
        UnsupportedModelError: what the tier could not tell apart.
    """
    tiers = [one for one in extra.get("secondary_tiers", []) if one.get("type") == "cascade"]
    if not all(one.get("weights_fingerprint") for one in tiers):
        speculative = config.speculative_config
        drafts = speculative is not None and getattr(speculative, "method", None) != "ngram"
        for there, what in ((config.lora_config is not None, "LoRA"), (drafts, "a draft model")):
            if there:
                raise UnsupportedModelError(
                    f"{what}: its weights are in no key of the tier 'cascade'; set weights_fingerprint to a name that changes "
                    "with them, or use CascadeConnector"
                )
    model = config.model_config
    extra[ENGINE] = {
        "weights": [model.model, model.revision, config.load_config.load_format],
        "config": digest(describe(config)),
        "epoch": "",
    }
