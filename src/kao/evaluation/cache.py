"""Features that were extracted once, kept on the disk by the content of the pictures.

<cache>/features/<pictures>-<space>.safetensors     features, float32, (N, D)

<pictures> follows from the pixels alone and <space> from the name of the space and how it
resizes, so a file is never out of date; rows lie in the order of the pictures' digests, so a set
finds them under whatever names and in whatever order its pictures come.  What cannot be read is
made again.
"""

import hashlib
import re
from contextlib import suppress
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from kao.errors import OutputError
from kao.evaluation.pictures import PictureSet
from kao.files import cache_folder, new_file, writing
from kao.metrics import Features

_FEATURES = "features"


def place(pictures: PictureSet, space: Features) -> Path:
    """Where the features of a set are kept."""
    # The name is for people; what could not be told apart by it is by the digest.
    readable = re.sub(r"[^a-zA-Z0-9.]+", "-", space.name)
    digest = hashlib.sha256(f"{space.name}\0{space.resize}".encode()).hexdigest()[:8]
    name = f"{pictures.fingerprint[:32]}-{readable}-{digest}.safetensors"
    return cache_folder() / "features" / name


def load(pictures: PictureSet, space: Features) -> Tensor | None:
    """Features of a set, float32, (N, D), in its own order; None where none are kept, or whole."""
    file = place(pictures, space)
    try:
        with safetensors.safe_open(file, framework="pt") as opened:
            told = opened.metadata() or {}
            kept: Tensor = opened.get_tensor(_FEATURES)
    except (OSError, SafetensorError, ValueError):
        return None
    good = told.get("pictures") == pictures.fingerprint and told.get("checked") == _checksum(kept)
    if not good or kept.ndim != 2 or len(kept) != len(pictures):
        return None
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
            safetensors.torch.save_file({_FEATURES: kept}, beside, metadata=told)


def _checksum(features: Tensor) -> str:
    return hashlib.sha256(features.numpy().data).hexdigest()
