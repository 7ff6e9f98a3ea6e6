from typing import Annotated, Any

from pydantic import Discriminator, Tag

from parallax.config.models.dual_track import DualTrackConfig
from parallax.config.models.gpt2 import (
    DriftDiffusionConfig,
    DuoPredictConfig,
    Gpt2Config,
    ParallelConfig,
    RotatingHeadConfig,
    StrictDuoPredictConfig,
)

DEFAULT_ARCHITECTURE = "dual_track"


def _architecture_of(model: Any) -> Any:
    """What a section says, before it is checked."""
    if isinstance(model, dict):
        return model.get("architecture", DEFAULT_ARCHITECTURE)
    return getattr(model, "architecture", DEFAULT_ARCHITECTURE)


AnyModelConfig = Annotated[
    Annotated[DualTrackConfig, Tag("dual_track")]
    | Annotated[Gpt2Config, Tag("gpt2")]
    | Annotated[DriftDiffusionConfig, Tag("gpt2_drift_diffusion")]
    | Annotated[ParallelConfig, Tag("gpt2_parallel")]
    | Annotated[DuoPredictConfig, Tag("gpt2_duo_predict")]
    | Annotated[StrictDuoPredictConfig, Tag("gpt2_duo_predict_strict")]
    | Annotated[RotatingHeadConfig, Tag("gpt2_rotating_head")],
    Discriminator(_architecture_of),
]
"""The configuration of any architecture: that of the class whose `architecture` the section names."""
