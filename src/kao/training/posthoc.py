"""Averages of any width after training, from snapshots of a few that were tracked.

An average of the weights is a profile: how much each moment of the run counts in it.  Averages
combine as their profiles do, so the average of a profile that nobody tracked is found by fitting
that profile with those of the snapshots, and mixing the snapshots alike (Karras et al. 2024a,
sec. 3.2).

    mixture = mix(profiles of the snapshots, Profile.of(width=0.15, end=images))
    blend = Blend(mixture.coefficients[None])
    for snapshot in snapshots:
        blend.add(snapshot)
    (average,) = blend.averages

Nothing is lost to discrete time: `power_decay` gives each model exactly the profile's share of its
step's images, so a mixture differs from an average that was tracked by what the fit leaves over
and by the rounding of what was stored.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from torch import Tensor

from kao.errors import ConfigError
from kao.training.ema import gamma_of

PAIR = (0.05, 0.25)
"""Widths to track for the sake of snapshots.

Any width between them is fitted by interpolation: with 24 snapshots a run the reconstructions of
0.05 to 0.25 stay within 1e-3 of the averages themselves, where the pair 0.05 and 0.10 of Karras
et al. (2024a) leaves 5e-3 at 0.25.
"""

_RIDGE = 1e-12
"""Added to squared norms of 1, so that snapshots of almost one moment do not outdo each other."""


@dataclass(frozen=True)
class Profile:
    """How much each moment of a run counts: (gamma + 1) tau^gamma / end^(gamma + 1) up to the end.

    Attributes:
        gamma: Its power, 0 or more.
        end: Images at which it ends, above 0; later ones count for nothing.
    """

    gamma: float
    end: float

    @classmethod
    def of(cls, *, width: float, end: float) -> Self:
        """The profile of a width sigma_rel.

        Raises:
            ConfigError: No profile has that width.
        """
        return cls(gamma_of(width), end)


class Mixture(NamedTuple):
    """A profile fitted by others.

    Attributes:
        coefficients: Of each, (N,), float64; they add up to 1.
        error: Norm of what the fit leaves over, as a share of the profile's norm.
    """

    coefficients: Tensor
    error: float


def inner_products(a: Sequence[Profile], b: Sequence[Profile]) -> Tensor:
    """Integrals of the products of profiles over all times.

    Two profiles overlap up to the earlier end, m; with the later one M and the powers g and h the
    integral is (g + 1)(h + 1) / (g + h + 1) (m / end_a)^g (m / end_b)^h / M, where nothing
    overflows (Karras et al. 2024a, app. C, give it for their parametrisation).

    Args:
        a: N profiles.
        b: M profiles.

    Returns:
        (N, M), float64, one over images.
    """
    g, s = (x[:, None] for x in _columns(a))
    h, t = (x[None, :] for x in _columns(b))
    overlap, end = torch.minimum(s, t), torch.maximum(s, t)
    factor = (g + 1) * (h + 1) / (g + h + 1)
    return factor * (overlap / s) ** g * (overlap / t) ** h / end


def mix(parts: Sequence[Profile], target: Profile) -> Mixture:
    """The mixture of profiles that is nearest to another one.

    Least squares over time as in Karras et al. (2024a, sec. 3.2), under the condition that the
    coefficients add up to 1, so that a weight that never moved is reconstructed as it is.

    Args:
        parts: What there is, one or more.
        target: What is wanted; it ends no later than the last of the parts.  Parts that end later
            than it are used too: between two snapshots they know what the earlier ones do not.

    Raises:
        ConfigError: It ends later, where nothing is known, or there are no parts.
    """
    latest = max((part.end for part in parts), default=0.0)
    if not 0 < target.end <= latest:
        raise ConfigError(
            f"An average at {target.end:,.0f} images is beyond what is known: expected more than "
            f"0 and at most {latest:,.0f}."
        )
    gram = inner_products(parts, parts)
    towards = inner_products(parts, [target])
    # In units of their norms the parts compare, and the system is as well conditioned as it can be.
    scale = gram.diagonal().rsqrt()[:, None]
    gram, towards = scale * gram * scale.mT, scale * towards
    stable = gram + _RIDGE * torch.eye(len(parts), dtype=torch.float64)
    # Stationary under the condition: gram c = towards + multiplier * ones, with ones . c = 1.
    free, along = torch.linalg.solve(stable, torch.cat([towards, scale], dim=1)).split(1, dim=1)
    ones = scale.mT
    units = free + along * (1 - ones @ free) / (ones @ along)
    norm = inner_products([target], [target])
    left = norm - 2 * towards.mT @ units + units.mT @ gram @ units
    error = (left / norm).clamp(min=0).sqrt().item()
    return Mixture((scale * units).flatten(), error)


class Blend:
    """Mixtures of averages that come one after the other, with one of them in memory at a time.

    Args:
        coefficients: Of each mixture and part, (K, N), in the order in which the parts come.

    Attributes:
        averages: K mixtures of what was added so far, name -> float32.
    """

    def __init__(self, coefficients: Tensor):
        self._coefficients = iter(coefficients.T.tolist())
        self.averages: list[dict[str, Tensor]] = [{} for _ in range(len(coefficients))]

    def add(self, part: Mapping[str, Tensor]) -> None:
        """Mix in the next part: tensors by name, of any floating dtype."""
        for average, coefficient in zip(self.averages, next(self._coefficients), strict=True):
            for name, value in part.items():
                if name not in average:
                    average[name] = torch.zeros(value.shape, dtype=torch.float32)
                average[name].add_(value.float(), alpha=coefficient)


def _columns(profiles: Sequence[Profile]) -> tuple[Tensor, Tensor]:
    """Powers and ends, (N,) each, float64."""
    table = torch.tensor([(p.gamma, p.end) for p in profiles], dtype=torch.float64)
    return table[:, 0], table[:, 1]
