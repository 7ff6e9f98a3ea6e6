from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from parallax.data.token_split import TokenSplit
from parallax.data.validation import validation_batches
from parallax.errors import NonFiniteError
from parallax.generate.decode import generate
from parallax.generate.sampling import SamplingOptions
from parallax.metrics.journal import OTHER_VALIDATION
from parallax.metrics.memory import memory_usage
from parallax.metrics.peak import mfu
from parallax.metrics.quality import Quality, evaluate, perplexity
from parallax.parallel.data_parallel import sum_over_ranks
from parallax.runtime.seeds import derive_seed
from parallax.train.guard import non_finite
from parallax.train.session import Session
from parallax.train.step import StepResult

Record = dict[str, Any]


def step_record(session: Session, result: StepResult) -> Record:
    """The journal record of a step; loss, accuracy and z are means over the global batch's valid tokens.

    This reads values from the device, so it is for logging steps only.
    """
    sums, progress = result.sums, session.progress
    loss = float(sums.nll) / sums.tokens
    rate = session.meter.read()
    return {
        "step": progress.step,
        "epoch": progress.step * session.config.train.global_batch / session.sources.loader.samples_per_epoch,
        "tokens": progress.tokens,
        "flops": progress.flops,
        "seconds": rate.seconds,
        "loss": loss,
        "objective": float(sums.objective) / sums.tokens,
        "z_loss": float(sums.z) / sums.tokens,
        "perplexity": perplexity(loss),
        "accuracy": float(sums.correct) / sums.tokens,
        "lr": result.lr,
        "grad_norm": float(result.grad_norm),
        "param_norm": float(session.engine.parameter_norm()),
        "tokens_per_second": rate.tokens_per_second,
        "step_seconds": rate.step_seconds,
        "mfu": mfu(session.flops_per_token, rate.tokens_per_second, session.peak),
        "memory_bytes": memory_usage(session.engine.device).peak_bytes,
        **_source_shares(session),
        **result.traffic,
    }


def _source_shares(session: Session) -> Record:
    """Of several sources, each one's share of the samples so far and the passes made over it."""
    mixed, loader = session.sources.mixed, session.sources.loader
    if len(mixed) == 1:
        return {}
    counts = loader.source_counts(loader.cursor)
    record: Record = {}
    for source, count, windows in zip(mixed, counts, loader.num_windows, strict=True):
        record[f"source_share/{source.name}"] = count / loader.cursor
        record[f"source_epochs/{source.name}"] = count / windows
    return record


def validate(session: Session) -> Record:
    """Validation figures as journal keys; those of a corpus without a validation split are left out.

    The main corpus has `val_loss`, `val_perplexity`, `val_accuracy` and `val_bits_per_byte`; every other one
    that is mixed in, an anchor say, has `val_loss_on/NAME`.
    """
    record: Record = {}
    if session.sources.validation is not None:
        quality = _measure(session, session.sources.validation)
        record = {
            "val_loss": quality.loss,
            "val_perplexity": quality.perplexity,
            "val_accuracy": quality.accuracy,
            "val_bits_per_byte": quality.bits_per_byte,
        }
    for name, split in session.sources.other_validation.items():
        record[f"{OTHER_VALIDATION}{name}"] = _measure(session, split).loss
    return record


def _measure(session: Session, split: TokenSplit) -> Quality:
    config = session.config
    batches = validation_batches(
        split,
        max_seq_len=config.model.max_seq_len,
        batch_size=config.train.micro_batch,
        max_windows=config.train.eval_samples,
        dp=session.world.dp,
    )
    with session.engine.inference():
        return evaluate(
            session.engine.model,
            batches,
            bytes_per_token=split.bytes_per_token,
            autocast_dtype=session.engine.precision.autocast_dtype,
            separating_eos_id=session.separating_eos_id,
            sum_over_ranks=lambda values: sum_over_ranks(values, session.world.mesh),
        )


@contextmanager
def _any_algorithms() -> Iterator[None]:
    """Sampling sums up probabilities, which on CUDA has no deterministic kernel; training is not touched by it."""
    strict = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(False)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(strict)


def sample_text(session: Session) -> str:
    """Text that the model writes at this step; a pure function of weights, seed and step.

    Raises:
        NonFiniteError: the weights are so large that the logits are NaN or infinite.
    """
    config, tokenizer = session.config, session.sources.tokenizer
    prompt = [int(i) for i in tokenizer.encode(config.sample.prompt)]
    try:
        with session.engine.inference(), _any_algorithms():
            [written] = generate(
                session.engine.model,
                [prompt],
                max_new_tokens=config.sample.max_new_tokens,
                options=SamplingOptions(temperature=config.sample.temperature),
                seed=derive_seed(config.seed, "sample", session.progress.step),
                eos_id=tokenizer.eos_id,
            )
    except NonFiniteError:
        raise non_finite(session.progress.step, session.last_checkpoint()) from None
    return tokenizer.decode([*prompt, *written.tokens])
