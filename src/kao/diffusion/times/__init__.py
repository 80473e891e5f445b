"""Training times: where on the schedule a batch is taken.

    Uniform       even in t                                    Ho et al. (2020)
    LogitNormal   logit(t / t_max) ~ N(mean, std^2)            Esser et al. (2024)
    LogNormal     ln(sigma / alpha) ~ N(mean, std^2)           Karras et al. (2022)
    LossMoment    where the loss varies, learned               Nichol & Dhariwal (2021)
    Warped        where the error of x_0 changes, learned      after Dieleman et al. (2022)

The first three define the objective: the mean of the loss over their own density.  The learned
two keep the objective of Uniform, by a weight on each image, and only lessen its variance.

Draws are made for a whole batch, from one generator.  Processes that share a batch each take their
rows of one draw, so that the strata span them all.
"""

from kao.diffusion.times.base import Draw, Times, TimesConfig, shares
from kao.diffusion.times.fixed import FixedTimes, LogitNormal, LogNormal, Uniform
from kao.diffusion.times.learned import LearnedTimes, LossMoment, Warped

__all__ = [
    "TIMES",
    "Draw",
    "FixedTimes",
    "LearnedTimes",
    "LogNormal",
    "LogitNormal",
    "LossMoment",
    "Times",
    "TimesConfig",
    "Uniform",
    "Warped",
    "shares",
]

TIMES: dict[str, type[TimesConfig]] = {
    "uniform": Uniform,
    "logit_normal": LogitNormal,
    "log_normal": LogNormal,
    "loss_moment": LossMoment,
    "warped": Warped,
}
