"""`parallax plan`: any rank of any world, without other ranks, memory or data."""

from pathlib import Path

import pytest
from small_world import Parallax

from parallax.config.load import load_config

CONFIGS = Path(__file__).parents[2] / "configs"
MANY = (CONFIGS / "reference.yaml", "--world-size", 4096, "parallel.track=2", "parallel.dp_shard=8")


@pytest.mark.parametrize("rank", [0, 4095])
def test_a_rank_of_4096_is_planned_in_half_a_minute(rank: int, parallax: Parallax) -> None:
    answer = parallax("plan", *MANY, "--rank", rank, "--json")
    assert (answer.code, answer.err) == (0, "")
    assert answer.json["seconds"] < 30
    assert answer.json["layout"] == {"track": 2, "dp_replicate": 256, "dp_shard": 8, "track_across": False}
    parameters = answer.json["parameters"]
    assert parameters["total"] == pytest.approx(parameters["model"] / 16, rel=0.005)  # uneven shards


def test_tables_fit_80_columns_and_name_peak_traffic_and_crossover(parallax: Parallax) -> None:
    answer = parallax("plan", *MANY, "train.global_batch=8192")
    assert answer.code == 0
    assert max(len(line) for line in answer.out.splitlines()) <= 80
    for part in ("peak ", "optimizer states", "all_to_all", "DDP over the same ranks sends fewer bytes a rank"):
        assert part in answer.out


def test_what_stands_beside_tracks_is_counted_by_its_name(parallax: Parallax) -> None:
    path = CONFIGS / "zoo" / "gpt2_duo_predict-test.yaml"
    counted = parallax("plan", path, "--json").json["parameters"]
    config = load_config(path).model
    width = config.hidden_size
    assert counted["positions"] == config.num_positions * width
    assert (counted["query"], counted["norm"]) == (width, 2 * width)
    assert counted["embedding and head"] == config.vocab_size * width
    assert counted["total"] == counted["model"]


def test_a_batch_that_does_not_divide_is_planned_as_the_nearest_and_said(parallax: Parallax) -> None:
    answer = parallax("plan", *MANY, "--json")
    [note] = answer.json["notes"]
    assert "global_batch=32 is not a multiple of micro_batch=4 on 2048 data-parallel ranks" in note
    assert answer.json["global_batch"] == 8192


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (("--world-size", 6, "parallel.track=4"), "does not divide model.num_tracks=2"),
        (("--world-size", 6, "parallel.dp_shard=4"), "the run has 6 ranks; nearest"),
        (("--world-size", 4, "--rank", 4), "--rank 4: the ranks of --world-size 4 are 0 to 3"),
    ],
)
def test_an_impossible_layout_is_one_line(wrong: tuple[object, ...], said: str, parallax: Parallax) -> None:
    answer = parallax("plan", CONFIGS / "reference.yaml", *wrong)
    assert (answer.code, answer.out) == (2, "")
    assert said in answer.err
    assert answer.err.count("\n") == 1


@pytest.mark.parametrize(("memory", "code", "said"), [("6GiB", 0, "fits: "), ("720MiB", 1, "does not fit: ")])
def test_whether_it_fits_is_said_and_the_exit_code(memory: str, code: int, said: str, parallax: Parallax) -> None:
    answer = parallax("plan", CONFIGS / "tiny.yaml", "--memory", memory, "train.max_steps=1")
    assert answer.code == code
    assert f"\n{said}" in answer.out
    assert "not measured on a GPU" in answer.out


def test_the_6_gb_configuration_is_planned_to_fit_6_gib(parallax: Parallax) -> None:
    answer = parallax("plan", CONFIGS / "rtx3050.yaml", "--memory", "6GiB", "--json")
    assert (answer.code, answer.json["fit"]["fits"]) == (0, True)


def test_a_search_without_a_memory_size_is_one_line(parallax: Parallax) -> None:
    answer = parallax("plan", CONFIGS / "tiny.yaml", "--search")
    assert answer.code == 2
    assert "--search needs what a rank has: add --memory 6GiB" in answer.err
