"""Engine and shards are settled from the configuration and the launcher's words; contradictions show both."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from parallax.config.accelerate import accelerate_statements, environment_of, read_file
from parallax.config.load import load_config
from parallax.config.run import RunConfig
from parallax.config.strategy import settle_strategy
from parallax.config.zero_rules import check_zero
from parallax.errors import ConfigError

ROOT = Path(__file__).parents[2]
FSDP = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
DEEPSPEED = {"ACCELERATE_USE_DEEPSPEED": "true"}

Settle = Callable[..., RunConfig]


@pytest.fixture
def settle(smallest: Path) -> Settle:
    """Settles a run of global batch 16 with overrides, under accelerate's variables."""

    def settle_it(
        *overrides: str, environment: dict[str, str] | None = None, ranks: int = 4, **more: Any
    ) -> RunConfig:
        statements = accelerate_statements(environment or {})
        return settle_strategy(load_config(smallest, overrides), statements, ranks, **more)

    return settle_it


@pytest.fixture
def settings(tmp_path: Path) -> Callable[..., str]:
    """Writes DeepSpeed settings; the override that names them."""

    def write(**values: Any) -> str:
        (tmp_path / "ds.json").write_text(json.dumps(values))
        return f"deepspeed.settings={tmp_path / 'ds.json'}"

    return write


def test_nobody_asks_for_anything(settle: Settle) -> None:
    settled = settle()
    assert (settled.parallel.engine, settled.parallel.dp_shard) == ("native", 1)
    assert settled.train.precision == "auto"


def test_what_is_settled_is_settled_again_to_the_same(settle: Settle) -> None:
    settled = settle("parallel.engine=deepspeed", "deepspeed.zero_stage=3")
    assert settle_strategy(settled, (), 4) == settled


@pytest.mark.parametrize(("track", "ranks", "shard"), [(1, 4, 4), (2, 4, 2), (2, 2, 1), (1, 1, 1)])
def test_fsdp_shards_over_what_the_tracks_leave(settle: Settle, track: int, ranks: int, shard: int) -> None:
    settled = settle(f"parallel.track={track}", environment=FSDP, ranks=ranks)
    assert settled.parallel.dp_shard == shard
    assert settled.parallel.engine == "native"


def test_fsdp_with_copies_shards_over_what_they_leave(settle: Settle) -> None:
    assert settle("parallel.dp_replicate=2", environment=FSDP).parallel.dp_shard == 2


def test_a_stated_number_of_shards_stays_under_fsdp(settle: Settle) -> None:
    assert settle("parallel.dp_shard=2", environment=FSDP).parallel.dp_shard == 2


def test_axes_of_accelerate_are_ours(settle: Settle) -> None:
    variables = {"ACCELERATE_USE_PARALLELISM_CONFIG": "true", "PARALLELISM_CONFIG_DP_SHARD_SIZE": "2"}
    variables |= {"PARALLELISM_CONFIG_DP_REPLICATE_SIZE": "2"}
    settled = settle(environment=FSDP | variables)
    assert (settled.parallel.dp_shard, settled.parallel.dp_replicate) == (2, 2)


def test_deepspeed_without_a_stage_is_zero_2(settle: Settle) -> None:
    settled = settle(environment=DEEPSPEED)
    assert settled.parallel.engine == "deepspeed"
    section = settled.deepspeed
    assert (section.zero_stage, section.offload_optimizer, section.offload_parameters) == (2, False, False)


def test_auto_is_deepspeed_where_its_launcher_started_the_run(settle: Settle) -> None:
    assert settle(suggested_engine="deepspeed").parallel.engine == "deepspeed"
    assert settle("parallel.engine=native", suggested_engine="deepspeed").parallel.engine == "native"


def test_the_file_that_accelerate_names_becomes_the_settings(settle: Settle, settings: Any) -> None:
    path = settings(
        zero_optimization={"stage": 3, "offload_param": {"device": "cpu"}, "offload_optimizer": {"device": "cpu"}}
    ).partition("=")[2]
    settled = settle(environment=DEEPSPEED | {"ACCELERATE_DEEPSPEED_CONFIG_FILE": path})
    assert settled.deepspeed.settings == path
    assert (settled.deepspeed.zero_stage, settled.deepspeed.offload_parameters) == (3, True)


@pytest.mark.parametrize("section", ["data_types", "torch_autocast", "amp", "optimizer"])
def test_a_section_of_settings_that_no_engine_here_knows_is_refused(
    settle: Settle, settings: Any, section: str
) -> None:
    with pytest.raises(ConfigError, match=f"has a section '{section}'"):
        settle("parallel.engine=deepspeed", settings(**{section: {"type": "other"}}))


def test_auto_in_settings_says_nothing(settle: Settle) -> None:
    for path in sorted((ROOT / "configs" / "deepspeed").glob("*.json")):
        settled = settle("parallel.engine=deepspeed", "train.precision=bf16", f"deepspeed.settings={path}")
        assert settled.deepspeed.zero_stage == int(path.stem[4])
        assert settled.deepspeed.offload_parameters == settled.deepspeed.offload_optimizer == ("off" in path.stem)


@pytest.mark.parametrize("name", ["single", "ddp", "fsdp2", "zero1", "zero2", "zero3", "zero3_offload"])
def test_our_files_for_accelerate_contradict_no_run(settle: Settle, name: str) -> None:
    variables = environment_of(read_file(str(ROOT / "configs" / "accelerate" / f"{name}.yaml")))
    for precision in ("fp32", "bf16", "fp16"):
        settled = settle("train.micro_batch=2", f"train.precision={precision}", environment=variables)
        assert settled.parallel.engine == ("deepspeed" if "zero" in name else "native")
        assert settled.parallel.dp_shard == (4 if name == "fsdp2" else 1)
        assert settled.train.precision == precision


def test_a_precision_that_the_run_leaves_open_is_the_launchers(settle: Settle, settings: Any) -> None:
    assert settle(environment={"ACCELERATE_MIXED_PRECISION": "fp16"}).train.precision == "fp16"
    on_deepspeed = ("parallel.engine=deepspeed", settings(bf16={"enabled": True}))
    assert settle(*on_deepspeed).train.precision == "bf16"
    assert settle("parallel.engine=deepspeed", settings(bf16={"enabled": False})).train.precision == "fp32"


CONTRADICTIONS: list[tuple[tuple[str, ...], dict[str, str], str]] = [
    (
        ("train.precision=bf16",),
        {"ACCELERATE_MIXED_PRECISION": "fp16"},
        r"mixed_precision=fp16 and the run configuration says train.precision=bf16",
    ),
    (
        ("parallel.engine=native",),
        DEEPSPEED,
        r"says distributed_type=DEEPSPEED and the run configuration says parallel.engine=native",
    ),
    (
        ("parallel.engine=deepspeed",),
        FSDP,
        r"says distributed_type=FSDP and the run configuration says parallel.engine=deepspeed",
    ),
    (
        ("parallel.dp_shard=1",),
        FSDP,
        r"says distributed_type=FSDP and the run configuration says parallel.dp_shard=1",
    ),
    (
        ("deepspeed.zero_stage=2",),
        DEEPSPEED | {"ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"},
        r"says zero_stage=3 and the run configuration says deepspeed.zero_stage=2",
    ),
    (
        ("train.micro_batch=2",),
        DEEPSPEED | {"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4"},
        r"gradient_accumulation_steps=4 and the run configuration makes it 2 \(train.global_batch=16",
    ),
    (
        ("optim.grad_clip=1.0",),
        DEEPSPEED | {"ACCELERATE_GRADIENT_CLIPPING": "0.5"},
        r"says gradient_clipping=0.5 and the run configuration says optim.grad_clip=1.0",
    ),
    (
        ("deepspeed.offload_optimizer=false",),
        DEEPSPEED | {"ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE": "cpu"},
        r"offload_optimizer_device=cpu and the run configuration says deepspeed.offload_optimizer=false",
    ),
    (
        ("parallel.reshard_after_forward=true",),
        FSDP | {"FSDP_RESHARD_AFTER_FORWARD": "false"},
        r"fsdp_reshard_after_forward=false and the run configuration says parallel.reshard_after_forward=true",
    ),
    (
        (),
        FSDP | {"FSDP_ACTIVATION_CHECKPOINTING": "true"},
        r"fsdp_activation_checkpointing=true and the run configuration says train.activation_checkpointing=false",
    ),
    ((), FSDP | {"FSDP_VERSION": "1"}, r"fsdp_version=1; this is FSDP2: set fsdp_version: 2"),
    ((), FSDP | {"FSDP_OFFLOAD_PARAMS": "true"}, r"fsdp_offload_params=true; weights are offloaded by DeepSpeed"),
    ((), {"ACCELERATE_USE_MEGATRON_LM": "true"}, r"MEGATRON_LM; FSDP, DEEPSPEED"),
    ((), {"ACCELERATE_MIXED_PRECISION": "fp8"}, r"mixed_precision=fp8; bf16, fp16 and no"),
    (
        (),
        {"ACCELERATE_USE_PARALLELISM_CONFIG": "true", "PARALLELISM_CONFIG_TP_SIZE": "2"},
        r"tp_size=2; the axes here are track",
    ),
    (
        (),
        DEEPSPEED | {"ACCELERATE_GRADIENT_CLIPPING": "much"},
        r"gradient_clipping=much; expected a number or auto",
    ),
]


@pytest.mark.parametrize(("overrides", "variables", "message"), CONTRADICTIONS)
def test_accelerate_and_the_run_contradict_each_other(
    settle: Settle, overrides: tuple[str, ...], variables: dict[str, str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        settle(*overrides, environment=variables)
    assert "\n" not in str(caught.value)


WRONG_SETTINGS: list[tuple[dict[str, Any], str]] = [
    (
        {"train_batch_size": 32},
        r"ds.json says train_batch_size=32 and the run configuration says train.global_batch=16",
    ),
    ({"train_micro_batch_size_per_gpu": 1}, r"train_micro_batch_size_per_gpu=1 and .*train.micro_batch=4"),
    ({"gradient_accumulation_steps": 3}, r"gradient_accumulation_steps=3 and the run configuration makes it 1"),
    ({"gradient_clipping": 0.1}, r"gradient_clipping=0.1 and .*optim.grad_clip=1.0"),
    ({"fp16": {"enabled": True}}, r"fp16.enabled=true and .*train.precision=bf16"),
    ({"bf16": {"enabled": False}}, r"bf16.enabled=false and .*train.precision=bf16"),
    ({"bf16": {"enabled": True}, "fp16": {"enabled": True}}, r"turn one of them off"),
    ({"zero_optimization": {"stage": 1}}, r"zero_optimization.stage=1 and .*deepspeed.zero_stage=3"),
    (
        {"zero_optimization": {"offload_param": {"device": "nvme"}}},
        r"offload_param.device=nvme; only cpu and none",
    ),
    ({"optimizer": {"type": "Adam"}}, r"has a section 'optimizer'; optim.\* of the run configuration says that"),
    ({"zero_optimization": 3}, r"zero_optimization=3; expected an object"),
]


@pytest.mark.parametrize(("values", "message"), WRONG_SETTINGS)
def test_settings_of_deepspeed_and_the_run_contradict_each_other(
    settle: Settle, settings: Any, values: dict[str, Any], message: str
) -> None:
    run = ("parallel.engine=deepspeed", "deepspeed.zero_stage=3", "train.precision=bf16")
    with pytest.raises(ConfigError, match=message):
        settle(*run, settings(**values))


def test_accelerate_and_settings_of_deepspeed_contradict_each_other(settle: Settle, settings: Any) -> None:
    variables = DEEPSPEED | {"ACCELERATE_DEEPSPEED_ZERO_STAGE": "2"}
    with pytest.raises(
        ConfigError, match=r"accelerate's configuration says zero_stage=2 and .*ds.json says zero_opt"
    ):
        settle(settings(zero_optimization={"stage": 3}), environment=variables)


REFUSED: list[tuple[tuple[str, ...], str]] = [
    (("deepspeed.zero_stage=3",), r"deepspeed.zero_stage=3 has no effect, as parallel.engine=auto is native"),
    (("parallel.engine=deepspeed", "parallel.dp_shard=2"), r"parallel.dp_shard=2 is FSDP2's"),
    (("parallel.engine=deepspeed", "deepspeed.offload_parameters=true"), r"needs deepspeed.zero_stage=3, not 2"),
    (
        ("parallel.engine=deepspeed", "deepspeed.zero_stage=0", "deepspeed.offload_optimizer=true"),
        r"needs deepspeed.zero_stage of 1 or more, not 0",
    ),
    (
        ("parallel.engine=deepspeed", "deepspeed.zero_stage=0", "train.precision=bf16"),
        r"deepspeed.zero_stage=0 with train.precision=bf16 takes a gradient norm",
    ),
    (
        ("parallel.engine=deepspeed", "deepspeed.zero_stage=0", "train.precision=fp16", "parallel.track=2"),
        r"deepspeed.zero_stage=0 with train.precision=fp16",
    ),
    (
        ("parallel.engine=deepspeed", "deepspeed.settings=none.json"),
        r"none.json: no such file of DeepSpeed settings",
    ),
]


@pytest.mark.parametrize(("overrides", "message"), REFUSED)
def test_what_does_not_exist_together_is_refused(settle: Settle, overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settle(*overrides)


def test_stage_0_in_fp32_is_sound(settle: Settle) -> None:
    check_zero(settle("parallel.engine=deepspeed", "deepspeed.zero_stage=0", "train.precision=fp32"))
