"""What a network is trained to output, as a row of a 2 x 2 matrix.

Every target in use is a mixture of the clean image and the noise, y = a x_0 + b eps, so
with eq. (1) of `schedules`

    | x_t |   | alpha  sigma | | x_0 |
    |  y  | = |   a      b   | | eps |

and inverting that matrix (`denoiser.solve`) turns an output into a prediction of both.  A new
target is one function; nothing else in the package asks what the network predicts.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from kao.diffusion.schedules import Level
from kao.errors import ConfigError

Row = tuple[Tensor | float, Tensor | float]
"""(a, b): numbers, or tensors of the level's shape."""

Target = Callable[[Level], Row]
"""Coefficients (a, b) of y = a x_0 + b eps at a level."""


def eps(level: Level) -> Row:
    """The noise itself, as in DDPM (Ho et al. 2020, eq. 14)."""
    return 0.0, 1.0


def x0(level: Level) -> Row:
    """The clean image itself."""
    return 1.0, 0.0


def v(level: Level) -> Row:
    """The angular velocity alpha eps - sigma x_0 (Salimans & Ho 2022, sec. 4)."""
    return -level.sigma, level.alpha


def velocity(level: Level) -> Row:
    """The flow's dx/dt, eps - x_0 (Liu et al. 2022, eq. 1, with time reversed)."""
    return -1.0, 1.0


@dataclass(frozen=True)
class EDM:
    """F of EDM (Karras et al. 2022, eq. 7), for signal of any scale: x_0 = c_skip x + c_out F.

    With d^2 = alpha^2 sigma_data^2 + sigma^2, the variance of x_t,

        c_skip = alpha sigma_data^2 / d^2,    c_out = sigma sigma_data / d,

    chosen as in the paper's appendix B.6: F has unit variance, and c_out is least.  alpha = 1
    gives its table 1.  Solving x_0 = c_skip x + c_out F for F gives the row

        a = (1 - c_skip alpha) / c_out = sigma / (sigma_data d),
        b = -c_skip sigma / c_out      = -alpha sigma_data / d,

    whose right-hand forms have no 0/0 at sigma = 0.

    Attributes:
        sigma_data: Standard deviation of the data, above 0; 0.5 for pixels in [-1, 1].

    Raises:
        ConfigError: sigma_data is not a positive number.
    """

    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        """Refuse a sigma_data that is not a standard deviation."""
        if not 0 < self.sigma_data < math.inf:
            raise ConfigError(
                f"target.sigma_data = {self.sigma_data}, but the data's standard deviation is a "
                f"positive number: 0.5 fits most pictures in [-1, 1]."
            )

    def __call__(self, level: Level) -> Row:
        """The row (a, b) at `level`."""
        d = (level.alpha**2 * self.sigma_data**2 + level.sigma**2).sqrt()
        return level.sigma / (self.sigma_data * d), -level.alpha * self.sigma_data / d


TARGETS: dict[str, Target | type[EDM]] = {
    "eps": eps,
    "x0": x0,
    "v": v,
    "velocity": velocity,
    "edm": EDM,
}
"""A function has no options; a class is instantiated with them."""
