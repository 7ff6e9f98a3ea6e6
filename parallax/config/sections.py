"""The sections of a run's configuration beside the model's."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from parallax.config.section import CountOrOff, Fraction, PositiveInt, Section, UserPath, derived, of_form

_SHORTEST_INTERVAL = 0.1


class RunSection(Section):
    """Where the run lives and what it is called."""

    name: Annotated[str, of_form(r"[^/\x00]+", "a file name: some text without '/'")] = "run"
    """Name in listings and in MLflow; the configuration file's stem unless stated."""
    dir: UserPath = derived(lambda data: f"runs/{data['name']}")
    """Folder of checkpoints, journal and resolved configuration. The same command there resumes the run."""


class TrainGoal(Section):
    """What the run must reach on its own training batch; it stops there, and fails if it never does."""

    max_loss: Annotated[float, Field(gt=0)]
    """Loss below which the goal is reached, in nats a token."""
    min_accuracy: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Next-token accuracy that must be reached as well."""


class TrainConfig(Section):
    """How long, in what portions and in which precision."""

    max_steps: PositiveInt | None = None
    """Optimizer steps of the run; give this or `max_epochs`."""
    max_epochs: Annotated[float, Field(gt=0)] | None = None
    """Passes over the training windows; give this or `max_steps`."""
    global_batch: PositiveInt = 32
    """Samples (windows) per optimizer step, over all ranks; fixed for a run's life."""
    micro_batch: int = derived(lambda data: data["global_batch"], gt=0)
    """Samples per forward on one data-parallel rank; accumulation is global_batch / (micro_batch * ranks)."""
    auto_batch: bool = False
    """Find, by real steps before a new run begins, the largest micro-batch that fits, at most `micro_batch`."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Autocast type; master weights stay fp32. A run keeps what `auto` resolved to."""
    compile: Literal["off", "blocks"] = "off"
    """`blocks` compiles every decoder block with torch.compile."""
    activation_checkpointing: bool = False
    """Recompute each block in the backward instead of keeping its activations."""
    log_every: PositiveInt = 10
    """Steps between two lines of the journal."""
    eval_every: CountOrOff = 100
    """Steps between two measurements of the validation loss; 0: only at the end."""
    eval_samples: PositiveInt | None = None
    """Validation windows measured each time; null: the whole split."""
    save_every: CountOrOff = 100
    """Steps between two checkpoints; 0: only at the end."""
    keep_last: PositiveInt = 2
    """How many of the newest checkpoints are kept."""
    save_best: bool = True
    """Save and keep a checkpoint whenever the validation loss improves."""
    init_from: UserPath | None = None
    """Checkpoint whose weights start the run, with a fresh optimizer."""
    freeze: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """Parameters that keep their values: a list of shell patterns over their names, such as `embedding.*`."""
    profile: Annotated[str, of_form(r"[0-9]+:[0-9]+", "START:END, two step numbers")] | None = None
    """START:END writes a torch profiler trace of those steps into the run folder."""
    ledger: bool = False
    """Log the bytes that each step's collectives send, beside the formula's; every step is a little slower."""
    goal: TrainGoal | None = None
    """What the training batch must reach (see `configs/overfit.yaml`)."""

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.max_steps is None) == (self.max_epochs is None):
            given = "both are given, set the other to null" if self.max_steps else "neither is given"
            raise ValueError(f"give one of max_steps and max_epochs: {given}")
        if self.profile is not None:
            start, end = map(int, self.profile.split(":"))
            if not 1 <= start <= end:
                raise ValueError(f"profile={self.profile} must be START:END with 1 <= START <= END")
        return self


class OptimConfig(Section):
    """AdamW and its learning-rate schedule."""

    lr: Annotated[float, Field(gt=0)] = 3e-4
    """Peak learning rate."""
    min_lr: float = derived(lambda data: data["lr"] / 10, ge=0)
    """Floor the schedule ends at; a tenth of `lr` unless stated."""
    schedule: Literal["cosine", "linear", "constant", "warmup_stable_decay"] = "cosine"
    """Shape after the warm-up."""
    warmup_steps: CountOrOff | None = None
    """Steps of linear warm-up; give this or `warmup_ratio`."""
    warmup_ratio: Fraction | None = None
    """Warm-up as a share of the run; 0.02 when neither is given."""
    decay_ratio: Annotated[float, Field(gt=0, le=1)] = 0.2
    """Share of the run spent decaying at its end, for `warmup_stable_decay`."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    """Decoupled decay of the matrices; norms and embeddings have none."""
    betas: Annotated[
        tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]], Field(strict=False)
    ] = (0.9, 0.95)
    """Decay rates of AdamW's two moments."""
    eps: Annotated[float, Field(gt=0)] = 1e-8
    """AdamW's denominator term."""
    grad_clip: Annotated[float, Field(ge=0)] = 1.0
    """Largest global gradient norm; 0: no clipping."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.warmup_steps is not None and self.warmup_ratio is not None:
            raise ValueError("give one of warmup_steps and warmup_ratio: both are given, set the other to null")
        if self.min_lr > self.lr:
            raise ValueError(f"min_lr={self.min_lr} is above lr={self.lr}")
        return self


class LossConfig(Section):
    """The training objective; perplexity and bits per byte always come from the plain cross-entropy."""

    z_loss: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the squared log-partition, which keeps logits from drifting."""
    label_smoothing: Fraction = 0.0
    """Share of the target spread evenly over the vocabulary."""
    chunk_tokens: PositiveInt = 1024
    """Tokens whose logits exist at one time."""


class SampleConfig(Section):
    """Text generated while training."""

    every: CountOrOff = 0
    """Steps between two samples; 0: none."""
    prompt: str = "The "
    """What the sample continues."""
    max_new_tokens: PositiveInt = 64
    """Length of the sample, in tokens."""
    temperature: Annotated[float, Field(ge=0)] = 0.8
    """Sampling temperature; 0: greedy."""


class RuntimeConfig(Section):
    """The machine; none of it changes what is computed, beyond rounding."""

    device: Annotated[str, of_form(r"auto|cpu|cuda(:[0-9]+)?", "auto, cpu, cuda or cuda:N")] = "auto"
    """auto, cpu, cuda or cuda:N."""
    attention_backend: str = "auto"
    """How the attention operator is computed: auto, or one of its backends; softmax has flash, chunked, sdpa and
    eager, plla has triton, chunked and eager."""
    num_threads: PositiveInt | None = None
    """CPU threads of torch; null: torch's own choice."""
    deterministic: bool = False
    """Only deterministic kernels on CUDA (a CPU run is deterministic anyway)."""
    deadline_seconds: Annotated[float, Field(ge=1)] = 30.0
    """Within which a rank that died, stopped or lost its network ends the whole run (`docs/FAULTS.md`)."""


def _interval(seconds: float) -> float:
    if seconds != 0 and seconds < _SHORTEST_INTERVAL:
        raise ValueError(f"{seconds} is neither 0 (off) nor at least {_SHORTEST_INTERVAL} seconds")
    return seconds


class TrackingConfig(Section):
    """Where the journal is copied to."""

    mlflow: bool = True
    """Feed MLflow."""
    uri: str | None = None
    """MLflow server or store; null: MLFLOW_TRACKING_URI, else the SQLite file runs/mlflow.db."""
    experiment: Annotated[str, Field(min_length=1)] = "parallax"
    """MLflow experiment."""
    tensorboard: bool = True
    """Write TensorBoard events into the run folder."""
    system_interval: Annotated[float, AfterValidator(_interval)] = 30.0
    """Seconds between two samples of each node's processors, memory, network, disks and GPUs; 0: none."""
