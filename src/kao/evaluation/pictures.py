"""Sets of pictures to be scored.

A set is known by its content: each picture has a digest, and the fingerprint of the set follows
from all of them in whatever order they came.  So the same pictures under other names are the
same set, a seeded subset is the same pictures, and the pictures that two sets share are found.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor

from kao.seeds import mixed_seed

_CHOICE = 0xC401CE  # so that a choice is no other random thing of the same seed


@dataclass(frozen=True, eq=False)
class PictureSet:
    """Pictures of one size.

    Attributes:
        name: What a person called them: a folder, a file, a run.
        images: uint8, (N, 3, S, S), RGB, on the CPU; it may be a file that is looked into.
        digests: N SHA-256 of the pictures' bytes.
        fingerprint: SHA-256 of the sorted digests, in hexadecimal.
        keys: N names of the pictures.
        labels: int64, (N,), class indices, -1 for none; None where there are no classes.
        classes: Class names in index order.
        notes: What a person should know of how they were read, a sentence each.
        brought: How they were brought to their size, in words; "" where they are as they came.
        enlarged: How many were smaller.
    """

    name: str
    images: Tensor
    digests: tuple[bytes, ...]
    fingerprint: str
    keys: Sequence[str]
    labels: Tensor | None = None
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    brought: str = ""
    enlarged: int = 0

    @classmethod
    def of(
        cls,
        name: str,
        images: Tensor,
        *,
        keys: Sequence[str] | None = None,
        labels: Tensor | None = None,
        classes: Sequence[str] = (),
        notes: Sequence[str] = (),
    ) -> Self:
        """The set of these pictures.

        Args:
            name: What to call it.
            images: uint8, (N, 3, S, S), RGB, on the CPU.
            keys: N names; None: their numbers.
            labels: int64, (N,), class indices, -1 for none; None: there are no classes.
            classes: Class names in index order.
            notes: A sentence each.
        """
        pixels = images.numpy()
        digests = tuple(hashlib.sha256(np.ascontiguousarray(p).data).digest() for p in pixels)
        return cls(
            name,
            images,
            digests,
            fingerprint(digests),
            keys if keys is not None else [f"{i:06d}" for i in range(len(images))],
            labels,
            tuple(classes),
            tuple(notes),
        )

    def __len__(self) -> int:
        return len(self.images)

    @property
    def size(self) -> int:
        """Side of the pictures in pixels."""
        return self.images.shape[-1]

    @property
    def order(self) -> Tensor:
        """Indices that sort the digests: int64, (N,).  It is no property of names or places."""
        return torch.tensor(sorted(range(len(self)), key=self.digests.__getitem__))

    def lots(self, *, seed: int) -> Tensor:
        """A random order: int64 indices, (N,).

        It follows from the pictures and the seed, in whatever order the pictures came.

        Args:
            seed: 0 or more.
        """
        generator = torch.Generator().manual_seed(mixed_seed(_CHOICE, seed))
        return self.order[torch.randperm(len(self), generator=generator)]

    def take(self, indices: Tensor) -> Self:
        """Some of the pictures as a set of its own, with the same name; of all, the set itself.

        Args:
            indices: int64, (n,).
        """
        if torch.equal(indices, torch.arange(len(self))):
            return self  # which may be a file that is looked into, too large to copy
        chosen: list[int] = indices.tolist()
        digests = tuple(self.digests[i] for i in chosen)
        return replace(
            self,
            images=self.images[indices],
            digests=digests,
            fingerprint=fingerprint(digests),
            keys=[self.keys[i] for i in chosen],
            labels=None if self.labels is None else self.labels[indices],
        )

    def some(self, n: int, *, seed: int) -> Self:
        """`n` pictures chosen at random, in the order of this set.

        Of two numbers, the pictures of the smaller are among those of the larger.

        Args:
            n: How many; all of them where there are no more.
            seed: 0 or more; see `lots`.
        """
        return self if n >= len(self) else self.take(self.lots(seed=seed)[:n].sort().values)

    def is_of(self, name: str) -> Tensor:
        """Which pictures are of a class: bool, (N,)."""
        if self.labels is None or name not in self.classes:
            return torch.zeros(len(self), dtype=torch.bool)
        return self.labels == self.classes.index(name)


def overlap(one: PictureSet, other: PictureSet) -> Tensor:
    """Which pictures of a set are in another too, pixel for pixel.

    Args:
        one: The set that is asked about.
        other: Where they are looked for; of the same size, or nothing is found.

    Returns:
        bool, (len(one),).
    """
    known = frozenset(other.digests)
    return torch.tensor([digest in known for digest in one.digests], dtype=torch.bool)


def fingerprint(digests: Sequence[bytes]) -> str:
    """SHA-256 of the sorted digests of pictures, in hexadecimal."""
    return hashlib.sha256(b"".join(sorted(digests))).hexdigest()


def class_counts(pictures: PictureSet) -> Counter[str]:
    """How many pictures each class has, without those that have none."""
    labels = [] if pictures.labels is None else pictures.labels.tolist()
    return Counter(pictures.classes[label] for label in labels if label >= 0)
