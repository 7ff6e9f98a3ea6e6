"""Processes recognise who started them, and refuse a world that is not the one asked for."""

import pytest

from parallax.errors import JoinError
from parallax.runtime.launcher import Launcher, check_started, read_launcher
from parallax.runtime.ranks import Ranks

TORCHRUN = {"RANK": "0", "WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "none"}
ACCELERATE = {**TORCHRUN, "ACCELERATE_MIXED_PRECISION": "no"}
DEEPSPEED = {"RANK": "0", "WORLD_SIZE": "2", "CROSS_RANK": "0", "CROSS_SIZE": "1"}
SRUN = {"RANK": "0", "WORLD_SIZE": "2", "SLURM_PROCID": "0"}


@pytest.mark.parametrize(
    ("variables", "name"),
    [({}, "none"), (TORCHRUN, "torchrun"), (ACCELERATE, "accelerate"), (DEEPSPEED, "deepspeed"), (SRUN, "srun")],
)
def test_the_launcher_is_known_by_its_variables(variables: dict[str, str], name: str) -> None:
    assert read_launcher(variables).name == name


def test_a_shell_inside_a_slurm_job_is_no_launcher() -> None:
    assert read_launcher({"SLURM_PROCID": "0"}).name == "none"


def test_only_deepspeeds_launcher_suggests_deepspeed() -> None:
    assert read_launcher(DEEPSPEED).suggested_engine == "deepspeed"
    assert read_launcher(TORCHRUN).suggested_engine == "native"


def test_a_world_as_planned_is_accepted() -> None:
    check_started(read_launcher(TORCHRUN | {"PARALLAX_PLANNED_RANKS": "2"}), Ranks(0, 2, 0), "cpu", "m")
    check_started(read_launcher(ACCELERATE), Ranks(0, 2, 0), "cuda", "m")
    check_started(read_launcher(ACCELERATE | {"ACCELERATE_USE_FSDP": "true"}), Ranks(0, 2, 0), "cpu", "m")


def test_another_world_than_planned_is_refused() -> None:
    launcher = read_launcher(TORCHRUN | {"PARALLAX_PLANNED_RANKS": "4"})
    with pytest.raises(
        JoinError, match=r"plan has 4 ranks and this process is one of WORLD_SIZE=2; start it with"
    ):
        check_started(launcher, Ranks(0, 2, 0), "cpu", "m")


def test_accelerate_that_started_one_process_of_four_is_refused_with_a_line_that_works() -> None:
    launcher = Launcher("accelerate", planned_ranks=4)
    with pytest.raises(
        JoinError, match=r"num_processes=4 and started 1 .*: torchrun --nproc-per-node 4 -m m c.yaml"
    ):
        check_started(launcher, Ranks(), "cpu", "m c.yaml")


def test_gpus_of_accelerate_on_a_cpu_are_refused_with_a_line_that_works() -> None:
    with pytest.raises(
        JoinError, match=r"MULTI_GPU and rank 0 computes on the CPU; this works: torchrun .* 2 -m m"
    ):
        check_started(read_launcher(ACCELERATE), Ranks(0, 2, 0), "cpu", "m")
