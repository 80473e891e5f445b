"""Options that are good alone and cannot work together; seen before anything is built."""

import torch

from kao.config.finetuning import FinetuneConfig
from kao.config.sections import EMAConfig, TrainingConfig
from kao.diffusion import Denoiser, DiscreteSchedule, Weight
from kao.errors import ConfigError
from kao.training.optimizers import AdamW8bit, Muon
from kao.training.optimizers.method import Method

_LOUDEST = 4.0
"""Largest standard deviation of what a network may be shown unscaled."""

_BURST = 100.0
"""Largest factor by which a weight may multiply what the network is trained on: more, and little
else is learned than what it multiplies."""


def refuse_pairs(
    method: Method, training: TrainingConfig, ema: EMAConfig, finetune: FinetuneConfig
) -> None:
    """Refuse an optimiser or averages that cannot be sharded, and adapters that it passes over.

    Args:
        method: Of the optimiser.
        training: Says whether weights are sharded.
        ema: Where the averages are.
        finetune: What learns.

    Raises:
        ConfigError: Two of them do not go together; the message says what to choose.
    """
    sharded = training.parallel == "fsdp"
    if isinstance(method, AdamW8bit) and sharded:
        raise ConfigError(
            'optimizer.method = "adamw8bit" keeps its moments whole, and training.parallel = '
            '"fsdp" shards them: choose "adamw", or training.parallel = "ddp".'
        )
    if ema.offload and sharded:
        raise ConfigError(
            "ema.offload = true keeps whole averages in the CPU's memory, and "
            'training.parallel = "fsdp" shards them on the devices: choose one of the two.'
        )
    if finetune.train == "lora" and isinstance(method, Muon) and finetune.rank < method.least:
        raise ConfigError(
            f"finetune.rank = {finetune.rank} makes adapters narrower than what optimizer.method = "
            f'"muon" trains: set finetune.rank = {method.least} or more, or optimizer.method = '
            f'"adamw".'
        )


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
        whose, instead = "the", "take the v target"
        if denoiser.native is not None:
            whose, instead = "the base's own", 'take loss.weight = "plain"'
        raise ConfigError(
            f"This loss.weight multiplies what the network is trained on by up to {factor:.2g}, "
            f"near pure noise, where {whose} target says little of x_0: {instead}, or a weight "
            f"that falls with the snr, as min_snr with a floor of 0 does."
        )
