"""What is read from a file of accelerate is what accelerate's own launcher makes of it."""

import argparse
from pathlib import Path

import pytest
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import (
    prepare_deepspeed_cmd_env,
    prepare_multi_gpu_env,
    prepare_simple_launcher_cmd_env,
)

from launch.accelerate import Accelerate
from launch.place import Place
from launch.request import Request
from parallax.config.accelerate import accelerate_statements, environment_of, read_file
from parallax.config.load import load_config

FILES = Path(__file__).parents[2] / "configs" / "accelerate"
FOLDER = Path(__file__).parents[2] / "configs"
FSDP = """
distributed_type: FSDP
mixed_precision: bf16
num_processes: 2
num_machines: 1
fsdp_config:
  fsdp_version: 2
  fsdp_reshard_after_forward: false
  fsdp_activation_checkpointing: true
"""
DEEPSPEED = """
distributed_type: DEEPSPEED
mixed_precision: fp16
num_processes: 2
num_machines: 1
deepspeed_config:
  zero_stage: 3
  gradient_accumulation_steps: 4
  gradient_clipping: 0.5
  offload_optimizer_device: cpu
  offload_param_device: none
"""


def variables_of(path: Path) -> dict[str, str]:
    """The environment that accelerate's launcher gives to its processes."""
    parser = launch_command_parser()
    args: argparse.Namespace
    args, _, _ = _validate_launch_command(parser.parse_args(["--config_file", str(path), "script.py"]))
    args.deepspeed_fields_from_accelerate_config = ""
    if args.use_deepspeed:
        return dict(prepare_deepspeed_cmd_env(args)[1])
    if args.use_fsdp or args.multi_gpu:
        return dict(prepare_multi_gpu_env(args))
    return dict(prepare_simple_launcher_cmd_env(args)[1])


@pytest.mark.parametrize("path", sorted(FILES.glob("*.yaml")), ids=lambda path: path.stem)
def test_our_files_mean_to_us_what_they_mean_to_accelerate(path: Path) -> None:
    assert accelerate_statements(environment_of(read_file(str(path)))) == accelerate_statements(variables_of(path))


@pytest.mark.parametrize("text", [FSDP, DEEPSPEED])
def test_files_that_say_more_mean_the_same_too(text: str, tmp_path: Path) -> None:
    path = tmp_path / "more.yaml"
    path.write_text(text)
    statements = accelerate_statements(environment_of(read_file(str(path))))
    assert len(statements) >= 5
    assert statements == accelerate_statements(variables_of(path))


CHOICES = [
    ((), 1, "single"),
    ((), 2, "fsdp2"),
    (("parallel.dp_shard=2",), 2, "fsdp2"),
    (("parallel.dp_shard=1",), 2, "ddp"),
    (("parallel.engine=deepspeed",), 2, "zero2"),
    (("parallel.engine=deepspeed", "deepspeed.zero_stage=1"), 2, "zero1"),
    (("parallel.engine=deepspeed", "deepspeed.settings=configs/deepspeed/zero3.json"), 2, "zero3"),
    (
        (
            "parallel.engine=deepspeed",
            "deepspeed.zero_stage=3",
            "deepspeed.offload_parameters=true",
            "deepspeed.offload_optimizer=true",
        ),
        2,
        "zero3_offload",
    ),
]


@pytest.mark.parametrize(("overrides", "processes", "name"), CHOICES)
def test_the_file_that_fits_the_run_is_chosen(
    overrides: tuple[str, ...], processes: int, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(FOLDER.parent)
    config = load_config(FOLDER / "tiny.yaml", overrides)
    request = Request(config, ("configs/tiny.yaml", *overrides), Place(1, processes), "python")
    assert f"configs/accelerate/{name}.yaml" in Accelerate().command(request)
