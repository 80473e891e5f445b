"""The mathematics: schedules, targets, denoisers, losses, samplers.

Four sentences make everything here compose with everything else:

1. x_t = alpha_t x_0 + sigma_t eps; a schedule is the curve t -> (alpha, sigma).
2. A network outputs y = a x_0 + b eps; a target is the function level -> (a, b), and inverting
   the 2 x 2 matrix gives the prediction (x_0, eps).
3. The probability-flow ODE is dx = x_0 d(alpha) + eps d(sigma); a sampler integrates it, or a
   diffusion with the same marginals, over a grid of times.
4. A loss is a weight w(snr) on |x0_hat - x_0|^2.

Classes are exported here.  Functions that read best with the name of their module are used
through it: `targets.v`, `norms.l1`, `grids.uniform`.
"""

from kao.diffusion import (
    editing,
    grids,
    inversion,
    norms,
    targets,
)
from kao.diffusion.bound import (
    variational_bound,
)
from kao.diffusion.denoiser import (
    Denoise,
    Denoiser,
    Prediction,
    solve,
)
from kao.diffusion.grids import (
    GRIDS,
    Grid,
    Karras,
    Learned,
    LogSNR,
    Spaced,
)
from kao.diffusion.guidance import (
    THRESHOLDS,
    Clip,
    Clipped,
    Conditioned,
    Dynamic,
    DynamicallyClipped,
    Guided,
    Threshold,
)
from kao.diffusion.losses import (
    DenoisingLoss,
    Drawn,
    Losses,
)
from kao.diffusion.native import (
    Native,
)
from kao.diffusion.noise import (
    Noise,
    SeededNoise,
    seeds_of,
)
from kao.diffusion.norms import (
    NORMS,
    Huber,
    Mixed,
    Norm,
)
from kao.diffusion.perceptual import (
    Perceptual,
)
from kao.diffusion.samplers import (
    DDIM,
    PNDM,
    SAMPLERS,
    Ancestral,
    Consistency,
    DPMSolver2M,
    DPMSolver2MSDE,
    DPMSolver2S,
    DPMSolver3M,
    Euler,
    EulerAncestral,
    Heun,
    Sampler,
    UniPC,
    sample,
    trajectory,
)
from kao.diffusion.schedules import (
    SCHEDULES,
    VE,
    Betas,
    Cosine,
    DiscreteSchedule,
    Flow,
    FlowSchedule,
    Laplace,
    Level,
    Linear,
    NoiseSchedule,
    ScaledLinear,
    ScheduleConfig,
    Sigmoid,
    VESchedule,
    VPCosine,
    VPCosineSchedule,
)
from kao.diffusion.targets import (
    EDM,
    TARGETS,
    Row,
    Target,
)
from kao.diffusion.times import (
    TIMES,
    Draw,
    LogitNormal,
    LogNormal,
    LossMoment,
    Times,
    TimesConfig,
    Uniform,
    Warped,
)
from kao.diffusion.uncertainty import (
    Uncertainty,
)
from kao.diffusion.weights import (
    P2,
    WEIGHTS,
    EDMWeight,
    MinSNR,
    SigmoidWeight,
    SoftMinSNR,
    TruncatedSNR,
    Weight,
)

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
    "Sigmoid",
    "Laplace",
    "Betas",
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
    "Native",
    "Prediction",
    "solve",
    # guidance and thresholds
    "THRESHOLDS",
    "Threshold",
    "Clip",
    "Clipped",
    "Dynamic",
    "DynamicallyClipped",
    "Conditioned",
    "Guided",
    # losses
    "DenoisingLoss",
    "Drawn",
    "Losses",
    "TIMES",
    "Times",
    "TimesConfig",
    "Draw",
    "Uniform",
    "LogitNormal",
    "LogNormal",
    "LossMoment",
    "Warped",
    "WEIGHTS",
    "Weight",
    "MinSNR",
    "SoftMinSNR",
    "P2",
    "EDMWeight",
    "SigmoidWeight",
    "TruncatedSNR",
    "NORMS",
    "norms",
    "Norm",
    "Huber",
    "Mixed",
    "Uncertainty",
    "Perceptual",
    "variational_bound",
    # sampling
    "GRIDS",
    "grids",
    "Grid",
    "Karras",
    "LogSNR",
    "Spaced",
    "Learned",
    "Noise",
    "SeededNoise",
    "seeds_of",
    "SAMPLERS",
    "Sampler",
    "Ancestral",
    "DDIM",
    "PNDM",
    "Euler",
    "Heun",
    "DPMSolver2M",
    "DPMSolver3M",
    "DPMSolver2S",
    "DPMSolver2MSDE",
    "UniPC",
    "EulerAncestral",
    "Consistency",
    "sample",
    "trajectory",
    # editing
    "editing",
    "inversion",
]
