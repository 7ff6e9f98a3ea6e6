from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from parallax.config.batch import resolve_batch
from parallax.config.data import DataConfig
from parallax.config.models.choice import AnyModelConfig
from parallax.config.parallel import DeepSpeedConfig, ParallelConfig
from parallax.config.section import Section
from parallax.config.sections import (
    LossConfig,
    OptimConfig,
    RunSection,
    RuntimeConfig,
    SampleConfig,
    TrackingConfig,
    TrainConfig,
)


class RunConfig(Section):
    """One complete run. Its resolved form, every default written out, is saved with it and starts it again."""

    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of weights, data order, dropout and samples."""
    run: RunSection = Field(default_factory=RunSection)
    model: AnyModelConfig
    """The model; its `architecture` says which keys there are."""
    data: DataConfig
    train: TrainConfig
    optim: OptimConfig = Field(default_factory=OptimConfig)
    loss: LossConfig = Field(default_factory=LossConfig)
    parallel: ParallelConfig = Field(default_factory=ParallelConfig)
    deepspeed: DeepSpeedConfig = Field(default_factory=DeepSpeedConfig)
    sample: SampleConfig = Field(default_factory=SampleConfig)
    runtime: RuntimeConfig = Field(default_factory=RuntimeConfig)
    tracking: TrackingConfig = Field(default_factory=TrackingConfig)

    @model_validator(mode="after")
    def _batch_divides(self) -> Self:
        resolve_batch(self.train.global_batch, self.train.micro_batch, data_parallel_size=1)
        return self

    def resolved(self) -> dict[str, Any]:
        """Plain nested dictionary with every default written out, ready for YAML or JSON."""
        return self.model_dump(mode="json")
