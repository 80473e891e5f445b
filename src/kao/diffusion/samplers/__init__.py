"""Samplers: from noise to images, one step of a grid at a time.

Each file holds one family; a new sampler is a frozen dataclass with `step` and `order`, and
one line in `SAMPLERS`.

    name         calls a step   order   random   integrates
    ddpm               1          1      yes     the reverse diffusion, by its posterior
    ddim               1          1      eta     x_0 and eps held along the path
    pndm               1          2      no      eps, extrapolated in t
    euler              1          1      churn   the path in sigma / alpha
    heun               2          2      churn   the path, by the trapezoid
    dpm++2m            1          2      no      x_0, extrapolated in log snr
    dpm++3m            1          3      no      the same with a parabola
    dpm++2s            2          2      no      x_0 from half-way
    dpm++2m_sde        1          2      yes     dpm++2m on the reverse diffusion
    unipc              1          3      no      dpm++2m, then corrected
    euler_a            1          1      eta     the reverse diffusion, by an Euler step and noise
    lcm                1          0      yes     nothing: for consistency models
"""

from kao.diffusion.samplers.ancestral import Ancestral
from kao.diffusion.samplers.base import Sampler
from kao.diffusion.samplers.consistency import Consistency
from kao.diffusion.samplers.ddim import DDIM
from kao.diffusion.samplers.dpm_solver import (
    DPMSolver2M,
    DPMSolver2MSDE,
    DPMSolver2S,
    DPMSolver3M,
)
from kao.diffusion.samplers.euler import Euler, EulerAncestral
from kao.diffusion.samplers.heun import Heun
from kao.diffusion.samplers.integrate import sample, trajectory
from kao.diffusion.samplers.pndm import PNDM
from kao.diffusion.samplers.unipc import UniPC

SAMPLERS: dict[str, type[Sampler]] = {
    "ddpm": Ancestral,
    "ddim": DDIM,
    "pndm": PNDM,
    "euler": Euler,
    "heun": Heun,
    "dpm++2m": DPMSolver2M,
    "dpm++3m": DPMSolver3M,
    "dpm++2s": DPMSolver2S,
    "dpm++2m_sde": DPMSolver2MSDE,
    "unipc": UniPC,
    "euler_a": EulerAncestral,
    "lcm": Consistency,
}

__all__ = [
    "DDIM",
    "PNDM",
    "SAMPLERS",
    "Ancestral",
    "Consistency",
    "DPMSolver2M",
    "DPMSolver2MSDE",
    "DPMSolver2S",
    "DPMSolver3M",
    "Euler",
    "EulerAncestral",
    "Heun",
    "Sampler",
    "UniPC",
    "sample",
    "trajectory",
]
