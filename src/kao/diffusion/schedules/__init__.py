"""Noise schedules: how much signal and how much noise there is at time t.

Everything in this package describes a noisy image as

    x_t = alpha_t * x_0 + sigma_t * eps,      eps ~ N(0, I),                    (1)

and a schedule is the curve t -> (alpha_t, sigma_t).  t = 0 is clean; t = t_max is (almost)
noise; in between alpha / sigma falls.  The unit of t is the schedule's own, the one its
paper uses: 1..T for DDPM, [0, 1] for flows, sigma itself for EDM.

    DDPM (discrete)   alpha = sqrt(abar_t)     sigma = sqrt(1 - abar_t)    t in 0..T
    VP cosine         alpha = cos(pi t / 2)    sigma = sin(pi t / 2)       t in [0, 1]
    VE, EDM           alpha = 1                sigma = t                   t in [0, 80]
    rectified flow    alpha = 1 - t            sigma = t                   t in [0, 1]

`base` says what a schedule is; `discrete` and `continuous` hold the four curves; `tables` holds
the published tables of abar.  Each name in `SCHEDULES` is a configuration, a frozen dataclass
whose `build()` makes the curve.
"""

from kao.diffusion.schedules.base import Level, NoiseSchedule, ScheduleConfig, like
from kao.diffusion.schedules.continuous import (
    VE,
    Flow,
    FlowSchedule,
    VESchedule,
    VPCosine,
    VPCosineSchedule,
)
from kao.diffusion.schedules.discrete import DiscreteSchedule
from kao.diffusion.schedules.tables import Betas, Cosine, Laplace, Linear, ScaledLinear, Sigmoid

SCHEDULES: dict[str, type[ScheduleConfig]] = {
    "linear": Linear,
    "scaled_linear": ScaledLinear,
    "cosine": Cosine,
    "sigmoid": Sigmoid,
    "laplace": Laplace,
    "betas": Betas,
    "vp_cosine": VPCosine,
    "ve": VE,
    "flow": Flow,
}

__all__ = [
    "SCHEDULES",
    "VE",
    "Betas",
    "Cosine",
    "DiscreteSchedule",
    "Flow",
    "FlowSchedule",
    "Laplace",
    "Level",
    "Linear",
    "NoiseSchedule",
    "ScaledLinear",
    "ScheduleConfig",
    "Sigmoid",
    "VESchedule",
    "VPCosine",
    "VPCosineSchedule",
    "like",
]
