"""Every mistake in a configuration is one line that names the key, the value and the way out."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from parallax.config.load import load_config
from parallax.errors import ConfigError

Write = Callable[[str], Path]


def message_of(path: Path, *overrides: str) -> str:
    """The error that loading gives, which must be one line."""
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    message = str(caught.value)
    assert "\n" not in message
    assert caught.value.exit_code == 2
    return message


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("modle.num_layers=1", "unknown key 'modle'; did you mean 'model'?"),
        ("sede=1", "unknown key 'sede'; did you mean 'seed'?"),
        ("train.max_step=3", "unknown key 'train.max_step'; did you mean 'train.max_steps'?"),
        ("model.heads=4", "unknown key 'model.heads'; did you mean 'model.num_heads'?"),
        ("optim.beta=[0.9, 0.95]", "unknown key 'optim.beta'; did you mean 'optim.betas'?"),
        ("train.goal.max_los=1", "unknown key 'train.goal.max_los'; did you mean 'train.goal.max_loss'?"),
        ("max_steps=3", "unknown key 'max_steps'; did you mean 'train.max_steps'?"),
        ("train.lr=1e-3", "unknown key 'train.lr'; did you mean 'optim.lr'?"),
        ("loss.qqqq=1", "unknown key 'loss.qqqq'; known here: z_loss, label_smoothing, chunk_tokens"),
    ],
)
def test_a_misspelt_key_names_the_nearest(smallest: Path, override: str, expected: str) -> None:
    assert message_of(smallest, override).startswith(f"{smallest}: {expected}")


def test_a_misspelt_section_in_the_file_names_the_nearest(write_config: Write, smallest_text: str) -> None:
    path = write_config(smallest_text.replace("train:", "trian:"))
    assert "unknown key 'trian'; did you mean 'train'?" in message_of(path)


def test_a_key_that_is_no_word_is_unknown(write_config: Write, smallest_text: str) -> None:
    assert "unknown key 7; keys are words" in message_of(write_config("7: x\n" + smallest_text))


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("model.num_layers=4.0", "model.num_layers=4.0: input should be a valid integer"),
        ("model.num_layers=true", "model.num_layers=True: input should be a valid integer"),
        ("model.num_layers='4'", "model.num_layers='4': input should be a valid integer"),
        ("model.num_layers=010", "model.num_layers='010': input should be a valid integer"),
        ("model.use_swap=1", "model.use_swap=1: input should be a valid boolean"),
        ("model.use_swap=yes", "model.use_swap='yes': input should be a valid boolean"),
        ("model.reinject=maybe", "model.reinject='maybe': input should be True, False or 'auto'"),
        ("optim.lr=fast", "optim.lr='fast': input should be a valid number"),
        ("optim.lr=", "optim.lr=None: input should be a valid number"),
        ("optim.betas=0.9", "optim.betas=0.9: input should be a valid tuple"),
        ("data.path=5", "data.path=5: input should be a valid string"),
        ("model=3", "model=3: expected a section of keys"),
        ("train.goal=3", "train.goal=3: expected a section of keys"),
        ("train.precision=fp8", "train.precision='fp8': input should be 'auto', 'fp32', 'bf16' or 'fp16'"),
        ("train.compile=true", "train.compile=True: input should be 'off' or 'blocks'"),
        ("model.architecture=gpt", "model.architecture='gpt' is unknown; did you mean 'gpt2'?"),
        ("runtime.device=gpu", "runtime.device: 'gpu' is not auto, cpu, cuda or cuda:N"),
        ("train.profile=5", "train.profile=5: input should be a valid string"),
        ("train.profile=5-9", "train.profile: '5-9' is not START:END, two step numbers"),
        ("run.name=a/b", "run.name: 'a/b' is not a file name: some text without '/'"),
        ("run.name=''", "run.name: '' is not a file name: some text without '/'"),
    ],
)
def test_a_value_of_the_wrong_type_shows_itself_and_what_was_expected(
    smallest: Path, override: str, expected: str
) -> None:
    assert message_of(smallest, override) == f"{smallest}: {expected}"


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("seed=-1", "seed=-1: input should be greater than or equal to 0"),
        ("model.num_layers=0", "model.num_layers=0: input should be greater than 0"),
        ("model.num_tracks=0", "model.num_tracks=0: input should be greater than 0"),
        ("model.num_loops=-2", "model.num_loops=-2: input should be greater than 0"),
        ("model.num_heads=0", "model.num_heads=0: input should be greater than 0"),
        ("model.dropout=1", "model.dropout=1: input should be less than 1"),
        ("model.norm_eps=0", "model.norm_eps=0: input should be greater than 0"),
        ("optim.lr=-3e-4", "optim.lr=-0.0003: input should be greater than 0"),
        ("optim.betas=[0.9, 1]", "optim.betas.1=1: input should be less than 1"),
        ("optim.grad_clip=-1", "optim.grad_clip=-1: input should be greater than or equal to 0"),
        ("optim.min_lr=1", "optim: min_lr=1.0 is above lr=0.001"),
        ("loss.label_smoothing=1.5", "loss.label_smoothing=1.5: input should be less than 1"),
        ("train.global_batch=0", "train.global_batch=0: input should be greater than 0"),
        ("train.profile=9:5", "train: profile=9:5 must be START:END with 1 <= START <= END"),
        ("train.profile=0:5", "train: profile=0:5 must be START:END with 1 <= START <= END"),
    ],
)
def test_a_value_out_of_range_names_the_range(smallest: Path, override: str, expected: str) -> None:
    assert message_of(smallest, override) == f"{smallest}: {expected}"


@pytest.mark.parametrize("value", [".inf", ".nan", "inf", "1e999"])
def test_a_number_must_be_finite(smallest: Path, value: str) -> None:
    assert re.search(
        r"optim\.lr=.*: input should be a (valid|finite) number", message_of(smallest, f"optim.lr={value}")
    )


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["model.num_heads=5"], "model: num_heads=5 does not divide hidden_size=16; nearest that does: 4"),
        (["model.num_heads=16"], "model: hidden_size / num_heads = 1 is odd; rotary positions turn pairs"),
        (["model.num_kv_heads=3"], "model: num_kv_heads=3 does not divide num_heads=4; nearest that does: 2"),
        (["model.num_kv_heads=8"], "model: num_kv_heads=8 does not divide num_heads=4; nearest that does: 4"),
        (
            ["model.hidden_size=96", "model.num_heads=7"],
            "model: num_heads=7 does not divide hidden_size=96; nearest that does: 6",
        ),
    ],
)
def test_heads_that_do_not_divide_name_the_nearest_that_do(
    smallest: Path, overrides: list[str], expected: str
) -> None:
    assert message_of(smallest, *overrides).startswith(f"{smallest}: {expected}")


def test_a_micro_batch_that_does_not_divide_names_the_nearest_triple(smallest: Path) -> None:
    assert message_of(smallest, "train.micro_batch=5") == (
        f"{smallest}: global_batch=16 is not a multiple of micro_batch=5; "
        "nearest valid: global_batch=16, micro_batch=4, accumulation=4"
    )


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        (
            "train.max_epochs=1",
            "train: give one of max_steps and max_epochs: both are given, set the other to null",
        ),
        ("train.max_steps=null", "train: give one of max_steps and max_epochs: neither is given"),
    ],
)
def test_a_run_has_one_length(smallest: Path, override: str, expected: str) -> None:
    assert message_of(smallest, override) == f"{smallest}: {expected}"


def test_a_warm_up_is_given_once(smallest: Path) -> None:
    message = message_of(smallest, "optim.warmup_steps=3", "optim.warmup_ratio=0.1")
    assert (
        message
        == f"{smallest}: optim: give one of warmup_steps and warmup_ratio: both are given, set the other to null"
    )


def test_a_missing_key_is_named(write_config: Write, smallest_text: str) -> None:
    assert message_of(write_config(smallest_text.replace("  vocab_size: 257\n", ""))).endswith(
        "model.vocab_size is missing"
    )
    assert message_of(write_config(smallest_text.replace("data:\n  path: corpus\n", ""))).endswith(
        "data is missing"
    )


def test_of_several_mistakes_the_first_is_told_and_the_others_are_counted(smallest: Path) -> None:
    message = message_of(smallest, "model.num_layers=0", "optim.lr=0")
    assert message == f"{smallest}: model.num_layers=0: input should be greater than 0 (and 1 more)"


def test_an_unknown_key_is_told_before_what_follows_from_it(write_config: Write, smallest_text: str) -> None:
    path = write_config(smallest_text.replace("num_layers", "num_layrs"))
    assert message_of(path) == (
        f"{path}: unknown key 'model.num_layrs'; did you mean 'model.num_layers'? (and 1 more)"
    )


def test_a_wrong_value_is_not_blamed_on_what_is_derived_from_it(smallest: Path) -> None:
    assert message_of(smallest, "model.hidden_size=wide") == (
        f"{smallest}: model.hidden_size='wide': input should be a valid integer"
    )


def test_a_missing_file_names_its_neighbour(smallest: Path) -> None:
    wrong = smallest.with_name("rum.yaml")
    assert message_of(wrong) == f"{wrong}: no such configuration file; did you mean {smallest}?"
    alone = smallest.parent / "nowhere" / "x.yaml"
    assert message_of(alone) == f"{alone}: no such configuration file"


def test_a_file_that_cannot_be_read_says_why(smallest: Path) -> None:
    assert "cannot be read" in message_of(smallest.parent)
    smallest.write_bytes(b"seed: \xff\n")
    assert re.search(r"cannot be read: .*0xff in position 6", message_of(smallest))


@pytest.mark.parametrize(("text", "found"), [("", "None"), ("hello", "'hello'"), ("- a\n- b", "['a', 'b']")])
def test_a_file_without_sections_says_what_it_holds(write_config: Write, text: str, found: str) -> None:
    path = write_config(text)
    assert message_of(path) == f"{path}: expected sections such as `model:` and `train:`, found {found}"


@pytest.mark.parametrize("seconds", ["0.01", "-5.0"])
def test_samples_of_the_system_are_off_or_not_too_frequent(smallest: Path, seconds: str) -> None:
    message = message_of(smallest, f"tracking.system_interval={seconds}")
    assert f"tracking.system_interval: {seconds} is neither 0 (off) nor at least 0.1 seconds" in message
    for good in ("0", "30", "0.5"):
        assert load_config(smallest, [f"tracking.system_interval={good}"]).tracking.system_interval == float(good)
