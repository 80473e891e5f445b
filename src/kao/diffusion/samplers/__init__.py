"""Samplers: from noise to images, one step of a grid at a time.

Each file holds one family; a new sampler is a frozen dataclass with `step` and `order`, and
one line in `SAMPLERS`.
"""

from kao.diffusion.samplers.ancestral import Ancestral
from kao.diffusion.samplers.base import Sampler
from kao.diffusion.samplers.ddim import DDIM
from kao.diffusion.samplers.heun import Heun
from kao.diffusion.samplers.integrate import sample, trajectory

SAMPLERS: dict[str, type[Sampler]] = {
    "ddpm": Ancestral,
    "ddim": DDIM,
    "heun": Heun,
}

__all__ = ["SAMPLERS", "DDIM", "Ancestral", "Heun", "Sampler", "sample", "trajectory"]
