"""What no network is trained on, by the levels of its schedule; seen before anything is built."""

import torch

from kao.diffusion import Denoiser, DiscreteSchedule, Weight
from kao.errors import ConfigError

_LOUDEST = 4.0
"""Largest standard deviation of what a network may be shown unscaled."""

_BURST = 1e4
"""Largest factor by which a weight may multiply what the network is trained on."""


def refuse_loud_inputs(denoiser: Denoiser) -> None:
    """Refuse a network that would see inputs of any size, unscaled.

    Args:
        denoiser: May be on the meta device.

    Raises:
        ConfigError: It would; the message says what scales them.
    """
    schedule = denoiser.seen
    end = schedule(torch.tensor(float(schedule.t_max), dtype=torch.float64))
    if denoiser.sigma_data is None and end.sigma > _LOUDEST:
        raise ConfigError(
            f"On this schedule the network's input would have a standard deviation of up to "
            f"{end.sigma:.3g}, which no network is made for: set input_scaling = true, or take the "
            f"edm target, which scales it."
        )


def refuse_bursting_weights(denoiser: Denoiser, weight: Weight | None) -> None:
    """Refuse a weight by which one image near pure noise would outweigh all others.

    Args:
        denoiser: May be on the meta device.
        weight: Of the loss, by level; None weighs nothing.

    Raises:
        ConfigError: It would; the message says by how much.
    """
    if weight is None:
        return
    schedule = denoiser.schedule
    least = 1.0 if isinstance(schedule, DiscreteSchedule) else 1e-3 * schedule.t_max
    level = schedule(torch.linspace(least, float(schedule.t_max), 1000, dtype=torch.float64))
    # At the clean end a large weight meets small errors, as in the eps loss by way of x_0.
    factor = (weight(level) / denoiser.natural_weight(level)).where(level.snr < 1, 0).max().item()
    if factor > _BURST:
        whose, instead = "the", "take the v target, or another weight"
        if denoiser.native is not None:
            whose, instead = "the base's own", 'take "plain", or another weight'
        raise ConfigError(
            f"This loss.weight multiplies what the network is trained on by up to {factor:.2g}, "
            f"near pure noise, where {whose} target says little of x_0: {instead}."
        )
