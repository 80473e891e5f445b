"""Loss weights: how much the squared error of x_0 counts at each noise level.

Published losses are weights w on |x0_hat - x_0|^2, functions of snr = alpha^2 / sigma^2.  Plain
MSE on a network's output y = a x_0 + b eps has w = (det / sigma)^2, det = alpha b - sigma a:

    eps MSE (DDPM "simple")   snr              v MSE (VP)            snr + 1
    x0 MSE                    1                velocity MSE (flow)   (1 + sqrt(snr))^2

and |eps_hat - eps|^2 = snr |x0_hat - x_0|^2, so a paper's weight on the error of eps is multiplied
by snr here.  The weights of this module, in these terms:

    MinSNR          clamp(snr, floor, gamma)         EDMWeight       snr + 1 / sigma_data^2
    SoftMinSNR      snr gamma / (snr + gamma)        SigmoidWeight   snr sigmoid(bias - log snr)
    P2              snr / (k + snr)^gamma            TruncatedSNR    max(snr, 1)

A weight says nothing of how often a level is drawn: that is `times`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from kao.diffusion.schedules import Level
from kao.errors import ConfigError

Weight = Callable[[Level], Tensor]
"""Weight on the squared error of x_0: level -> float64 of its shape, >= 0 and finite."""


def _check_positive(name: str, value: float, customary: str) -> None:
    if not 0 < value < math.inf:
        raise ConfigError(
            f"weight.{name} = {value}, but it must be a positive number: {customary} is customary."
        )


@dataclass(frozen=True)
class MinSNR:
    """min(snr, gamma), and no less than a floor (Hang et al. 2023, who have none).

    Nearly clean images weigh no more than gamma.  Nearly pure noise weighs next to nothing without
    a floor, though what is said there, the mean of all pictures, is where drawing starts: drawn
    pictures are then drawn towards grey.

    Attributes:
        gamma: Above 0; 5 in the paper.
        floor: From 0 to gamma; 0 in the paper.  `TruncatedSNR` is a floor with a gamma that no
            level reaches.

    Raises:
        ConfigError: gamma is not a positive number, or the floor is out of range.
    """

    gamma: float = 5.0
    floor: float = 0.0

    def __post_init__(self) -> None:
        """Refuse a gamma that weighs nothing, and a floor that is none."""
        _check_positive("gamma", self.gamma, "5")
        if not 0 <= self.floor <= self.gamma:
            raise ConfigError(
                f"weight.floor = {self.floor}, but it must be a number from 0 to gamma = "
                f"{self.gamma}: 0 is none."
            )

    def __call__(self, level: Level) -> Tensor:
        """The weight at `level`."""
        return level.snr.clamp(min=self.floor, max=self.gamma)


@dataclass(frozen=True)
class SoftMinSNR:
    """snr gamma / (snr + gamma): MinSNR without its corner (Crowson et al. 2024).

    It is half the harmonic mean of snr and gamma, so it lies below both and tends to the smaller.

    Attributes:
        gamma: Above 0; what nearly clean images weigh.

    Raises:
        ConfigError: gamma is not a positive number.
    """

    gamma: float = 5.0

    def __post_init__(self) -> None:
        """Refuse a gamma that weighs nothing."""
        _check_positive("gamma", self.gamma, "5")

    def __call__(self, level: Level) -> Tensor:
        """The weight at `level`."""
        # In alpha and sigma rather than snr, so that no end of a schedule gives inf / inf.
        signal = level.alpha**2
        return self.gamma * signal / (signal + self.gamma * level.sigma**2)


@dataclass(frozen=True)
class P2:
    """snr / (k + snr)^gamma: perception prioritised over fine detail (Choi et al. 2022).

    The paper multiplies the eps loss by 1 / (k + snr)^gamma.

    Attributes:
        k: Above 0; 1 in the paper.  It bounds what pure noise weighs.
        gamma: At least 0; 1 or 0.5 in the paper, and 0 is the plain eps loss.

    Raises:
        ConfigError: k is not a positive number, or gamma is negative or not a number.
    """

    k: float = 1.0
    gamma: float = 1.0

    def __post_init__(self) -> None:
        """Refuse options that are no finite weight."""
        _check_positive("k", self.k, "1")
        if not 0 <= self.gamma < math.inf:
            raise ConfigError(
                f"weight.gamma = {self.gamma}, but P2's exponent must be 0 or a positive number: "
                f"1 is customary."
            )

    def __call__(self, level: Level) -> Tensor:
        """The weight at `level`."""
        # Numerator and denominator are those above times sigma^(2 gamma): no inf / inf.
        signal, noise = level.alpha**2, level.sigma**2
        return signal * noise ** (self.gamma - 1) / (self.k * noise + signal) ** self.gamma


@dataclass(frozen=True)
class EDMWeight:
    """snr + 1 / sigma_data^2: the EDM target's own weight (Karras et al. 2022, table 1).

    With it any target has the loss of EDM, lambda(sigma) = (sigma^2 + sigma_data^2) /
    (sigma sigma_data)^2 on the error of x_0 where alpha = 1.

    Attributes:
        sigma_data: Standard deviation of the data, above 0; 0.5 for pixels in [-1, 1].

    Raises:
        ConfigError: sigma_data is not a positive number.
    """

    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        """Refuse a sigma_data that is not a standard deviation."""
        _check_positive("sigma_data", self.sigma_data, "0.5")

    def __call__(self, level: Level) -> Tensor:
        """The weight at `level`."""
        return level.snr + 1 / self.sigma_data**2


@dataclass(frozen=True)
class SigmoidWeight:
    """snr sigmoid(bias - log snr): the sigmoid loss (Kingma & Gao 2023, Hoogeboom et al. 2024).

    The papers' objective is an integral over log snr of sigmoid(bias - log snr) |eps_hat - eps|^2;
    the factor snr carries the weight from the error of eps to that of x_0.  What is left out is
    |d log snr / dt|, by which an integral over t becomes one over log snr: with times drawn evenly
    in t, the weight is the sigmoid on the plain eps loss.

    In this form the weight is SoftMinSNR with gamma = exp(bias), in the unit of log snr.

    Attributes:
        bias: Log snr, natural logarithm, in [-100, 100], where the eps loss is halved.  Higher
            weighs fine detail more; 2 is a gamma of 7.4.

    Raises:
        ConfigError: bias is out of its range or not a number.
    """

    bias: float = 2.0

    def __post_init__(self) -> None:
        """Refuse a bias beyond every log snr."""
        if not -100 <= self.bias <= 100:
            raise ConfigError(
                f"weight.bias = {self.bias}, but it is a log snr between -100 and 100: 2 is "
                f"customary for small pictures, less for larger ones."
            )

    def __call__(self, level: Level) -> Tensor:
        """The weight at `level`."""
        # snr sigmoid(b - log snr) = e^b sigmoid(log snr - b), which has no inf * 0.
        return math.exp(self.bias) * (level.snr.log() - self.bias).sigmoid()


@dataclass(frozen=True)
class TruncatedSNR:
    """max(snr, floor): no image weighs less than floor (Salimans & Ho 2022, sec. 4).

    With the floor at 1, their "truncated SNR", a schedule that ends in pure noise still learns
    there, where the eps loss would weigh nothing.

    Attributes:
        floor: Above 0; 1 in the paper, which makes it the larger of the x_0 and the eps loss.

    Raises:
        ConfigError: floor is not a positive number.
    """

    floor: float = 1.0

    def __post_init__(self) -> None:
        """Refuse a floor that is none."""
        _check_positive("floor", self.floor, "1")

    def __call__(self, level: Level) -> Tensor:
        """The weight at `level`."""
        return level.snr.clamp(min=self.floor)


WEIGHTS: dict[
    str,
    type[MinSNR]
    | type[SoftMinSNR]
    | type[P2]
    | type[EDMWeight]
    | type[SigmoidWeight]
    | type[TruncatedSNR]
    | None,
] = {
    "plain": None,
    "min_snr": MinSNR,
    "soft_min_snr": SoftMinSNR,
    "p2": P2,
    "edm": EDMWeight,
    "sigmoid": SigmoidWeight,
    "truncated": TruncatedSNR,
}
"""None is the plain mean of the norm over whatever the network itself says."""
