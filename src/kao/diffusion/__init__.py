"""The mathematics: schedules, targets, denoisers, losses, samplers.

Four sentences make everything here compose with everything else:

1. x_t = alpha_t x_0 + sigma_t eps; a schedule is the curve t -> (alpha, sigma).
2. A network outputs y = a x_0 + b eps; a target is the function level -> (a, b), and inverting
   the 2 x 2 matrix gives the prediction (x_0, eps).
3. The probability-flow ODE is dx = x_0 d(alpha) + eps d(sigma); a sampler integrates it, or a
   diffusion with the same marginals, over a grid of times.
4. A loss is a weight w(snr) on |x0_hat - x_0|^2.

Classes are exported here.  Functions that read best with the name of their module are used
through it: `targets.v`, `losses.uniform`, `grids.karras`.
"""

from kao.diffusion import grids, losses, targets
from kao.diffusion.denoiser import Denoise, Denoiser, Prediction, solve
from kao.diffusion.grids import GRIDS, Grid
from kao.diffusion.guidance import Clipped
from kao.diffusion.losses import (
    NORMS,
    WEIGHTS,
    DenoisingLoss,
    Huber,
    Losses,
    MinSNR,
    Mixed,
    Norm,
    Times,
    Weight,
)
from kao.diffusion.noise import Noise, SeededNoise, seeds_of
from kao.diffusion.samplers import DDIM, SAMPLERS, Ancestral, Heun, Sampler, sample, trajectory
from kao.diffusion.schedules import (
    SCHEDULES,
    VE,
    Cosine,
    DiscreteSchedule,
    Flow,
    FlowSchedule,
    Level,
    Linear,
    NoiseSchedule,
    ScaledLinear,
    ScheduleConfig,
    VESchedule,
    VPCosine,
    VPCosineSchedule,
)
from kao.diffusion.targets import EDM, TARGETS, Row, Target

__all__ = [
    # schedules
    "SCHEDULES",
    "Level",
    "NoiseSchedule",
    "DiscreteSchedule",
    "VPCosineSchedule",
    "VESchedule",
    "FlowSchedule",
    "ScheduleConfig",
    "Linear",
    "ScaledLinear",
    "Cosine",
    "VPCosine",
    "VE",
    "Flow",
    # targets
    "TARGETS",
    "targets",
    "Row",
    "Target",
    "EDM",
    # denoisers
    "Denoise",
    "Denoiser",
    "Prediction",
    "solve",
    "Clipped",
    # losses
    "NORMS",
    "WEIGHTS",
    "losses",
    "DenoisingLoss",
    "Losses",
    "Times",
    "Weight",
    "Norm",
    "MinSNR",
    "Huber",
    "Mixed",
    # sampling
    "GRIDS",
    "SAMPLERS",
    "grids",
    "Grid",
    "Noise",
    "SeededNoise",
    "seeds_of",
    "Sampler",
    "Ancestral",
    "DDIM",
    "Heun",
    "sample",
    "trajectory",
]
