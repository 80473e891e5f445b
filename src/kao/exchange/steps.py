"""A path of DDIM steps as plain numbers, by which any program can draw with a bare network.

Song et al. (2021a), eq. 12, without noise.  At each level (alpha, sigma) of the path, with the
network's output y = a x_0 + b eps (see `kao.diffusion.targets`) of the input x * scale,

    x_0 = (b x - sigma y) / (alpha b - sigma a),
    eps = (alpha y - a x) / (alpha b - sigma a),

x_0 is kept to what pixels can show, and the next x is alpha' x_0 + sigma' eps, with the alpha' and
sigma' of the level that follows.
"""

from typing import Any

import torch
from torch import Tensor

from kao.config import dump
from kao.config.sampling import STEPS, stepped_by
from kao.diffusion import DDIM, Clip, DiscreteSchedule, Dynamic, Threshold, VESchedule, grids
from kao.errors import ConfigError
from kao.exchange.trained import Trained

_DISCRETE = "t - 1: the step of the chain, counted from 0"
_EXPLODING = "250 ln(sigma)"
_OTHERS = "1000 t / t_max"


def path_of(trained: Trained, steps: int = STEPS) -> list[dict[str, float]]:
    """The levels of a path from noise to a picture, noisiest first.

    Args:
        trained: Whose schedule and target, and grid where DDIM can go along it.
        steps: At most; a shorter chain takes one step a level.

    Returns:
        A table a level: `alpha`, `sigma`; what the network is told, `label`; by what its input is
        multiplied, `scale`; and the row of its target, `a` and `b`.  The last has alpha = 1 and
        sigma = 0 alone.
    """
    schedule = trained.schedule
    if isinstance(schedule, DiscreteSchedule):
        steps = min(steps, int(schedule.t_max))
    times = _times(trained, steps)
    return [*(_row(trained, t) for t in times[:-1]), {"alpha": 1.0, "sigma": 0.0}]


def told(trained: Trained) -> dict[str, Any]:
    """What another program must know of the network, for JSON.

    Returns:
        The size and range of the pictures, what the network is told and says, and the path.
    """
    schedule = trained.schedule
    return {
        "pictures": {
            "channels": 3,
            "size": trained.size,
            "range": "red, green, blue in [-1, 1]: a grey level of 0..255 is 127.5 (x + 1)",
        },
        "classes": list(classes_of(trained)),
        "schedule": {**named(trained, "schedule"), "t_max": float(schedule.t_max)},
        "target": named(trained, "target"),
        "label": label_formula(trained),
        "output_channels": 6 if trained.denoiser.learned_variance else 3,
        "threshold": named(trained, "sampling")["threshold"],
        "path": path_of(trained),
    }


def named(trained: Trained, section: str) -> dict[str, Any]:
    """A section of the configuration, as its run.toml has it."""
    return dict(dump(trained.config)[section])


def classes_of(trained: Trained) -> tuple[str, ...]:
    """Names of the classes that the network is told, in the order of their numbers."""
    return trained.config.conditions.names if trained.config.conditions.classes else ()


def label_formula(trained: Trained) -> str:
    """What the network is told of a time t, in words."""
    if isinstance(trained.schedule, DiscreteSchedule):
        return _DISCRETE
    return _EXPLODING if isinstance(trained.schedule, VESchedule) else _OTHERS


def limited(threshold: Threshold | None) -> str:
    """What is done to a predicted picture, as a line of NumPy; "" where nothing is.

    Args:
        threshold: Of [sampling].
    """
    if isinstance(threshold, Clip):
        return f"x0 = np.clip(x0, -{threshold.limit:g}, {threshold.limit:g})"
    if isinstance(threshold, Dynamic):
        return (
            f"reach = np.maximum(np.quantile(abs(x0), {threshold.quantile:g}, axis=(1, 2, 3), "
            f"keepdims=True), {threshold.limit:g})\n"
            f"x0 = np.clip(x0, -reach, reach) * ({threshold.limit:g} / reach)"
        )
    return ""


def _times(trained: Trained, steps: int) -> Tensor:
    """The run's own grid; an even one where that is a solver's, or made for so many steps only."""
    sampling = stepped_by(DDIM(), trained.config.sampling, trained.schedule)
    try:
        return sampling.grid(trained.schedule, steps)
    except ConfigError:
        return grids.uniform(trained.schedule, steps)


def _row(trained: Trained, t: Tensor) -> dict[str, float]:
    denoiser = trained.denoiser
    level = trained.schedule(t)
    a, b = trained.target(level)
    scale = torch.ones((), dtype=torch.float64)
    if denoiser.sigma_data is not None:
        scale = (level.alpha**2 * denoiser.sigma_data**2 + level.sigma**2).rsqrt()
    numbers = {
        "alpha": level.alpha,
        "sigma": level.sigma,
        "label": denoiser.label(t),
        "scale": scale,
        "a": a,
        "b": b,
    }
    return {name: float(number) for name, number in numbers.items()}
