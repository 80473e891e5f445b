"""Which real pictures are the reference, and which show what a perfect model would score."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from kao.evaluation.pictures import PictureSet, fingerprint
from kao.evaluation.protocols import Protocol

_BOTH = 2  # halves


@dataclass(frozen=True)
class Parts:
    """Real pictures, parted at random.

    Attributes:
        pictures: All that are looked at.
        reference: Indices into `pictures` of those that drawn ones are held against.
        fresh: Of real ones that are scored as if they had been drawn; none where there are
            too few.
        beside: Of those that `fresh` is held against: the reference, or what it has beside
            `fresh`.
    """

    pictures: PictureSet
    reference: Tensor
    fresh: Tensor
    beside: Tensor

    @property
    def digests(self) -> tuple[bytes, ...]:
        """Of the reference, as `PictureSet.digests`; no picture is copied for them."""
        return tuple(self.pictures.digests[i] for i in self.reference.tolist())

    @property
    def fingerprint(self) -> str:
        """Of the reference, as `PictureSet.fingerprint`."""
        return fingerprint(self.digests)

    @classmethod
    def of(cls, real: PictureSet, protocol: Protocol, *, n: int, seed: int) -> Self:
        """Part real pictures as a protocol wants it.

        Where it allows, and there are twice as many as drawn ones, `n` of them are kept out of the
        reference, and are the fresh ones: their score and that of the drawn pictures then differ
        by nothing but the pictures.  Else the reference is all of them, and the floor is that of
        `n` of them, or half of them where there are fewer, against the rest.

        Args:
            real: The real pictures.
            protocol: Says how many the reference has, and whether it gives some up.
            n: Drawn pictures.
            seed: Of the choice.
        """
        fresh = min(n, len(real) // _BOTH)
        limit = len(real) if protocol.reals is None else protocol.reals
        if protocol.apart and len(real) >= _BOTH * n:
            kept = real.some(n + limit, seed=seed)
            apart, rest = _parted(kept, fresh, seed=seed)
            return cls(kept, rest, apart, rest)
        kept = real.some(limit, seed=seed)
        fresh = min(fresh, len(kept) // _BOTH)
        apart, rest = _parted(kept, fresh, seed=seed)
        return cls(kept, torch.arange(len(kept)), apart, rest)


def _parted(pictures: PictureSet, n: int, *, seed: int) -> tuple[Tensor, Tensor]:
    """Indices of `n` pictures chosen at random, and of the others; each ascending."""
    chosen = pictures.lots(seed=seed + 1)
    return chosen[:n].sort().values, chosen[n:].sort().values
