"""vLLM with Cascade against vLLM without: answers are equal, blocks are really moved, and faults are seen."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
from conftest import (
    BLOCK,
    counted,
    environment,
    finish,
    in_memory,
    moved,
    note,
    remove_left,
    reusable,
    run_chains,
    same,
    same_as_cached,
    start,
    tier,
)
from prompts import prompts

from cascade_kv.vllm import kv_transfer_settings

COUNT = int(os.environ.get("CASCADE_VLLM_PROMPTS", "10"))


@pytest.fixture(scope="session")
def asked():
    """The prompts of every run."""
    return prompts(COUNT)


@pytest.fixture(scope="session")
def runs(models, place, disk, asked):
    """Every engine that needs no process of its own, one after the other in two."""
    # The engine that keeps all prompts needs 15 blocks for each; 2048 are what vLLM has in a gigabyte.
    room = {"num_gpu_blocks_override": min(2048, 64 + 16 * COUNT)}
    plain = {"model": models["plain"], "options": room}
    alone = plain | {"alone": True}
    arena = {"shm_path": str(place / "main"), "shm_capacity_bytes": max(256, 8 * COUNT) << 20}
    tiered = {"shm_path": str(place / "tier"), "shm_capacity_bytes": max(256, 8 * COUNT) << 20}
    filed = {
        "shm_path": str(place / "filed"),
        "shm_capacity_bytes": 256 << 20,
        "pfs_path": str(disk / "files"),
    }
    small = {"shm_path": str(place / "small"), "shm_capacity_bytes": 64 << 20}
    few, one = asked[:4], asked[:1]
    whole = [_whole(asked)]
    salted = [{"tokens": one[0], "salt": salt} for salt in ("a", "b", "a")]
    # Of one name, as two versions of an adapter are.
    adapted = [
        {"tokens": one[0]} | ({"lora": ["style", number, models[name]]} if name else {})
        for number, name in ((1, "lora-a"), (0, None), (2, "lora-b"), (1, "lora-a"), (2, "lora-b"), (0, None))
    ]
    adapting = {"options": {"enable_lora": True, "max_lora_rank": 8, "max_loras": 2}}
    tight = {
        "num_gpu_blocks_override": 31,
        "max_model_len": 2048,
        "max_num_batched_tokens": 512,
        "enable_chunked_prefill": True,
    }
    # They share nothing, and two of them do not fit when they have grown.
    apart = [prompt[::-1] for prompt in asked[:4]]
    window = {"model": models["window"], "options": {"disable_hybrid_kv_cache_manager": True}}
    main = {
        # Every prompt twice: the second time vLLM finds in its own cache what Cascade is to find for another engine.
        "without": plain | {"passes": [asked, asked, whole, whole], "keep": True},
        "cold": plain | {"passes": [asked, whole], "connector": arena},
        "warm": alone | {"passes": [asked, whole], "connector": arena},
        "async": alone | {"passes": [asked, whole], "connector": arena | {"load_async": True}},
        "by layer": alone | {"passes": [asked, whole], "connector": arena | {"by_layer": True}},
        "batches": plain | {"passes": [asked], "connector": arena, "batch": 4},
        "zeroed": plain | {"passes": [few], "connector": arena, "fault": "zeroed"},
        "claimed": plain | {"passes": [few], "connector": arena, "fault": "claimed"},
        "evicted": plain | {"passes": [few, few], "connector": arena, "fault": "evicted", "faulty_passes": [0]},
        "damaged": plain | {"passes": [one], "connector": arena, "fault": "damaged"},
        "first evicted": plain | {"passes": [few], "connector": arena | {"load_async": True}, "fault": "first_evicted"},
        "raising": plain | {"passes": [few], "connector": arena, "fault": "raising"},
        "other weights": {"model": models["other"], "passes": [one], "connector": arena},
    }
    others = {
        "removed": plain
        | {"passes": [few] * 3, "connector": small | {"shm_path": str(place / "removed")}}
        | {"fault": "removed", "faulty_passes": [1]},
        "other layer writer": plain
        | {"passes": [few, few], "connector": small | {"by_layer": True, "weights_fingerprint": "layers"}},
        "preempted without": plain | {"passes": [apart], "batch": 4, "options": tight, "new_tokens": 160},
        "preempted": plain
        | {"passes": [apart] * 2, "batch": 4, "options": tight, "new_tokens": 160}
        | {"connector": small | {"weights_fingerprint": "tight", "save_async": True, "load_async": True}},
        "forgotten": plain
        | {"passes": [one, one], "connector": small | {"weights_fingerprint": "forgotten"}, "forget": True},
        "salted": plain | {"passes": [[one] for one in salted], "connector": small | {"weights_fingerprint": "salt"}},
        "adapters without": plain | adapting | {"passes": [[one] for one in adapted[:3]]},
        "adapters": plain
        | adapting
        | {"passes": [[one] for one in adapted], "connector": small | {"shm_path": str(place / "adapters")}},
        "events": plain
        | {
            "passes": [few, few],
            "connector": small | {"shm_path": str(place / "events")},
            "events": str(disk / "events"),
        },
        "tier cold": plain | {"passes": [asked], "transfer": tier(**tiered)},
        "tier warm": alone | {"passes": [asked], "transfer": tier(**tiered)},
        "files cold": plain | {"passes": [few], "connector": filed},
        "files": plain | {"passes": [few, few], "connector": filed, "remove": filed["shm_path"]},
        "window without": window | {"passes": [one, one], "keep": True},
        "window cold": window | {"passes": [one], "connector": small},
        "window": window | {"passes": [one], "connector": small},
    }
    for name, model, change in (
        ("refused policy", "plain", {"kv_load_failure_policy": "fail"}),
        ("refused setting", "plain", {"kv_connector_extra_config": small | {"no_such_setting": 1}}),
        ("refused window", "window", {}),
    ):
        transfer = kv_transfer_settings(**small) | change
        others[name] = {"model": models[model], "passes": [], "transfer": transfer}
    wanted = os.environ.get("CASCADE_VLLM_RUNS")
    chains = [
        {name: job for name, job in jobs.items() if not wanted or name in wanted.split(",")} for jobs in (main, others)
    ]
    found = run_chains(chains, disk, "runs", seconds=900 + 30 * COUNT)
    for name, run in found.items():
        if "refused" in run:
            print(f"\n{name}: did not run: {run['refused'][:300]}", end="")
            continue
        moved = {key[13:]: count for key, count in run["metrics"].items() if "cascade_" in key and count}
        print(f"\n{name}: started in {run['start_seconds']:.1f} s; {moved}", end="")
    return found


def _whole(asked):
    """A prompt that ends with a block, and shares nothing with the others."""
    return asked[0][::-1][: 5 * BLOCK]


def blocks(answers):
    """Blocks that vLLM says it did not compute."""
    return sum(one["cached"] for one in answers) // BLOCK


def test_what_is_computed_is_as_without_cascade(runs):
    same(runs["cold"]["passes"][0], runs["without"]["passes"][0])
    assert counted(runs["cold"], "blocks_stored") > 0
    assert counted(runs["cold"], "bytes_stored") == counted(runs["cold"], "blocks_stored") * 4 * BLOCK * 1024
    assert counted(runs["cold"], "blocks_loaded") == counted(runs["cold"], "errors") == 0


@pytest.mark.parametrize("name", ["warm", "async", "by layer"])
def test_what_is_loaded_answers_as_what_was_computed(runs, asked, name):
    run = runs[name]
    answers = run["passes"][0]
    worst = same_as_cached(answers, runs["without"]["passes"][1], asked)
    assert [one["cached"] for one in answers] == [reusable(prompt) for prompt in asked]
    counts = moved(run, [*asked, _whole(asked)])
    note(f"llama_{name}", {"prompts": len(asked), "largest_difference_of_logprobs": worst} | counts)


@pytest.mark.parametrize("name", ["warm", "async", "by layer"])
def test_of_a_prompt_of_whole_blocks_one_token_is_computed(runs, name):
    computed, cached = runs["without"]["passes"][2:]
    (answer,) = runs[name]["passes"][1]
    # vLLM itself computes the last block again.
    assert (computed[0]["cached"], cached[0]["cached"], answer["cached"]) == (0, 4 * BLOCK, 5 * BLOCK - 1)
    same([answer], computed, within=1e-4)
    same([answer], cached, within=1e-4)


def test_prompts_at_once_answer_alike(runs):
    # Other prompts in the batch change the last bits of the kernels' sums.
    same(runs["batches"]["passes"][0], runs["without"]["passes"][1], within=1e-3)
    assert counted(runs["batches"], "blocks_loaded") > 0


@pytest.mark.parametrize("name", ["zeroed", "claimed"])
def test_kv_that_is_not_there_is_seen_in_the_answers(runs, name):
    """The negative control: this is how a connector that loads nothing, or nonsense, would look."""
    for one, other in zip(runs[name]["passes"][0], runs["without"]["passes"][1], strict=False):
        assert one["cached"] == other["cached"]
        assert one["tokens"] != other["tokens"]


@pytest.mark.parametrize("name", ["evicted", "damaged", "first evicted"])
def test_blocks_that_cannot_be_loaded_are_computed(runs, name):
    run = runs[name]
    same(run["passes"][0], runs["without"]["passes"][0][: len(run["passes"][0])], within=1e-3)
    assert counted(run, "blocks_failed") > 0
    assert counted(run, "blocks_stored") >= counted(run, "blocks_failed")
    assert counted(run, "errors") == 0


def test_what_was_computed_again_was_saved_right(runs):
    """Nothing that was computed of a load that failed may be found later."""
    same(runs["evicted"]["passes"][1], runs["without"]["passes"][1][:4], within=1e-3)


def test_errors_of_the_store_are_survived_and_counted(runs):
    same(runs["raising"]["passes"][0], runs["without"]["passes"][0][:4], within=1e-3)
    assert counted(runs["raising"], "errors") > 0


def test_an_engine_whose_arena_is_removed_goes_on(runs, place):
    """It has the memory still; the folder is gone, and other engines begin a new one."""
    run = runs["removed"]
    same(run["passes"][0], runs["without"]["passes"][0][:4])
    for answers in run["passes"][1:]:
        same(answers, runs["without"]["passes"][1][:4], within=1e-3)
    assert counted(run, "blocks_loaded") > 0
    assert counted(run, "errors") == 0
    assert not (place / "removed").exists()


def test_other_weights_find_nothing(runs):
    assert runs["other weights"]["passes"][0][0]["cached"] == 0
    assert counted(runs["other weights"], "blocks_loaded") == 0


def test_layers_saved_one_by_one_are_whole_blocks(runs):
    run = runs["other layer writer"]
    same(run["passes"][0], runs["without"]["passes"][0][:4])
    same(run["passes"][1], runs["without"]["passes"][1][:4])
    assert counted(run, "blocks_stored") == counted(run, "blocks_loaded") > 0


def test_preempted_requests_answer_alike(runs):
    run = runs["preempted"]
    assert run["metrics"]["vllm:num_preemptions"] > 0
    for answers in run["passes"]:
        same(answers, runs["preempted without"]["passes"][0], within=1e-2)
    assert counted(run, "blocks_loaded") > 0
    assert counted(run, "errors") == 0


def test_another_salt_finds_nothing(runs):
    first, second, third = (answers[0] for answers in runs["salted"]["passes"])
    assert first["cached"] == second["cached"] == 0
    assert third["cached"] > 0
    assert counted(runs["salted"], "blocks_loaded") == third["cached"] // BLOCK
    assert first["tokens"] == second["tokens"] == third["tokens"]


def test_what_was_stored_is_forgotten_with_vllms_cache(runs):
    """`reset_prefix_cache(reset_connector=True)`: weights may have changed under the same files."""
    run = runs["forgotten"]
    first, second = (answers[0] for answers in run["passes"])
    assert first["cached"] == second["cached"] == 0
    assert counted(run, "blocks_loaded") == counted(run, "errors") == 0
    # What was there could not be stored again under its name.
    assert counted(run, "blocks_present") == 0
    assert counted(run, "blocks_stored") % 2 == 0
    same([first], [second])


def test_each_adapter_finds_its_own_blocks(runs):
    run = runs["adapters"]
    answers = [answers[0] for answers in run["passes"]]
    first, again = answers[:3], [answers[3], answers[5], answers[4]]
    assert [one["cached"] for one in first] == [0, 0, 0]
    for one, other, (reference,) in zip(first, again, runs["adapters without"]["passes"], strict=True):
        assert other["cached"] > 0
        same([one], [reference])
        same([other], [reference], within=1e-3)
    assert len({tuple(one["tokens"]) for one in first}) == 3
    assert counted(run, "errors") == 0


def test_what_is_stored_is_told_of(runs):
    """Once for each block, however often it is asked for; beside vLLM's own events."""
    run = runs["events"]
    assert run["events"]["BlockStored CPU"] == counted(run, "blocks_stored") > 0
    assert run["events"]["BlockStored GPU"] >= run["events"]["BlockStored CPU"]


def test_two_ranks_find_what_both_have(models, place, disk, asked):
    ranks = {"tensor_parallel_size": 2, "distributed_executor_backend": "mp"}
    arena = {"shm_path": str(place / "ranks"), "shm_capacity_bytes": 256 << 20}
    job = {"model": models["plain"], "passes": [asked[:4]] * 2, "connector": arena, "separate": True, "options": ranks}
    before = in_memory()
    (run,) = finish(*start([job], disk, "ranks"))
    remove_left(before)
    computed, loaded = run["passes"]
    same(loaded, computed, within=1e-3)
    assert all(one["cached"] == (len(prompt) - 1) // BLOCK * BLOCK for one, prompt in zip(loaded, asked, strict=False))
    # Each rank has its heads of every block.
    assert counted(run, "blocks_loaded") == counted(run, "blocks_stored") > 0
    assert counted(run, "blocks_stored") % 2 == counted(run, "errors") == 0


def test_the_tier_of_vllms_offloading(runs):
    cold, warm = (runs[f"tier {name}"] for name in ("cold", "warm"))
    computed, cached = runs["without"]["passes"][:2]
    # vLLM takes all of a prompt from its tiers, and computes only the last token again: other sums than a whole block's.
    worst = max(same(cold["passes"][0], computed, within=1e-4), same(warm["passes"][0], cached, within=1e-4))
    hits = warm["metrics"]["vllm:prompt_tokens_cached_by_source:disk"]
    note("llama_tier", {"prompts": COUNT, "largest_difference_of_logprobs": worst, "tokens_of_the_tier": hits})
    assert warm["metrics"]["vllm:external_prefix_cache_hits"] >= hits > 0


def test_files_serve_when_the_arena_is_gone(runs):
    run = runs["files"]
    same(run["passes"][0], runs["without"]["passes"][1][:4])
    same(run["passes"][1], runs["without"]["passes"][1][:4])
    assert counted(run, "tokens_saved_files") > 0
    assert run["metrics"]["vllm:prompt_tokens_cached_by_source:disk"] > 0
    assert counted(run, "blocks_stored") == counted(run, "errors") == 0
    # The second time they are up.
    assert counted(run, "tokens_saved_arena") > 0


def test_windowed_layers_with_every_token_kept(runs):
    same(runs["window cold"]["passes"][0], runs["window without"]["passes"][0])
    same(runs["window"]["passes"][0], runs["window without"]["passes"][1])
    assert counted(runs["window"], "blocks_loaded") > 0


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("refused policy", "kv_load_failure_policy"),
        ("refused setting", "no_such_setting"),
        ("refused window", "--disable-hybrid-kv-cache-manager"),
    ],
)
def test_what_could_not_be_right_is_refused_at_start(runs, name, what):
    assert what in runs[name]["refused"]


def test_two_engines_share_an_arena(models, place, disk, asked):
    arena = {"shm_path": str(place / "shared"), "shm_capacity_bytes": 256 << 20}
    meeting = disk / "meeting"
    meeting.mkdir()
    # They share nothing.
    mine, yours = [asked[0]], [asked[0][::-1]]
    jobs = []
    for me, other, passes in (("a", "b", [mine, yours]), ("b", "a", [yours, mine])):
        meet = {"folder": str(meeting), "me": me, "other": other}
        jobs.append({"model": models["plain"], "passes": passes, "connector": arena, "meet": meet})
    started = [start([job], disk, f"engine-{number}") for number, job in enumerate(jobs)]
    found = [finish(process, result)[0] for process, result in started]
    for run, other in zip(found, reversed(found), strict=True):
        assert run["passes"][0][0]["cached"] == 0
        assert run["passes"][1][0]["cached"] == (len(asked[0]) - 1) // BLOCK * BLOCK
        assert run["passes"][1][0]["tokens"] == other["passes"][0][0]["tokens"]
        assert counted(run, "blocks_loaded") == run["passes"][1][0]["cached"] // BLOCK


class Server:
    """`vllm serve` in processes of its own."""

    def __init__(self, model, connector, disk):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        printed = subprocess.run(
            [sys.executable, "-m", "cascade_kv.vllm", *connector], check=True, capture_output=True, text=True
        )
        # What `vllm serve` runs; the command itself does not start from the package for CPUs, which has another name.
        words = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", model, "--port", str(self.port)]
        words += ["--host", "127.0.0.1", "--dtype", "float32", "--max-model-len", "4096", "--enforce-eager"]
        words += ["--num-gpu-blocks-override", "64"]
        words += [
            "--max-num-seqs",
            "4",
            "--enable-prompt-tokens-details",
            "--kv-transfer-config",
            printed.stdout.strip(),
        ]
        settings = {"VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        settings |= {"VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
        self.log = disk / f"server-{self.port}.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                words, env=environment() | settings, stdout=log, stderr=log, start_new_session=True
            )

    def ask(self, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data)
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=300) as answer:
            return answer.read().decode()

    def wait(self):
        until = time.monotonic() + 400
        while True:
            try:
                return self.ask("/health")
            except OSError as error:
                if self.process.poll() is not None or time.monotonic() > until:
                    raise AssertionError(f"no server:\n{self.log.read_text()[-5000:]}") from error
            time.sleep(0.5)

    def complete(self, prompt):
        body = {"prompt": prompt, "max_tokens": 8, "temperature": 0, "logprobs": 1, "ignore_eos": True}
        answer = json.loads(self.ask("/v1/completions", body | {"add_special_tokens": False}))
        (choice,), details = answer["choices"], answer["usage"].get("prompt_tokens_details") or {}
        return choice["text"], choice["logprobs"]["token_logprobs"], details.get("cached_tokens") or 0

    def metric(self, name):
        lines = [line for line in self.ask("/metrics").split("\n") if line.startswith((f"{name}_total", f"{name}{{"))]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)

    def kill(self):
        """SIGKILL for all of its processes."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def test_a_server_that_was_killed_starts_again_with_a_hit(models, place, disk, asked):
    before = in_memory()
    connector = ["--shm-path", str(place / "served"), "--shm-capacity-bytes", str(256 << 20)]
    prompt = asked[0]
    answers = []
    for life in range(2):
        server = Server(models["plain"], connector, disk)
        try:
            server.wait()
            answers.append(server.complete(prompt))
            until = time.monotonic() + 60
            wanted = "vllm:cascade_tokens_saved_arena" if life else "vllm:cascade_blocks_stored"
            # Counters come out with a later step.
            while not server.metric(wanted) and time.monotonic() < until:
                server.complete([5, 6, 7])
            assert server.metric(wanted) > 0
            assert (server.metric("vllm:external_prefix_cache_hits") > 0) == bool(life)
        finally:
            server.kill()
            remove_left(before)
    (text, logprobs, cached), (again, logprobs_again, hit) = answers
    assert text == again
    assert all(abs(a - b) <= 1e-3 for a, b in zip(logprobs, logprobs_again, strict=True))
    assert (cached, hit) == (0, reusable(prompt))
