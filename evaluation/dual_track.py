from parallax.config.models.base import ModelConfig
from parallax.config.models.dual_track import DualTrackConfig
from parallax.errors import ConfigError


def as_dual_track(config: ModelConfig) -> DualTrackConfig:
    """The configuration of a model of tracks, for what compares with or looks into those alone.

    Raises:
        ConfigError: it is another architecture's.
    """
    if not isinstance(config, DualTrackConfig):
        raise ConfigError(f"model.architecture={config.architecture}: this is made for dual_track")
    return config
