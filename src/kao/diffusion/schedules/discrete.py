"""The DDPM chain: a schedule that is a table."""

import torch
from torch import Tensor

from kao.diffusion.schedules.base import Level, NoiseSchedule
from kao.errors import ConfigError


class DiscreteSchedule(NoiseSchedule):
    """The DDPM chain: abar_t = prod_{i<=t} (1 - beta_i) for t = 0..T, with abar_0 = 1.

    t counts as in Ho et al. (2020), 1..T with 0 for the clean image.  The table is built and
    kept in float64; at whole t it is read, not computed, and between whole t abar is linear.

    Args:
        betas: The T forward-process variances in time order, (T,), in (0, 1); the last may
            be 1, for a chain that ends in pure noise.

    Attributes:
        abar: The table, (T + 1,), float64.
        t_max: T.

    Raises:
        ConfigError: abar does not fall with every step, as float64 sees it.
    """

    def __init__(self, betas: Tensor):
        self.abar = _checked(running_product(betas))
        self.t_max = len(betas)

    @classmethod
    def of_abar(cls, abar: Tensor) -> "DiscreteSchedule":
        """The schedule that has exactly this table.

        Args:
            abar: abar_0 = 1, abar_1, ..., abar_T, (T + 1,), falling with every step; the last
                may be 0.

        Raises:
            ConfigError: The table does not start at 1, ends below 0 or does not fall.
        """
        # Past __init__: betas made from the table would not multiply up to its last digits.
        schedule = cls.__new__(cls)
        schedule.abar = _checked(abar.double())
        schedule.t_max = len(abar) - 1
        return schedule

    def __call__(self, t: Tensor) -> Level:
        """The level at time `t`; see `NoiseSchedule.__call__`."""
        i = t.floor().clamp(0, self.t_max - 1).long()
        abar = torch.lerp(self.abar[i], self.abar[i + 1], t - i)
        return Level(abar.sqrt(), (1 - abar).sqrt())

    def time_at(self, log_snr: Tensor) -> Tensor:
        """The inverse in closed form: abar = sigmoid(log snr), looked up in the table."""
        abar = log_snr.sigmoid()
        i = torch.searchsorted(-self.abar, -abar, right=True) - 1
        i = i.clamp(0, int(self.t_max) - 1)
        fraction = (self.abar[i] - abar) / (self.abar[i] - self.abar[i + 1])
        return i + fraction.clamp(max=1)

    def label(self, t: Tensor) -> Tensor:
        """The 0-based index t - 1, on which published DDPM weights were trained."""
        return t - 1


def running_product(betas: Tensor) -> Tensor:
    """abar_0 = 1, abar_1, ..., abar_T from the T betas: (T,) to (T + 1,), float64."""
    abar = (1 - betas.double()).cumprod(0)
    return torch.cat([abar.new_ones(1), abar])


def _checked(abar: Tensor) -> Tensor:
    """The table itself.

    Raises:
        ConfigError: It does not start at 1, ends below 0 or does not fall.
    """
    if abar.ndim != 1 or len(abar) < 2 or abar[0] != 1 or abar[-1] < 0:
        raise ConfigError(
            f"A table of abar is a line of numbers from 1 down to 0 or more, and this one, of "
            f"shape {tuple(abar.shape)}, is {abar.flatten()[:1].tolist()} to "
            f"{abar.flatten()[-1:].tolist()}: put abar_0 = 1 first."
        )
    # "not <" rather than ">=": so a NaN counts as no fall.
    flat = (~(abar[1:] < abar[:-1])).nonzero()
    if len(flat):
        i = int(flat[0])
        raise ConfigError(
            f"The schedule's abar is {abar[i]:.17g} at time {i} and {abar[i + 1]:.17g} at time "
            f"{i + 1}, but each step must add noise that float64 can tell: choose milder values "
            f"in [schedule], or fewer steps."
        )
    return abar
