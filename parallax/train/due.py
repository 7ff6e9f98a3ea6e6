from dataclasses import dataclass

from parallax.config.run import RunConfig


@dataclass(frozen=True)
class Due:
    """What follows a step. The last step of a run is logged, measured and saved in any case."""

    log: bool
    evaluate: bool
    save: bool
    sample: bool


def due_after(step: int, total_steps: int, config: RunConfig) -> Due:
    """What is due after `step` (1-based). Where the loss is measured, a line is logged too."""
    last = step == total_steps
    evaluate = last or _hits(step, config.train.eval_every)
    sample = _hits(step, config.sample.every) or (last and config.sample.every > 0)
    return Due(
        log=evaluate or sample or _hits(step, config.train.log_every),
        evaluate=evaluate,
        save=last or _hits(step, config.train.save_every),
        sample=sample,
    )


def _hits(step: int, every: int) -> bool:
    return every > 0 and step % every == 0
