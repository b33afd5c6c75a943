"""The demo from its command line, with a tiny random model: it shows what it says, and it fails when it should."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import xml.etree.ElementTree

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
transformers = pytest.importorskip("transformers", reason="Transformers is not installed")

from cascade_kv.demo import beyond, plot, report  # noqa: E402
from cascade_kv.demo.job import DemoError, Job  # noqa: E402
from cascade_kv.demo.prompts import make_prompts, read_questions  # noqa: E402

DOCUMENT = "The quick brown fox jumps over the lazy dog, again and again. " * 6


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    """A checkpoint of 0.3 M random parameters whose tokens are the bytes of the text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    folder = tmp_path_factory.mktemp("model")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<eos>": 0, **{character: index + 1 for index, character in enumerate(alphabet)}}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>").save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=600,
        initializer_range=0.2,
        eos_token_id=0,
        bos_token_id=None,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture
def arena(place):
    return str(place / "arena")


@pytest.fixture
def demo(model_dir, tmp_path):
    """Runs the demo with small defaults; further arguments override them."""
    (tmp_path / "document.txt").write_text(DOCUMENT)
    (tmp_path / "questions.txt").write_text("What jumps?\nOver what does it jump?\n---\nWhat is lazy?\n")

    def run(*arguments, folder=model_dir):
        command = [sys.executable, "-m", "cascade_kv.demo", "--model-dir", str(folder), "--out", str(tmp_path / "out")]
        command += ["--document", str(tmp_path / "document.txt"), "--questions", str(tmp_path / "questions.txt")]
        command += ["--block-tokens", "16", "--new-tokens", "4", "--repetitions", "2", "--shm-capacity", "64MiB"]
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=500, env=os.environ)
        return done, tmp_path / "out"

    return run


def test_restored_answers_equal_recomputed_ones(demo, arena, tmp_path):
    # The arena that stays records its files, which therefore stay too.
    kept = ("--shm-path", arena, "--pfs-path", str(tmp_path / "files"))
    done, out = demo("--json", *kept)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result == json.loads((out / "result.json").read_text())
    assert result["ok"] and result["failures"] == []
    assert result["killed"]["returncode"] == -9 and result["killed"]["lease_held"]
    assert result["control"]["logits_differ"] is True
    assert [question["stored"] for question in result["questions"]] == [True, True, False]
    for question in result["questions"]:
        assert question["restored_tokens"] == question["expected_tokens"] > 380
        assert question["ttft_restored_seconds"]["n"] == 2
    assert result["store"]["bytes_stored"] == result["store"]["blocks_stored"] * result["store"]["block_bytes"] > 0
    assert "every check held" in done.stderr
    assert done.stderr.count("from files, the arena lost") == 3
    files = result["files"]
    assert files["demoted_bytes"] == result["store"]["bytes_stored"] and files["arena_blocks_of_process_3"] == 0
    for question in result["questions"]:
        below = question["files"]
        assert below["restored_tokens"] == question["expected_tokens"] and below["ttft_seconds"]["n"] == 2
        assert below["blocks_from_files"] == question["expected_tokens"] // 16

    # Another run over the same results must not be fooled: every single deviation is a failure by name.
    wrote = {"returncode": -9, "lease_held_when_killed": True}
    questions = result["questions"]
    assert report._failures(wrote, questions, result["control"]) == []
    assert report._failures({**wrote, "returncode": 0}, questions, result["control"])
    assert report._failures(wrote, questions, {"logits_differ": False})
    for broken in (
        {"restored_tokens": 0},
        {"logits_equal_same_split": False},
        {"logits_equal_first_process": False},
        {"text_equal_plain_run": False},
        {"text_equal_first_process": False},
    ):
        failures = report._failures(wrote, [{**questions[0], **broken}], result["control"])
        assert len(failures) == 1 and "What jumps?" in failures[0]

    assert report._file_failures(files, questions, 16) == []
    assert len(report._file_failures({**files, "served_to_process_2": 1, "arena_blocks_of_process_3": 1}, [], 16)) == 2
    for broken in ({"restored_tokens": 0}, {"blocks_from_files": 1}, {"logits_equal": False}, {"text_equal": False}):
        damaged = [{**questions[0], "files": {**questions[0]["files"], **broken}}]
        failures = report._file_failures(files, damaged, 16)
        assert len(failures) == 1 and "What jumps?" in failures[0]

    svg = xml.etree.ElementTree.fromstring(plot.ttft_svg(result))
    assert svg.tag.endswith("svg") and (out / "ttft.svg").read_text().count("ms</text>") == 10 + len(
        result["overflow"]["by_tier"]
    )
    check_overflow(result)

    # The blocks outlive both processes: another run finds them and stores nothing.
    done, out = demo(*kept)
    assert done.returncode == 0, done.stderr
    store = json.loads((out / "result.json").read_text())["store"]
    assert store["blocks_stored"] == 0 and store["save_gbps"] is None


def check_overflow(result):
    over, alone = result["overflow"], result["nothing_shared"]
    assert over["prompts"] == 12 and over["stored_bytes"] > 1.5 * over["arena_bytes"]
    assert over["arena_blocks"] < over["stored_blocks"] and len(over["loads"]) == 24
    assert any(load["blocks_from_arena"] for load in over["loads"])
    assert any(load["blocks_from_files"] for load in over["loads"])
    assert alone["prompts"] == 12 and 0 < alone["asking_seconds"] + alone["saving_seconds"] and alone["share"] > 0
    # Every deviation is a failure by name.
    prompts = [{"found_tokens": 0, "refused": 0}]
    good = {"prompts": prompts, "loads": over["loads"]}
    assert beyond.failures(good, over, 16) == []
    assert len(beyond.failures({**good, "prompts": [{"found_tokens": 16, "refused": 1}]}, over, 16)) == 2
    assert len(beyond.failures(good, {**over, "arena_blocks": over["stored_blocks"]}, 16)) == 1
    first, *others = over["loads"]
    for broken in ({"restored_tokens": 0}, {"blocks_from_arena": 10**6}, {"logits_equal": False}):
        failures = beyond.failures({**good, "loads": [{**first, **broken}, *others]}, over, 16)
        assert len(failures) == 1 and f"prompt {first['prompt'] + 1}" in failures[0]
    only_files = [load for load in over["loads"] if not load["blocks_from_arena"]]
    assert any(
        "no block came from the arena" in failure
        for failure in beyond.failures({**good, "loads": only_files}, over, 16)
    )


def test_arena_without_the_blocks_fails_the_run(demo, arena, tmp_path, monkeypatch):
    """With a reader that looks in another arena nothing is restored: exit status 1, and the reason is named."""
    sabotage = tmp_path / "sabotage"
    sabotage.mkdir()
    (sabotage / "sitecustomize.py").write_text(
        "import sys\n"
        "if any('cascade_kv.demo.reader' in a for a in sys.orig_argv):\n"
        "    import cascade_kv\n"
        "    real = cascade_kv.Store\n"
        f"    other = {{'shm_path': {arena!r}, 'pfs_path': {arena + '.files'!r}}}\n"
        "    cascade_kv.Store = lambda **k: real(**{**k, **other})\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(sabotage), os.environ.get("PYTHONPATH", "")]))
    done, _ = demo()
    assert done.returncode == 1, done.stderr
    assert "restored 0 tokens where" in done.stderr


def test_unusable_input_is_a_clear_error(demo, tmp_path):
    long = tmp_path / "long.txt"
    long.write_text(DOCUMENT * 3)
    cases = [
        ((), {"folder": tmp_path / "absent"}, "no model file"),
        (("--document", str(tmp_path / "absent.txt")), {}, "there is no file"),
        (("--repetitions", "0"), {}, "at least 1"),
        (("--document", str(long)), {}, "the model's context is 600"),
    ]
    for arguments, options, message in cases:
        done, _ = demo(*arguments, **options)
        assert done.returncode == 2 and message in done.stderr, (arguments, done.stderr)
        assert "Traceback" not in done.stderr


def test_document_shorter_than_a_block_is_refused(model_dir, tmp_path):
    document, questions = tmp_path / "document.txt", tmp_path / "questions.txt"
    document.write_text("Too short.")
    questions.write_text("What?\n")
    job = Job(
        model_dir=str(model_dir),
        gguf=None,
        document=str(document),
        questions=str(questions),
        out=str(tmp_path),
        shm_path="",
        shm_capacity="",
        later_shm_path="",
        pfs_path="",
        pfs_capacity="",
        block_tokens=256,
        new_tokens=1,
        repetitions=1,
        passages=1,
        passage_tokens=1,
        small_shm_path="",
        small_pfs_path="",
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(model_dir)
    with pytest.raises(DemoError, match="less than one block of 256: nothing would be stored"):
        make_prompts(job, tokenizer, 600)


def test_questions_file(tmp_path):
    path = tmp_path / "questions.txt"
    path.write_text("# comment\na?\n\nb?\nc?\n")
    assert read_questions(str(path)) == (["a?", "b?"], ["c?"])
    path.write_text("a?\n---\nb?\nc?\n")
    assert read_questions(str(path)) == (["a?"], ["b?", "c?"])
    path.write_text("# nothing\n")
    with pytest.raises(DemoError, match="no question for the first process"):
        read_questions(str(path))
