import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from parallax.config.load import check_config
from parallax.config.run import RunConfig
from parallax.errors import BackendError, ConfigError
from parallax.parallel.deepspeed.library import import_deepspeed
from parallax.parallel.deepspeed.scale import read_scale, write_scale
from parallax.parallel.deepspeed.zero import Zero, build_settings, resolve_zero
from parallax.runtime.device import PrecisionName


def config(**sections: dict[str, Any]) -> RunConfig:
    nested: dict[str, Any] = {
        "model": {"num_layers": 1, "num_heads": 2, "hidden_size": 8, "vocab_size": 13, "max_seq_len": 8},
        "data": {"path": "nowhere"},
    }
    nested |= {"train": {"max_steps": 1}, "parallel": {"engine": "deepspeed"}}
    for section, values in sections.items():
        nested[section] = nested.get(section, {}) | values
    return check_config(nested, source="the test")


def settings(zero: Zero, **changed: Any) -> dict[str, Any]:
    given = {"precision": "fp32", "micro_batch": 2, "accumulation": 3, "grad_clip": 0.5, "num_parameters": 1000}
    return build_settings(zero, **(given | changed))


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({"deepspeed": {"zero_stage": 0}, "train": {"precision": "bf16"}}, r"zero_stage=0 .*bf16.*zero_stage=1"),
        ({"deepspeed": {"zero_stage": 0}, "train": {"precision": "fp16"}}, r"zero_stage=0 .*fp16.*zero_stage=1"),
        ({"deepspeed": {"zero_stage": 0, "offload_optimizer": True}}, r"zero_stage of 1 or more, not 0"),
        ({"deepspeed": {"offload_parameters": True}}, r"zero_stage=3, not 2"),
        (
            {"deepspeed": {"zero_stage": 3, "offload_parameters": True}},
            r"offload_parameters=true needs deepspeed.offload_optimizer=true",
        ),
        ({"parallel": {"dp_shard": 2}}, r"dp_shard=2 is FSDP2's"),
        ({"parallel": {"reshard_after_forward": True}}, r"reshard_after_forward=true is FSDP2's"),
        ({"parallel": {"overlap": True}}, r"overlap=true"),
        ({"train": {"compile": "blocks"}}, r"compile=blocks"),
        ({"train": {"ledger": True}}, r"ledger=true"),
        ({"train": {"freeze": ["norm.*"], "precision": "bf16"}}, r"would round the frozen weights"),
    ],
)
def test_what_would_be_silently_wrong_is_refused_in_one_line(sections: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected) as caught:
        resolve_zero(config(**sections))
    assert "\n" not in str(caught.value)


def test_what_is_sound_passes_and_stage_2_is_the_default() -> None:
    assert resolve_zero(config(train={"precision": "bf16"})) == Zero(stage=2)
    assert resolve_zero(config(deepspeed={"zero_stage": 0}, train={"precision": "fp32"})) == Zero(stage=0)


def test_the_runs_own_keys_stand_above_the_file_and_the_files_others_stay(tmp_path: Path) -> None:
    path = tmp_path / "zero.json"
    path.write_text(
        json.dumps(
            {
                "gradient_clipping": "auto",
                "train_batch_size": 99,
                "wall_clock_breakdown": True,
                "zero_optimization": {"stage": 1, "overlap_comm": False, "reduce_bucket_size": "auto"},
            }
        )
    )
    zero = resolve_zero(config(deepspeed={"zero_stage": 3, "settings": str(path)}))
    built = settings(zero, precision="bf16")
    assert built["wall_clock_breakdown"] is True
    assert built["gradient_clipping"] == 0.5
    assert "train_batch_size" not in built
    assert built["zero_optimization"]["stage"] == 3
    assert built["zero_optimization"]["overlap_comm"] is False
    assert built["zero_optimization"]["reduce_bucket_size"] == 1000
    assert built["bf16"] == {"enabled": True}
    assert "fp16" not in built


@pytest.mark.parametrize(
    ("stage", "precision", "accumulation", "widened"),
    [
        (2, "bf16", 4, True),
        (3, "fp16", 2, True),
        (2, "bf16", 1, False),
        (2, "fp32", 4, False),
        (1, "bf16", 4, False),
    ],
)
def test_micro_batches_are_added_up_in_fp32_where_there_are_several(
    stage: int, precision: PrecisionName, accumulation: int, widened: bool
) -> None:
    built = settings(Zero(stage), precision=precision, accumulation=accumulation)
    assert (built.get("data_types") == {"grad_accum_dtype": "fp32"}) is widened


def test_the_log_says_what_is_divided_and_what_the_host_holds() -> None:
    assert Zero(stage=2).describe() == "ZeRO 2"
    assert Zero(3, offload_optimizer=True, offload_parameters=True).describe() == (
        "ZeRO 3; on the host: optimizer, weights"
    )


def test_stage_0_leaves_clipping_to_the_engine_which_must_report_the_norm() -> None:
    assert settings(Zero(stage=0))["gradient_clipping"] == 0.0


def test_offloading_keeps_what_the_file_says_of_it() -> None:
    given = {"zero_optimization": {"offload_optimizer": {"device": "nvme", "pin_memory": True}}}
    section = settings(Zero(3, offload_optimizer=True, settings=given))["zero_optimization"]
    assert section["offload_optimizer"] == {"device": "cpu", "pin_memory": True}
    assert section["offload_param"] is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{", r"cannot be read as JSON"),
        ("[]", r"expected a JSON object of DeepSpeed settings"),
    ],
)
def test_a_file_that_cannot_be_followed_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "zero.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=expected):
        resolve_zero(config(deepspeed={"settings": str(path)}))


def test_without_deepspeed_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    with pytest.raises(BackendError, match=r"pip install 'deepspeed==") as caught:
        import_deepspeed(torch.device("cpu"))
    assert "\n" not in str(caught.value)


class Scaler:
    """What DeepSpeed's dynamic loss scaler keeps."""

    cur_scale, scale_factor, scale_window, cur_iter, last_overflow_iter = 1024.0, 2.0, 2000, 17, 4


def test_a_loss_scale_goes_to_the_native_engine_and_back() -> None:
    state = read_scale(Scaler())
    native = torch.amp.GradScaler("cpu", enabled=True)
    native.load_state_dict(state)
    assert native.get_scale() == 1024.0
    assert native.state_dict() == state
    assert state["_growth_tracker"] == 12
    fresh = Scaler()
    write_scale(fresh, native.state_dict())
    assert read_scale(fresh) == state
