"""Features that were extracted once, kept on the disk by the content of the pictures.

<cache>/features/<pictures>-<space>.safetensors     features, float32, (N, D)

<pictures> follows from the pixels alone and <space> from the name of the space, how it resizes
and, of the spaces that come with kao, their numbers, so a file is never out of date; rows lie in
the order of the pictures' digests, so a set finds them under whatever names and in whatever order
its pictures come.  What cannot be read is made again, and what was not read for the longest time
goes where there is more than `LIMIT`.
"""

import hashlib
import itertools
import os
import re
from contextlib import suppress
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from kao.errors import OutputError
from kao.evaluation.pictures import PictureSet
from kao.files import cache_folder, new_file, tensors_of, writing
from kao.metrics import Features, Wavelets
from kao.metrics.spaces.faces import Faces

LIMIT = 2_000_000_000
"""Bytes of features that are kept: 240,000 pictures in Inception's space."""

_CODE = 1
"""Version of how the spaces that come with kao compute: to be raised with their numbers."""

_FEATURES = "features"


def place(pictures: PictureSet, space: Features) -> Path:
    """Where the features of a set are kept."""
    # The name is for people; what could not be told apart by it is by the digest.
    readable = re.sub(r"[^a-zA-Z0-9.]+", "-", space.name)
    told = f"{space.name}\0{space.resize}\0{_numbers(space)}"
    digest = hashlib.sha256(told.encode()).hexdigest()[:8]
    return _folder() / f"{pictures.fingerprint[:32]}-{readable}-{digest}.safetensors"


def _folder() -> Path:
    return cache_folder() / "features"


def _numbers(space: Features) -> str:
    """What a space computes with, where its name does not have the hash of a published file."""
    if not isinstance(space, Faces | Wavelets):
        return ""
    digest = hashlib.sha256(str(_CODE).encode())
    for tensor in itertools.chain(space.parameters(), space.buffers()):
        digest.update(tensor.detach().cpu().contiguous().numpy().data)
    return digest.hexdigest()


def load(pictures: PictureSet, space: Features) -> Tensor | None:
    """Features of a set, float32, (N, D), in its own order; None where none are kept, or whole."""
    file = place(pictures, space)
    try:
        with tensors_of(file) as opened:
            told = opened.metadata() or {}
            kept: Tensor = opened.get_tensor(_FEATURES)
    except (OSError, SafetensorError, ValueError):
        return None
    good = told.get("pictures") == pictures.fingerprint and told.get("checked") == _checksum(kept)
    if not good or kept.ndim != 2 or len(kept) != len(pictures):
        return None
    with suppress(OSError):  # of a cache that is not ours
        os.utime(file)
    features = torch.empty_like(kept)
    features[pictures.order] = kept
    return features


def save(pictures: PictureSet, space: Features, features: Tensor) -> None:
    """Keep the features of a set; nothing where the place cannot be written.

    Args:
        pictures: The set.
        space: Which space.
        features: float32, (N, D), in the order of the set.
    """
    file, kept = place(pictures, space), features[pictures.order].contiguous()
    told = {"pictures": pictures.fingerprint, "space": space.name, "checked": _checksum(kept)}
    # A cache that is full or not ours costs time the next time, and must not cost the scores.
    with suppress(OutputError):
        with writing(file):
            file.parent.mkdir(parents=True, exist_ok=True)
        with new_file(file) as beside:
            beside.write_bytes(safetensors.torch.save({_FEATURES: kept}, metadata=told))
        _sweep(file)


def _sweep(newest: Path) -> None:
    """Remove what was not read for the longest time until the rest is within `LIMIT`.

    Others may sweep, or write, at the same time.

    Args:
        newest: Stays, however large it is.
    """
    met = []
    for file in _folder().glob("*.safetensors"):
        with suppress(OSError):
            facts = file.stat()
            met.append((facts.st_mtime, facts.st_size, file))
    left = sum(size for _, size, _ in met)
    for _, size, file in sorted(met):
        if left <= LIMIT:
            return
        if file != newest:
            with suppress(OSError):
                file.unlink()
            left -= size


def _checksum(features: Tensor) -> str:
    return hashlib.sha256(features.numpy().data).hexdigest()
