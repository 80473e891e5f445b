"""[loss]: what is learned, and how each part of it counts."""

import math
from dataclasses import dataclass

from kao.config.tree import component
from kao.diffusion import (
    NORMS,
    TIMES,
    WEIGHTS,
    DenoisingLoss,
    MinSNR,
    NoiseSchedule,
    Norm,
    Perceptual,
    TimesConfig,
    Uncertainty,
    Uniform,
    Weight,
    norms,
)
from kao.errors import ConfigError
from kao.metrics import feature_maps


@dataclass(frozen=True)
class PerceptualConfig:
    """[loss.perceptual]: how far the predicted picture is from the right one in features.

    Attributes:
        weight: Of the term; 0 leaves it out.
        network: "wavelets", which needs no download, or the path of a TorchScript file: LPIPS's
            VGG-16, or any network from pictures in [-1, 1] to features.
        below: Largest noise-to-signal ratio sigma / alpha at which the term counts: past it
            a prediction is an average of pictures, which features should not judge.

    Raises:
        ConfigError: weight is no number from 0 up, or below none above 0.
    """

    weight: float = 0.0
    network: str = "wavelets"
    below: float = 1.0

    def __post_init__(self) -> None:
        """Refuse a weight or level that is none, before a network is looked for."""
        if not 0 <= self.weight < math.inf:
            raise ConfigError(
                f"loss.perceptual.weight = {self.weight}; expected a number from 0 up: 0 leaves "
                f"the term out."
            )
        if not 0 < self.below < math.inf:
            raise ConfigError(
                f"loss.perceptual.below = {self.below}; expected a number above 0: at 1 there is "
                f"as much noise as signal."
            )


@dataclass(frozen=True)
class LossConfig:
    """[loss].

    Attributes:
        times: Where on the schedule to train.
        weight: Weight on the squared error of x_0, as a function of snr.
        norm: What is averaged over a picture's residual.
        offset_noise: Standard deviation of noise that all pixels of a channel share, added to eps.
        input_perturbation: Standard deviation of noise that the network sees and is not asked for.
        bound: Weight of the variational bound, from which the network learns the variance of each
            step (0.001 as published); 0: no learned variance.
        uncertainty: Whether the noise levels are balanced by a learned uncertainty.
        perceptual: A term in the features of another network.
    """

    times: TimesConfig = component(TIMES, Uniform())
    weight: Weight | None = component(WEIGHTS, MinSNR())
    norm: Norm = component(NORMS, norms.l2)
    offset_noise: float = 0.0
    input_perturbation: float = 0.0
    bound: float = 0.0
    uncertainty: bool = False
    perceptual: PerceptualConfig = PerceptualConfig()

    def build(self, schedule: NoiseSchedule, *, seed: int) -> DenoisingLoss:
        """The loss, at the start of a run.

        Args:
            schedule: Of the denoiser.
            seed: Of the uncertainty's frequencies.

        Raises:
            ConfigError: A value is out of range, or the perceptual network cannot be loaded.
        """
        perceptual = self.perceptual
        return DenoisingLoss(
            self.times.build(schedule),
            weight=self.weight,
            norm=self.norm,
            offset_noise=self.offset_noise,
            input_perturbation=self.input_perturbation,
            bound=self.bound,
            uncertainty=Uncertainty(seed=seed) if self.uncertainty else None,
            perceptual=Perceptual(
                feature_maps(perceptual.network), weight=perceptual.weight, below=perceptual.below
            )
            if perceptual.weight != 0
            else None,
        )
