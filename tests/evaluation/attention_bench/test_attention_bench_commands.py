"""Both commands, whole, on shapes that take no time."""

import csv
from pathlib import Path
from types import ModuleType

import pytest
import torch

from evaluation import bench_decode, bench_train
from evaluation.attention_bench import command, contenders, measure

QUICK = ["--warmup", "0", "--iters", "1", "--trials", "2", "--bandwidth", "10", "--device", "cpu"]
SMALL = ["--shape", "1,4,2,24,16"]


@pytest.fixture(autouse=True)
def _restored_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARALLAX_PLLA_BACKEND", "auto")


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("bench", [bench_decode, bench_train], ids=["decode", "train"])
def test_a_table_and_the_ratio_to_sdpa(
    bench: ModuleType, dtype: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "rows.csv"
    assert bench.main([*QUICK, *SMALL, "--include-fa3", "--dtype", dtype, "--csv", str(path)]) == 0
    printed = capsys.readouterr().out
    for word in (
        "median",
        "q05",
        "q95",
        "of sdpa",
        "floor",
        "over floor",
        "B1 H4/2 L24 D16",
        "fp64, 2 of 2 key heads",
    ):
        assert word in printed
    assert "not timed: flash-attn 2: flash-attn is made for CUDA, not for cpu" in printed
    assert "not timed: flash-attn 3: made for CUDA, not for cpu" in printed
    assert "not timed: fla: made for CUDA, not for cpu" in printed
    last = printed.splitlines()[-1]
    assert f"B1 H4/2 L24 D16 {dtype}: eager takes " in last
    assert "(warm), " in last
    assert last.endswith("x (cold) the time of sdpa")
    timed = {(row["contender"], row["cache"]): row for row in read(path) if row["outcome"] == "measured"}
    assert timed.keys() >= {(name, cache) for name in ("sdpa", "chunked", "eager") for cache in ("warm", "cold")}
    for row in timed.values():
        assert 0 < float(row["q05_seconds"]) <= float(row["q50_seconds"]) <= float(row["q95_seconds"])
        assert float(row["error"]) < (1e-5 if dtype == "fp32" else 3e-2)
        assert (row["samples"], row["dtype"]) == ("2", dtype)
        assert bool(row["gradient_error"]) == (bench is bench_train)
    assert float(timed["sdpa", "warm"]["ratio_to_sdpa"]) == 1.0


def test_a_command_goes_on_where_it_ended(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rows.csv"
    arguments = [*QUICK, *SMALL, "--dtype", "fp32", "--csv", str(path)]
    assert bench_decode.main(arguments) == 0
    first = path.read_text()
    lines = first.splitlines(keepends=True)
    assert bench_decode.main([*arguments, "--resume"]) == 0
    assert "1 of 1 shapes are of an earlier command" in capsys.readouterr().out
    assert path.read_text() == first
    # The last rows are lost, as after a crash: the shape is measured anew, another one for the first time.
    path.write_text("".join(lines[:-2]))
    assert bench_decode.main([*arguments, "--resume", "--shape", "1,4,4,24,16"]) == 0
    assert "of an earlier command" not in capsys.readouterr().out
    assert len(read(path)) == len(lines[1:-2]) + 2 * len(lines[1:])
    # Other settings are other rows.
    assert bench_decode.main([*arguments, "--resume", "--layout", "positions"]) == 0
    assert "of an earlier command" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--shape", "1,2,3"], "error: --shape 1,2,3: 3 numbers; expected B,H,L,D"),
        (["--backend", "chunky"], "error: --backend chunky: unknown for plla attention; known: "),
        (["--device", "tpu"], "error: runtime.device=tpu: expected"),
        (["--resume"], "error: --resume goes on with a file"),
        (["--shape", "1,2,2,8,8,4"], "error: --shape with a window of 4: a new query reads its whole cache"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench_decode.main([*QUICK, *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(message)


def test_a_backend_that_cannot_run_here_is_refused_with_its_reason(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    states = [("kernels", "made for CUDA"), ("eager", "available")]
    monkeypatch.setattr(contenders, "explain", lambda operator, device: states)
    assert bench_train.main([*QUICK, *SMALL, "--backend", "kernels"]) == 2
    assert "error: --backend kernels: made for CUDA" in capsys.readouterr().err
    assert bench_train.main([*QUICK, *SMALL]) == 0
    assert "not timed: kernels: made for CUDA" in capsys.readouterr().out


def test_only_the_backends_that_were_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench_train.main([*QUICK, *SMALL, "--backend", "chunked"]) == 0
    printed = capsys.readouterr().out
    assert "chunked takes " in printed
    assert "eager" not in printed


def test_what_does_not_fit_says_so_in_its_row(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Room for the inputs, not for all scores."""
    monkeypatch.setattr(command, "usable_bytes", lambda device: 1 << 20)
    path = tmp_path / "rows.csv"
    arguments = [*QUICK, "--dtype", "fp32", "--shape", "1,1,300,16", "--shape", "1,64,300,16"]
    assert bench_train.main([*arguments, "--csv", str(path)]) == 0
    printed = capsys.readouterr().out
    assert " MiB; 1 MiB may be taken" in printed
    outcomes = {(row["heads"], row["contender"]): row["outcome"] for row in read(path)}
    assert outcomes["1", "sdpa"] == "measured"
    assert outcomes["1", "eager"] == outcomes["64", "sdpa"] == outcomes["64", "chunked"] == "skipped"
    assert all(row["error"] == "" for row in read(path)), "the definition has no room either"
    assert "no reference: it needs" in printed


def test_what_takes_too_long_even_at_the_floor_is_skipped(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench_decode.main([*QUICK, *SMALL, "--limit-seconds", "1e-9"]) == 0
    assert "4 calls take 0 s at the floor, over --limit-seconds 1e-09" in capsys.readouterr().out


def test_a_contender_that_breaks_has_a_row_and_makes_the_command_fail(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> torch.Tensor:
        raise RuntimeError("out of luck\nat length")

    path = tmp_path / "rows.csv"
    arguments = [*QUICK, *SMALL, "--csv", str(path)]
    with monkeypatch.context() as patched:
        patched.setattr(contenders, "parallax_decode", broken)
        assert bench_decode.main(arguments) == 1
    assert "failed: RuntimeError: out of luck" in capsys.readouterr().out
    assert {row["contender"]: row["outcome"] for row in read(path)}["eager"] == "measured"
    assert bench_decode.main([*arguments, "--resume"]) == 0, "tried again"


def test_the_grid_is_run_through(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the seventeen smallest in place of what would take hours; of so many, the mean is what is said."""
    shapes = [shape for shape in command.public_grid() if shape.heads * shape.length <= 1024][:17]
    monkeypatch.setattr(command, "public_grid", lambda: shapes)
    path = tmp_path / "rows.csv"
    assert bench_decode.main([*QUICK, "--parallax-grid", "--backend", "chunked", "--csv", str(path)]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert ", 17 shapes: chunked takes " in last
    assert "(cold), geometric mean of " in last
    assert len({(row["heads"], row["length"], row["width"]) for row in read(path)}) == 17


def test_calls_are_as_many_as_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both contenders are called as often as is said, with warm and with cold caches."""
    calls: list[object] = []
    make = measure.make_sampler

    def counted(call: object, *rest: object) -> object:
        def count() -> None:
            calls.append(call)

        return make(count, *rest)

    monkeypatch.setattr(measure, "make_sampler", counted)
    assert bench_decode.main([*QUICK, *SMALL, "--backend", "eager", "--iters", "3"]) == 0
    assert len(calls) == 2 * 2 * 3 * 2
