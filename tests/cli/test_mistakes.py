"""Bad input through the command line: one line on stderr, exit code 2, nothing made, changed or lost."""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from small_world import CONFIG, Parallax

from parallax.runtime.lock import RunLock


@pytest.fixture(scope="module")
def traps(world: Path) -> Path:
    """Input that is wrong in every way, beside what is right."""
    (world / "twice.yaml").write_text("seed: 1\nmodel: {}\nseed: 2\n")
    (world / "torn.yaml").write_text("model: {hidden_size: 32\n")
    (world / "list.yaml").write_text("- model\n- data\n")
    (world / "empty.txt").touch()
    (world / "latin.txt").write_bytes("first line\ncaf\xe9\n".encode("latin-1"))
    (world / "broken.jsonl").write_text('{"text": "good"}\n{"text": 3}\n')
    (world / "picture.png").write_bytes(b"\x89PNG")
    (world / "thesis").mkdir()
    (world / "thesis" / "thesis.tex").write_text("years of work")
    (world / "empty").mkdir()
    (world / "odd.bin").write_bytes(b"123456")
    (world / "foreign.bin").write_bytes(b"\x01\x00\x00\x00" * 100)
    (world / "wild.bin").write_bytes(b"\x01\x01\x01\x01" * 100)
    shutil.copytree(world / "run", world / "copy")
    for path in (world / "copy" / "checkpoints").glob("step-*/model.safetensors"):
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    (world / "damaged").mkdir()
    shutil.copytree(world / "corpus", world / "damaged" / "corpus")
    next((world / "damaged" / "corpus").glob("train*")).write_bytes(b"12")
    wide = {**CONFIG, "model": {**CONFIG["model"], "vocab_size": 300, "max_seq_len": 50_000}}
    (world / "wide.yaml").write_text(yaml.safe_dump(wide))
    return world


def contents(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file and folder with its size and the time it was changed."""
    return {
        str(path.relative_to(folder)): (path.lstat().st_size, path.lstat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file() or not any(path.iterdir())
    }


TRAIN = "train tiny.yaml run.dir=new"

CONFIGURATIONS = {
    f"{TRAIN} optim.learning_rate=1": r"unknown key 'optim\.learning_rate'",
    f"{TRAIN} model.num_head=2": r"unknown key 'model\.num_head'; did you mean 'model\.num_heads'\?",
    f"{TRAIN} modle.num_heads=2": "unknown key 'modle'",
    "train twice.yaml": r"twice\.yaml: key 'seed' is given twice, in line 1 and in line 3",
    "train torn.yaml": r"torn\.yaml: not valid YAML in line 2",
    "train list.yaml": r"list\.yaml: expected sections",
    "train tini.yaml": r"tini\.yaml: no such configuration file; did you mean tiny\.yaml\?",
    f"{TRAIN} max_steps": "expected key=value",
    f"{TRAIN} train.max_steps=many": r"train\.max_steps='many'",
    f"{TRAIN} train.max_steps=0": r"train\.max_steps=0",
    f"{TRAIN} model.dropout=1.5": r"model\.dropout=1\.5",
    f"{TRAIN} optim.lr=-1": r"optim\.lr=-1",
    f"{TRAIN} optim.lr=.nan": r"optim\.lr",
    f"{TRAIN} model.num_heads=5": "num_heads=5 does not divide hidden_size=32; nearest that does: 4",
    f"{TRAIN} model.num_kv_heads=3": "num_kv_heads=3 does not divide num_heads=2",
    f"{TRAIN} train.max_epochs=1": "give one of max_steps and max_epochs: both are given",
    f"{TRAIN} train.micro_batch=3": "not a multiple of micro_batch=3; nearest valid: global_batch=4, micro_batch=",
    f"{TRAIN} runtime.device=tpu": r"runtime\.device",
    f"{TRAIN} runtime.device=cuda:99": "cuda:99",
    f"{TRAIN} train.precision=fp8": r"train\.precision='fp8'",
    "init tiny.yaml model.layers=3": r"unknown key 'model\.layers'; did you mean 'model\.num_layers'\?",
}

DATA = {
    f"{TRAIN} data.path=corpsu": r"corpsu: no such corpus; did you mean corpus\?",
    f"{TRAIN} data.path=empty": "empty: not a prepared corpus",
    f"{TRAIN} data.path=prose.txt": r"prose\.txt: a file, expected the folder.*data prepare --input prose\.txt",
    f"{TRAIN} data.path=damaged/corpus": "damaged shard, it has 2 bytes instead of",
    f"{TRAIN} data.path=builtin:manual": "no such built-in corpus",
    f"{TRAIN} model.vocab_size=200": r"token ids up to 256.*set model\.vocab_size=257",
    "train wide.yaml run.dir=new": r"fewer than one window of max_seq_len \+ 1 = 50001",
    f"{TRAIN} data.val_path=chars": "another tokenizer",
    "init tiny.yaml model.vocab_size=200 --output new": "token ids up to 256",
    "init tiny.yaml --output thesis": "thesis exists; nothing was overwritten",
    "data prepare --input empty.txt --output new": r"empty\.txt: empty",
    "data prepare --input proze.txt --output new": r"no such file or folder; did you mean prose\.txt\?",
    "data prepare --input nothing/*.txt --output new": "matches no file",
    "data prepare --input empty --output new": "holds no .txt, .jsonl or .parquet file",
    "data prepare --input picture.png --output new": r"picture\.png",
    "data prepare --input latin.txt --output new": r"latin\.txt.*line 2",
    "data prepare --input broken.jsonl --output new": r"broken\.jsonl.*line 2",
    "data prepare --input prose.txt --output corpus": "corpus exists; nothing was overwritten",
    "data prepare --input prose.txt --output new --val-fraction 1": "val_fraction=1",
    "data prepare --input prose.txt --output new --tokenizer bpe:3": "bpe",
    "data prepare --input prose.txt --output new --tokenizer missing/tokenizer.json": "tokenizer",
    "data prepare --input prose.txt --output new --encoding-errors ignore": "expected strict or replace",
    "data prepare --input prose.txt builtin:python-manual --output new": "cannot be mixed",
    "data prepare --input prose.txt --output new --num-workers 0": "num_workers=0 must be at least 1",
    "data prepare --input datasets: --output new": "datasets:: no name",
    "data prepare --input datasets:thesis --output new": "datasets:thesis: could not be read",
    "data prepare --input prose.txt datasets:thesis --output new": "cannot be mixed",
    "data tokenize --input prose.txt --output new": r"expected a name that ends in \.bin",
    "data tokenize --input prose.txt --output odd.bin": r"odd\.bin exists; nothing was overwritten",
    "data tokenize --input latin.txt --output new.bin": r"latin\.txt.*line 2",
    "data tokenize --input prose.txt --output new.bin --tokenizer odd.bin": r"odd\.bin",
    "data collect --input prose.txt --output new.jsonl --max-bytes lots": "--max-bytes lots: expected a size",
    "data collect --input prose.txt --output new.jsonl --min-chars 1000000": "none of the 1 documents read",
    "data collect --input prose.txt --output new.jsonl --shuffle-buffer 0": "shuffle_buffer=0",
    "data collect --input prose.txt --output prose.txt": r"prose\.txt exists; nothing was overwritten",
    "data collect --input broken.jsonl --output new": r"broken\.jsonl.*line 2",
    "data inspect corpsu": r"corpsu: no such file or folder; did you mean corpus\?",
    "data inspect odd.bin": "6 bytes, expected a positive multiple of 4",
    "data inspect foreign.bin": r"no foreign\.bin\.json beside it",
    "data inspect prose.txt --verify": "checksums, which text does not have",
    "data inspect prose.txt --tokenizer char": "would be learned",
    f"{TRAIN} data.path=odd.bin": "6 bytes, expected a positive multiple of 4",
    f"{TRAIN} data.path=foreign.bin": r"name it: data\.tokenizer=",
    f"{TRAIN} data.path=wild.bin data.tokenizer=byte": "id 16843009 at position 0 is not in the tokenizer's vocab",
}

RUNS = {
    "train tiny.yaml run.dir=run optim.lr=0.5": r"holds a run with optim\.lr=0\.01, not 0\.5",
    "train tiny.yaml run.dir=run seed=9": "holds a run with seed=3, not 9",
    "train tiny.yaml run.dir=run data.path=chars train.max_steps=99": "fingerprint",
    "train tiny.yaml run.dir=run train.precision=bf16": r"train\.precision=fp32, not bf16",
    "train tiny.yaml run.dir=thesis": "thesis is not a run folder: it holds 'thesis.tex'",
    "train tiny.yaml run.dir=prose.txt": "prose.txt is not a folder",
    "train tiny.yaml run.dir=copy train.max_steps=99": "checkpoint",
    "generate rum --prompt x": r"rum: no such checkpoint or run folder; did you mean run\?",
    "generate empty": "holds no checkpoint",
    "generate copy": "no good checkpoint: all 2 are damaged",
    "generate copy/checkpoints/step-00000040": r"damaged: the SHA-256 of model\.safetensors",
    "generate run --temperature -1": "temperature",
    "generate run --top-p 0": "top_p",
    "generate run --top-k -3": "top_k",
    "generate run --min-p 2": "min_p",
    "generate run --repetition-penalty 0": "repetition_penalty",
    "generate run --max-new-tokens 0": "max_new_tokens=0",
    "generate run --dtype int8": "--dtype int8: expected fp32, bf16, fp16",
    "generate run --device tpu": "tpu",
    "generate run --interactive --json": "exclude each other",
    "eval nowhere": "nowhere: no such checkpoint",
    "eval run --data chars": "chars was made with another tokenizer",
    "eval run --data corpsu": "did you mean corpus",
    "eval run --data empty.txt": "empty",
    "eval run --data odd.bin": "6 bytes, expected a positive multiple of 4",
    "eval run --data wild.bin": "id 16843009 at position 0",
    "eval run --data latin.txt": r"latin\.txt.*line 2",
    "eval run --split test": "expected val or train",
    "eval run --dtype fp8": "--dtype fp8",
    "curve thesis": r"no journal\.jsonl",
    "curve nowhere": r"no journal\.jsonl",
    "demo --config nowhere.yaml": r"nowhere\.yaml: no such file",
}


@pytest.mark.parametrize(
    ("command", "said"), [*CONFIGURATIONS.items(), *DATA.items(), *RUNS.items()], ids=lambda value: value
)
def test_a_mistake_is_one_line_and_leaves_everything_as_it_was(
    command: str, said: str, traps: Path, parallax: Parallax
) -> None:
    before = contents(traps)
    answer = parallax(*command.split())
    assert answer.code == 2
    [line] = answer.err.splitlines()
    assert line.startswith("error: ")
    assert re.search(said, line), line
    assert "Traceback" not in answer.out
    after = contents(traps)
    assert {name for name in after.keys() | before.keys() if before.get(name) != after.get(name)} <= {
        "run/.lock",
        "copy/.lock",
    }


@pytest.fixture
def used_run(world: Path) -> Iterator[None]:
    with RunLock(world / "run"):
        yield


def test_a_run_folder_in_use_is_refused_and_names_the_user(
    traps: Path, used_run: None, parallax_process: Parallax
) -> None:
    before = contents(traps)
    answer = parallax_process("train", "tiny.yaml", "run.dir=run", "train.max_steps=99")
    assert answer.code == 2
    assert answer.err.startswith(f"error: run is in use by process {os.getpid()} on ")
    assert answer.err.count("\n") == 1
    assert contents(traps) == before


def test_weights_of_another_architecture_are_refused(traps: Path, parallax: Parallax) -> None:
    answer = parallax("train", "tiny.yaml", "run.dir=other", "train.init_from=run", "model.num_tracks=3")
    assert answer.code == 2
    [line] = answer.err.splitlines()
    assert "run/checkpoints/step-00000040 holds a model of another architecture: 6 weights missing" in line
    assert not (traps / "other" / "checkpoints").exists()
    shutil.rmtree(traps / "other")


def test_a_loss_that_is_not_finite_is_one_line_with_its_step(traps: Path, parallax: Parallax) -> None:
    wild = ["optim.lr=1e30", "optim.warmup_steps=0", "train.eval_every=0"]
    answer = parallax("train", "tiny.yaml", "run.dir=wild", *wild)
    assert answer.code == 2
    [line] = answer.err.splitlines()
    assert line.startswith("error: step 2: ")
    shutil.rmtree(traps / "wild")


def test_weights_that_overflow_are_neither_measured_nor_written_with(traps: Path, parallax: Parallax) -> None:
    wild = ["optim.lr=1e30", "optim.warmup_steps=0", "train.eval_every=0", "train.save_every=1"]
    assert parallax("train", "tiny.yaml", "run.dir=wild", *wild).code == 2
    for command in (["eval", "wild"], ["eval", "wild", "--json"], ["generate", "wild"]):
        answer = parallax(*command)
        assert (answer.code, answer.out) == (2, "")
        [line] = answer.err.splitlines()
        assert line.startswith("error: ")
    shutil.rmtree(traps / "wild")


def test_an_unreachable_goal_is_one_line_and_exit_code_1(traps: Path, parallax: Parallax) -> None:
    answer = parallax("train", "tiny.yaml", "run.dir=vain", "train.max_steps=2", "train.goal.max_loss=1e-9")
    assert answer.code == 1
    [line] = answer.err.splitlines()
    assert line.startswith("error: vain: 2 steps did not reach loss")
    shutil.rmtree(traps / "vain")
