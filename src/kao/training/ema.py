"""Exponential moving averages of a model's weights."""

import math
from collections.abc import Callable, Iterable, Mapping

import torch
import torch.distributed as dist
from torch import Tensor, nn

from kao.errors import ConfigError
from kao.processes import meeting
from kao.shards import local, put, sharded

NARROWEST = 0.001
"""Smallest width of a power profile that is taken: a thousandth of the run."""

WIDEST = math.sqrt(1 / 12)
"""Width of the profile that counts every moment of the run alike, gamma = 0."""


_POWER = "ema-w"


def average_name(width: float) -> str:
    """What the average of a power profile is called: 0.1 -> "ema-w0.100".

    The name says the width to the last digit; behind that of a fixed decay it sorts last.
    """
    text = f"{width:.3f}"
    return f"{_POWER}{text if float(text) == width else repr(float(width))}"


def average_width(name: str) -> float | None:
    """The width that `average_name` was given; None for an average of another kind."""
    return float(name.removeprefix(_POWER)) if name.startswith(_POWER) else None


def check_width(width: float, *, name: str = "width") -> None:
    """Refuse what is the width of no power profile.

    Args:
        width: sigma_rel.
        name: What the user calls it.

    Raises:
        ConfigError: It is not within `NARROWEST`..`WIDEST`.
    """
    if not NARROWEST <= width <= WIDEST:  # also refuses nan
        raise ConfigError(
            f"{name} = {width:g}; expected {NARROWEST} to {WIDEST:.4f}, a share of the run: 0.05 "
            f"to 0.25 is customary."
        )


def fixed_decay(decay: float) -> Callable[[int, int], float]:
    """One decay from the first update on, for a model that begins trained.

    Args:
        decay: Weight kept at each update, 0..1.

    Returns:
        A function of (images seen, batch) for `EMA`.
    """

    def rule(images: int, batch: int) -> float:
        return decay

    return rule


def warmed_decay(decay: float) -> Callable[[int, int], float]:
    """A fixed decay that starts small, min(decay, (1 + k) / (10 + k)) after k updates.

    Without the warm-up a short run is averaged with its own random beginning.  The form is
    TensorFlow's ExponentialMovingAverage(num_updates=k).

    Args:
        decay: Weight kept at each update, 0..1.

    Returns:
        A function of (images seen, batch) for `EMA`.
    """

    def rule(images: int, batch: int) -> float:
        updates = images // batch
        return min(decay, (1 + updates) / (10 + updates))

    return rule


def power_decay(width: float) -> Callable[[int, int], float]:
    """The decay whose average weighs the past by a power of time (Karras et al. 2024a, sec. 3.1).

    After t images the model of time tau counts by (gamma + 1) tau^gamma / t^(gamma + 1): however
    long a run becomes, its random beginning fades, and the profile keeps its shape.  The weight
    kept at an update is (1 - batch / images)^(gamma + 1), theirs with time counted in images; the
    products of these telescope, so that each model weighs exactly what the profile has over the
    images of its step, whatever the batches were.

    Args:
        width: Standard deviation of the profile as a share of the images seen, sigma_rel;
            `NARROWEST`..`WIDEST`.

    Returns:
        A function of (images seen, batch) for `EMA`.

    Raises:
        ConfigError: No profile has that width.
    """
    exponent = gamma_of(width) + 1

    def rule(images: int, batch: int) -> float:
        return (1 - batch / images) ** exponent

    return rule


def width_of(gamma: float) -> float:
    """The width sigma_rel of the power profile gamma >= 0; Karras et al. (2024a, sec. 3.1).

    Returns:
        sqrt((gamma + 1) / ((gamma + 2)^2 (gamma + 3))), above 0 and up to `WIDEST`.
    """
    return math.sqrt((gamma + 1) / (gamma + 3)) / (gamma + 2)


def gamma_of(width: float) -> float:
    """The power profile of a width: the inverse of `width_of`, in closed form.

    With r^2 = 3 / width^2 + 1 the cubic (gamma + 2)^2 (gamma + 3) = (gamma + 1) / width^2 becomes
    y^3 - r^2 y / 3 + (12 r^2 - 10) / 27 = 0 for y = gamma + 7 / 3.  It has three real roots, of
    which Viete's cosine gives the largest.

    Args:
        width: sigma_rel, `NARROWEST`..`WIDEST`.

    Returns:
        gamma, 0 or more.

    Raises:
        ConfigError: No profile has that width.
    """
    check_width(width)
    r = math.sqrt(3 / width**2 + 1)
    angle = math.acos(-(6 * r**2 - 5) / r**3) / 3
    return max(0.0, (2 * r * math.cos(angle) - 7) / 3)


@torch.no_grad()
def relative_distance(averages: Iterable[Tensor], weights: Iterable[Tensor]) -> float:
    """|average - model| / |model|, the norms over all tensors together; nan for zeros.

    Where weights are sharded, all processes must call this together.
    """
    whole: list[Tensor] = []
    parts: list[Tensor] = []
    for average, live in zip(averages, weights, strict=True):
        apart = (local(average) - local(live)).float()
        squares = torch.stack([apart.square().sum(), local(live).float().square().sum()])
        (parts if sharded(live) else whole).append(squares)
    total = torch.zeros(2)
    if whole:
        total += torch.stack(whole).sum(0).cpu()
    if parts:
        shared = torch.stack(parts).sum(0)
        with meeting():
            dist.all_reduce(shared)
        total += shared.cpu()
    apart, size = total.sqrt()
    return (apart / size).item()


class EMA:
    """Averages of a model's weights under one decay rule.

    Args:
        model: What is averaged; only read.
        decay: Weight kept at an update, from (images seen, batch).
        offload: Whether the averages live on the CPU, wherever the model is.  Each update of a
            model on a GPU then copies its weights into pinned memory, all of them queued at once
            and awaited once, and takes no memory there.  Sharded weights stay where they are.

    Attributes:
        average: Name -> average, for every floating entry of the state dict, in its dtype and
            sharded as it is.
    """

    def __init__(
        self, model: nn.Module, decay: Callable[[int, int], float], *, offload: bool = False
    ):
        self.decay = decay
        entries = model.state_dict().items()
        self._live = {name: value for name, value in entries if value.is_floating_point()}
        live = self._live.values()
        away = any(v.device.type != "cpu" for v in live) and not any(sharded(v) for v in live)
        self._landed = [_host_copy(v) for v in live] if offload and away else []
        self.average = {
            name: value.detach().clone()
            for name, value in zip(self._live, self._weights(), strict=True)
        }

    @property
    def derived(self) -> bool:
        """It keeps tensors of its own: see `kao.training.optimizers.Average`."""
        return False

    @torch.no_grad()
    def update(self, images: int, batch: int) -> None:
        """Move every average towards the model, after a step that brought it to `images`.

        Args:
            images: Images seen, this step's included.
            batch: Images in this step.
        """
        weight = 1 - self.decay(images, batch)
        torch._foreach_lerp_(_parts(self.average.values()), _parts(self._weights()), weight)

    def distance(self) -> float:
        """How far the model is from its average: |average - model| / |model|.

        The norms go over all floating entries together; a model of zeros gives nan.  Where weights
        are sharded, all processes must call this together.
        """
        return relative_distance(self.average.values(), self._weights())

    def load(self, average: Mapping[str, Tensor]) -> None:
        """Take over saved averages, whole; names and shapes must be the model's."""
        for name, value in self.average.items():
            put(value, average[name])

    def _weights(self) -> list[Tensor]:
        """The model's weights, where the averages are."""
        live = list(self._live.values())
        if not self._landed:
            return live
        torch._foreach_copy_(self._landed, live, non_blocking=True)
        torch.accelerator.synchronize(live[0].device)
        return self._landed


def _parts(tensors: Iterable[Tensor]) -> list[Tensor]:
    """What of each lies in this process: an average of parts is a part of the average."""
    return [local(tensor) for tensor in tensors]


def _host_copy(value: Tensor) -> Tensor:
    """Memory on the CPU for a tensor's values, pinned where CUDA is to write into it."""
    pinned = value.device.type == "cuda"
    return torch.empty(value.shape, dtype=value.dtype, device="cpu", pin_memory=pinned)
