"""Metrics, by the names that users type."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Protocol

from torch import Tensor
from torch.nn import functional as F

from kao.errors import ConfigError, DataError
from kao.metrics.class_score import inception_score
from kao.metrics.frechet import frechet_infinity, frechet_score
from kao.metrics.gaussians import Gaussian
from kao.metrics.kernel import KernelDistance, RadialKernel
from kao.metrics.manifold import precision_recall_density_coverage
from kao.metrics.references import Reference
from kao.metrics.scores import Score
from kao.metrics.sight import Sight

Real = Sight | Reference
"""What drawn pictures are held against."""


class Metric(Protocol):
    """Something to measure about drawn pictures.

    Attributes:
        spaces: Names of the feature spaces that it is defined on, the usual one first; empty:
            any.
        unbiased: Whether its expectation is the same at any number of drawn pictures.
    """

    spaces: ClassVar[tuple[str, ...]]
    unbiased: ClassVar[bool]

    def __call__(self, real: Real | None, drawn: Sight) -> tuple[Score, ...]:
        """One score or several.

        Args:
            real: Real pictures in the same space; may be None where they are not needed.
            drawn: Generated pictures.

        Raises:
            ConfigError: The metric is not defined on this space, or real pictures are missing.
            DataError: There are too few pictures, or the reference is of another space or has not
                what this metric needs.
        """


@dataclass(frozen=True)
class FID:
    """Frechet Inception distance (Heusel et al. 2017), the conventional value at this n."""

    spaces: ClassVar[tuple[str, ...]] = ("inception",)
    unbiased: ClassVar[bool] = False

    def __call__(self, real: Real | None, drawn: Sight) -> tuple[Score, ...]:
        """See `Metric` and `frechet_score`."""
        _on(self.spaces, drawn, "FID", instead="frechet")
        known = _whole(_given(real, drawn, "FID"))
        return (frechet_score(real=known, drawn=drawn, name="FID"),)


@dataclass(frozen=True)
class FIDInfinity:
    """FID without its bias (Chong & Forsyth 2020), but for that of a reference of unknown n."""

    spaces: ClassVar[tuple[str, ...]] = ("inception",)
    unbiased: ClassVar[bool] = True

    def __call__(self, real: Real | None, drawn: Sight) -> tuple[Score, ...]:
        """See `Metric` and `frechet_infinity`."""
        _on(self.spaces, drawn, "FID infinity", instead="frechet")
        known = _whole(_given(real, drawn, "FID infinity"))
        return (frechet_infinity(real=known, drawn=drawn, name="FID infinity"),)


@dataclass(frozen=True)
class Frechet:
    """The same distance as FID in any other space, where it is no FID and is not called so."""

    spaces: ClassVar[tuple[str, ...]] = ()
    unbiased: ClassVar[bool] = False

    def __call__(self, real: Real | None, drawn: Sight) -> tuple[Score, ...]:
        """See `Metric` and `frechet_score`."""
        name = f"Frechet distance {drawn.space}"
        known = _whole(_given(real, drawn, name))
        return (frechet_score(real=known, drawn=drawn, name=name),)


@dataclass(frozen=True)
class KID:
    """Kernel Inception distance (Bińkowski et al. 2018): all pairs, without bias.

    In other spaces than Inception's the name of the score says which.
    """

    spaces: ClassVar[tuple[str, ...]] = ()
    unbiased: ClassVar[bool] = True

    def __call__(self, real: Real | None, drawn: Sight) -> tuple[Score, ...]:
        """See `Metric` and `KernelDistance`."""
        name = "KID" if _kind(drawn) == "inception" else f"KID {drawn.space}"
        seen = _seen(real, drawn, name)
        distance = seen.once(
            name, lambda: KernelDistance(seen.features, name=name, standardised=False)
        )
        return (distance(drawn.features),)


@dataclass(frozen=True)
class Kernel:
    """`KernelDistance` on features standardised by the real set's units."""

    spaces: ClassVar[tuple[str, ...]] = ()
    unbiased: ClassVar[bool] = True

    def __call__(self, real: Real | None, drawn: Sight) -> tuple[Score, ...]:
        """See `Metric` and `KernelDistance`."""
        name = f"kernel distance {drawn.space}"
        seen = _seen(real, drawn, name)
        distance = seen.once(name, lambda: KernelDistance(seen.features, name=name))
        return (distance(drawn.features),)


@dataclass(frozen=True)
class CMMD:
    """CLIP maximum mean discrepancy (Jayasumana et al. 2024), times 1,000.

    A Gaussian kernel of width 10 on embeddings of length 1.  The estimator is the unbiased one of
    their eq. 4; the code that they published counts each picture as its own pair, which adds
    (1 - k) (1 / m + 1 / n) to it, k the mean kernel of two pictures: 0.005 at most, times 1,000,
    with 4,000 pictures on either side.
    """

    spaces: ClassVar[tuple[str, ...]] = ("clip",)
    unbiased: ClassVar[bool] = True

    def __call__(self, real: Real | None, drawn: Sight) -> tuple[Score, ...]:
        """See `Metric` and `KernelDistance`."""
        _on(self.spaces, drawn, "CMMD", instead="kernel")
        seen = _seen(real, drawn, "CMMD")
        distance = seen.once(
            "CMMD",
            lambda: KernelDistance(
                seen.features, name="CMMD", kernel=_of_directions, standardised=False, scale=1000.0
            ),
        )
        return (distance(drawn.features),)


@dataclass(frozen=True)
class InceptionScore:
    """The Inception score (Salimans et al. 2016) over ten splits."""

    spaces: ClassVar[tuple[str, ...]] = ("inception",)
    unbiased: ClassVar[bool] = False

    def __call__(self, real: Real | None, drawn: Sight) -> tuple[Score, ...]:
        """See `Metric` and `inception_score`; `real` is not looked at."""
        return (inception_score(drawn),)


@dataclass(frozen=True)
class Manifold:
    """Precision, recall, density and coverage."""

    spaces: ClassVar[tuple[str, ...]] = ()
    unbiased: ClassVar[bool] = False

    def __call__(self, real: Real | None, drawn: Sight) -> tuple[Score, ...]:
        """See `Metric` and `precision_recall_density_coverage`."""
        seen = _seen(real, drawn, "precision and recall")
        return precision_recall_density_coverage(real=seen, drawn=drawn, label=drawn.space)


METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        "fid": FID(),
        "fid_infinity": FIDInfinity(),
        "kid": KID(),
        "cmmd": CMMD(),
        "is": InceptionScore(),
        "kernel": Kernel(),
        "frechet": Frechet(),
        "manifold": Manifold(),
    }
)
"""What can be measured, by name."""


def _whole(real: Real) -> Sight | Gaussian:
    """The features behind mean and covariance; these alone where not all were kept."""
    return (real.whole or real.gaussian) if isinstance(real, Reference) else real


def _of_directions(x: Tensor, y: Tensor) -> Tensor:
    return RadialKernel(10.0)(F.normalize(x), F.normalize(y))


def _given(real: Real | None, drawn: Sight, name: str) -> Real:
    """Real pictures in the space of the drawn ones, or an error."""
    if real is None:
        raise ConfigError(
            f"{name} compares with real pictures, and none are given: give --real FACES."
        )
    if isinstance(real, Reference):
        real.check(space=drawn.space, width=drawn.width)
    elif real.space != drawn.space:
        raise DataError(
            f'The real pictures were seen in the feature space "{real.space}" and the drawn ones '
            f'in "{drawn.space}": use one for both.'
        )
    return real


def _seen(real: Real | None, drawn: Sight, name: str) -> Sight:
    """Features of real pictures, or an error."""
    known = _given(real, drawn, name)
    if isinstance(known, Sight):
        return known
    if known.sight is None:
        raise DataError(
            f"{name} needs the features of real pictures, and this reference has their mean and "
            f"covariance only: give the pictures, or a reference that keeps features."
        )
    return known.sight


def _on(spaces: tuple[str, ...], drawn: Sight, name: str, *, instead: str) -> None:
    if _kind(drawn) not in spaces:
        raise ConfigError(
            f'{name} is defined on features of "{spaces[0]}", and these are of "{drawn.space}": '
            f'use the metric "{instead}".'
        )


def _kind(sight: Sight) -> str:
    """The name that users type for a sight's feature space."""
    return sight.space.partition("-")[0]
