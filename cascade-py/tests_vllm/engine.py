"""vLLM engines in a process of their own, one after the other: reads a list of jobs as JSON from its first argument, and writes a
list of results to its second after each.

A job is an engine: `model`, `passes` (lists of prompts, each a list of token ids or an object with `tokens` and `salt` or `lora`; between passes vLLM's own prefix cache is forgotten, unless
`keep`; with `alone` it is before every batch of them; with `forget` the connector's too), and optionally `remove` (a folder that is gone before the engine starts), `meet` (`folder`, `me`, `other`: after each pass it
waits for the other process to have come as far), `connector` (what `kv_transfer_config` takes), `transfer` (all of it instead), `options` of the engine, `batch`
(prompts of a pass at once), `fault` (a name of `faults.py`), `faulty_passes`, `new_tokens`, `separate` (the engine in processes
of its own, as `vllm serve` has it), `events` (a path for a socket, where vLLM publishes KV events, which are counted by medium).
"""

import gc
import json
import os
import shutil
import sys
import time
import traceback

os.environ.update(
    HF_HUB_OFFLINE="1",
    VLLM_NO_USAGE_STATS="1",
    VLLM_CPU_OMP_THREADS_BIND="nobind",
    OMP_NUM_THREADS="1",
)
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")


def options_of(job: dict) -> dict:
    """Arguments of `LLM`."""
    options = dict(
        model=job["model"],
        skip_tokenizer_init=True,
        enforce_eager=True,
        dtype="float32",
        max_model_len=4096,
        max_num_batched_tokens=4096,
        max_num_seqs=4,
        enable_prefix_caching=True,
        seed=0,
        disable_log_stats=False,
        # Without it vLLM clears a gigabyte at every start.
        num_gpu_blocks_override=256,
    )
    if not job.get("separate"):
        options["distributed_executor_backend"] = "uni"
    if "transfer" in job:
        from vllm.config import KVTransferConfig

        options["kv_transfer_config"] = KVTransferConfig(**job["transfer"])
    elif "connector" in job:
        from cascade_kv.vllm import kv_transfer_config

        options["kv_transfer_config"] = kv_transfer_config(**job["connector"])
    if "events" in job:
        from vllm.config import KVEventsConfig

        endpoint = f"ipc://{job['events']}"
        options["kv_events_config"] = KVEventsConfig(
            enable_kv_cache_events=True, publisher="zmq", endpoint=endpoint, topic="kv"
        )
    return options | job.get("options", {})


class Events:
    """What vLLM publishes of its caches: counts of blocks by kind and medium."""

    def __init__(self, path: str) -> None:
        import zmq

        self._socket = zmq.Context.instance().socket(zmq.SUB)
        self._socket.connect(f"ipc://{path}")
        self._socket.subscribe("kv")

    def counts(self) -> dict[str, int]:
        """Those until now."""
        import msgspec
        from vllm.distributed.kv_events import KVEventBatch

        decoder, found = msgspec.msgpack.Decoder(type=KVEventBatch), {}
        while self._socket.poll(1000):
            for event in decoder.decode(self._socket.recv_multipart()[2]).events:
                name = f"{type(event).__name__} {getattr(event, 'medium', None)}"
                found[name] = found.get(name, 0) + len(getattr(event, "block_hashes", ()))
        return found


def answers(llm, prompts: list, job: dict) -> list[dict]:
    """Greedy answers with logprobs, to `batch` prompts at once."""
    from vllm import SamplingParams
    from vllm.lora.request import LoRARequest

    params = SamplingParams(
        temperature=0.0, max_tokens=job.get("new_tokens", 8), ignore_eos=True, detokenize=False, logprobs=1
    )
    found, width = [], job.get("batch") or 1
    for first in range(0, len(prompts), width):
        if job.get("alone"):
            forget(llm, job)
        batch, adapters = [], []
        for prompt in prompts[first : first + width]:
            one = {"prompt_token_ids": prompt["tokens"] if isinstance(prompt, dict) else prompt}
            if isinstance(prompt, dict) and "salt" in prompt:
                one["cache_salt"] = prompt["salt"]
            batch.append(one)
            lora = prompt.get("lora") if isinstance(prompt, dict) else None
            adapters.append(LoRARequest(*lora) if lora else None)
        start = time.perf_counter()
        outputs = llm.generate(batch, params, use_tqdm=False, **({"lora_request": adapters} if any(adapters) else {}))
        seconds = time.perf_counter() - start
        for out in outputs:
            best = out.outputs[0]
            tokens = list(best.token_ids)
            found.append(
                {
                    "tokens": tokens,
                    "logprobs": [step[token].logprob for step, token in zip(best.logprobs, tokens, strict=True)],
                    "cached": out.num_cached_tokens,
                    "finish": best.finish_reason,
                    "seconds": seconds,
                }
            )
    return found


def forget(llm, job: dict) -> None:
    """Have vLLM forget its prefix cache."""
    for _ in range(50):
        # A request's pages are given back in a step after its saves have ended.
        answers(llm, [[3, 4, 5]], {"new_tokens": 2})
        if llm.reset_prefix_cache(reset_connector=bool(job.get("forget"))):
            return
        time.sleep(0.05)
    raise RuntimeError("vLLM did not forget its prefix cache")


def metrics_of(llm) -> dict[str, float]:
    """Counters by name, with the source where there is one."""
    found: dict[str, float] = {}
    for metric in llm.get_metrics():
        if hasattr(metric, "value"):
            name = metric.name + "".join(f":{metric.labels[label]}" for label in ("source",) if label in metric.labels)
            found[name] = found.get(name, 0) + metric.value
    return found


def meet(folder: str, me: str, other: str, number: int) -> None:
    """Wait until the other process is as far."""
    with open(os.path.join(folder, f"{me}.{number}"), "w"):
        pass
    until = time.monotonic() + 300
    while not os.path.exists(os.path.join(folder, f"{other}.{number}")):
        if time.monotonic() > until:
            raise TimeoutError(f"{other} did not come as far as pass {number}")
        time.sleep(0.05)


def run(job: dict) -> dict:
    """One engine, from its start to its end."""
    import faults
    from vllm import LLM

    if "remove" in job:
        shutil.rmtree(job["remove"])
    start = time.perf_counter()
    fault = faults.Fault(job.get("fault"))
    events = Events(job["events"]) if "events" in job else None
    # vLLM collects garbage five times as it starts: what is there before is not looked at. Its shutdown takes this back.
    gc.freeze()
    llm = LLM(**options_of(job))
    result: dict = {"start_seconds": time.perf_counter() - start, "passes": []}
    for number, prompts in enumerate(job["passes"]):
        if number and not job.get("keep"):
            forget(llm, job)
        fault.active = number in job.get("faulty_passes", range(len(job["passes"])))
        result["passes"].append(answers(llm, prompts, job))
        # What is saved aside is saved when the next pass looks for it.
        time.sleep(job.get("rest", 0.2))
        if "meet" in job:
            meet(number=number, **job["meet"])
    fault.active = False
    # One more step, so that the counters of the last one are out.
    answers(llm, [[3, 4, 5]], {"new_tokens": 2})
    result["metrics"] = metrics_of(llm)
    if events is not None:
        result["events"] = events.counts()
    llm.llm_engine.engine_core.shutdown()
    fault.undo()
    return result


def main(jobs: list[dict], result_path: str) -> None:
    """Run the jobs."""
    if not any(job.get("separate") for job in jobs):
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    results = []
    for job in jobs:
        try:
            results.append(run(job))
        except Exception as error:
            # The other engines run all the same; the tests of this one fail.
            traceback.print_exc()
            results.append({"refused": str(error)})
        with open(result_path, "w") as file:
            json.dump(results, file)
        gc.collect()


if __name__ == "__main__":
    with open(sys.argv[1]) as source:
        main(json.load(source), sys.argv[2])
    sys.stdout.flush()
    # Some of the engine's threads do not end by themselves.
    os._exit(0)
