"""Cascade under vLLM: a KV connector (`CascadeConnector`) and a tier of vLLM's own offloading (`cascade`).

Installing the wheel registers both names. On the command line:

    vllm serve MODEL --kv-transfer-config "$(python -m cascade_kv.vllm --shm-path /dev/shm/kv --shm-capacity-bytes 8589934592)"

and in a program:

    from cascade_kv.vllm import kv_transfer_config
    llm = LLM(model=MODEL, kv_transfer_config=kv_transfer_config(shm_path="/dev/shm/kv", shm_capacity_bytes=8 << 30))

docs/vllm.md has the settings and the metrics. Written for and tested with vLLM 0.32.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vllm.config import KVTransferConfig

__all__ = ["kv_transfer_config", "kv_transfer_settings", "register"]


def kv_transfer_settings(**extra: Any) -> dict[str, Any]:
    """The dict that `--kv-transfer-config` takes as JSON, with a failed load recomputed (vLLM's default fails the request).

    Args:
        extra: settings of the connector and of the store, as `kv_connector_extra_config` takes them (docs/vllm.md).
    """
    return {
        "kv_connector": "CascadeConnector",
        "kv_role": "kv_both",
        "kv_load_failure_policy": "recompute",
        "kv_connector_extra_config": {name: value for name, value in extra.items() if value is not None},
    }


def kv_transfer_config(**extra: Any) -> KVTransferConfig:
    """:func:`kv_transfer_settings` as the object that `LLM(kv_transfer_config=...)` takes."""
    from vllm.config import KVTransferConfig

    return KVTransferConfig(**kv_transfer_settings(**extra))


def register() -> None:
    """Make the names known to vLLM, which calls this in each of its processes (`vllm.general_plugins`)."""
    from vllm.distributed.kv_transfer.kv_connector.factory import KVConnectorFactory
    from vllm.v1.kv_offload.factory import OffloadingSpecFactory
    from vllm.v1.kv_offload.tiering.factory import SecondaryTierFactory

    # All three raise for a name that is there, and vLLM may call this twice in a process.
    for name, module in (("CascadeConnector", "connector"), ("CascadeOffloadingConnector", "offloading")):
        if name not in KVConnectorFactory._registry:
            KVConnectorFactory.register_connector(name, f"cascade_kv.vllm.{module}", name)
    if "cascade" not in SecondaryTierFactory._registry:
        SecondaryTierFactory.register_tier("cascade", "cascade_kv.vllm.tier", "CascadeTier")
    if "CascadeCpuTieringSpec" not in OffloadingSpecFactory._registry:
        OffloadingSpecFactory.register_spec("CascadeCpuTieringSpec", "cascade_kv.vllm.cpu", "CascadeCpuTieringSpec")
