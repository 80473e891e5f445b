"""Reference statistics of real pictures: computed once, saved, shared, and read from others.

The file is the `.npz` with `mu` and `sigma` that pytorch-fid, clean-fid and EDM write and read,
with facts of ours beside them, so it serves them too.
"""

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kao.errors import DataError
from kao.files import new_file
from kao.metrics.gaussians import Gaussian
from kao.metrics.sight import Sight
from kao.seeds import mixed_seed

# What NumPy raises for text, pickles and archives cut short, and for lone arrays, which are no
# context: the last two.
_DAMAGES = (
    OSError,
    ValueError,
    EOFError,
    KeyError,
    zipfile.BadZipFile,
    zlib.error,
    AttributeError,
    TypeError,
)
_KEYS = ("mu", "sigma", "n", "space", "resize", "fingerprint", "features", "probabilities")
_ROUNDING = 1e-6  # relative: what rounding to float32 does to a covariance, and some more


@dataclass(frozen=True, eq=False)
class Reference:
    """What real pictures are like in one feature space.

    Attributes:
        gaussian: Their mean and covariance.
        space: Name of the feature space; None in files of others, which do not say.
        resize: How pictures were resized for it; None likewise.
        fingerprint: Of the pictures; None likewise.
        sight: Features of the pictures, or of a random part of them, for metrics that need more
            than mean and covariance; None where they were not kept.
    """

    gaussian: Gaussian
    space: str | None = None
    resize: str | None = None
    fingerprint: str | None = None
    sight: Sight | None = None

    @property
    def width(self) -> int:
        """Number of dimensions of the space."""
        return self.gaussian.width

    @property
    def whole(self) -> Sight | None:
        """The features of all pictures behind mean and covariance, if all were kept."""
        return self.sight if self.sight and len(self.sight) == self.gaussian.n else None

    def check(self, *, space: str, width: int, resize: str | None = None) -> None:
        """Refuse what was made for another feature network than pictures were seen with.

        Args:
            space: Name of the pictures' feature space.
            width: Its number of dimensions.
            resize: How they were resized for it; None is not compared.

        Raises:
            DataError: One of them differs; what a file does not say is not compared.
        """
        if self.space is not None and self.space != space:
            raise DataError(
                f'This reference was made in the feature space "{self.space}", and the pictures '
                f'were seen in "{space}": use that space, or make a reference for this one.'
            )
        if self.width != width:
            raise DataError(
                f'This reference has {self.width} dimensions, and features in "{space}" have '
                f"{width}: it is of another feature network, so make one for this."
            )
        if resize is not None and self.resize is not None and self.resize != resize:
            raise DataError(
                f'The pictures of this reference were resized by "{self.resize}", and these by '
                f'"{resize}", so a distance would be that of two resizes: take the same one for '
                f"both."
            )


def reference_of(
    sight: Sight, *, resize: str, fingerprint: str, keep: int = 0, seed: int = 0
) -> Reference:
    """The reference statistics of a set of pictures.

    Args:
        sight: All of them.
        resize: How they were resized for the space.
        fingerprint: Of the pictures.
        keep: Features to keep for metrics that need more than mean and covariance; chosen at
            random where there are more.
        seed: Of the choice.

    Raises:
        DataError: There are fewer than three pictures.
    """
    kept = None
    if keep >= len(sight):
        kept = sight
    elif keep > 0:
        generator = torch.Generator().manual_seed(mixed_seed(seed))
        kept = sight.rows(torch.randperm(len(sight), generator=generator)[:keep].sort().values)
    return Reference(sight.gaussian, sight.space, resize, fingerprint, kept)


def save_reference(path: Path, reference: Reference) -> None:
    """Write a reference file, whole or not at all.

    Args:
        path: Ends in `.npz`.
        reference: What to write.

    Raises:
        DataError: The name does not end in `.npz`.
        OutputError: It cannot be written.
    """
    if path.suffix != ".npz":
        raise DataError(f'{path} is no name for a reference file: end it in ".npz".')
    arrays: dict[str, Any] = {
        "mu": reference.gaussian.mean.numpy(),
        "sigma": reference.gaussian.cov.numpy(),
    }
    facts = {
        "space": reference.space,
        "resize": reference.resize,
        "fingerprint": reference.fingerprint,
        "n": reference.gaussian.n,
    }
    arrays |= {key: np.asarray(fact) for key, fact in facts.items() if fact is not None}
    if reference.sight is not None:
        arrays["features"] = reference.sight.features.numpy()
        if reference.sight.probabilities is not None:
            arrays["probabilities"] = reference.sight.probabilities.numpy()
    with new_file(path) as beside, beside.open("wb") as file:
        # A file object: to a name NumPy would add its own ending.
        np.savez(file, **arrays)


def load_reference(path: Path) -> Reference:
    """Read a reference file, ours or that of pytorch-fid, clean-fid, EDM or ADM.

    Args:
        path: A `.npz` with `mu` and `sigma`; nothing in it is unpickled.

    Raises:
        DataError: It is missing, damaged, no `.npz`, or its `mu` and `sigma` are not a mean and a
            covariance.
    """
    if not path.is_file():
        raise DataError(f'There is no reference file "{path}": give the path of a `.npz`.')
    try:
        with np.load(path, allow_pickle=False) as opened:
            arrays = {key: opened[key] for key in _KEYS if key in opened.files}
    except _DAMAGES as error:
        raise DataError(
            f"{path} cannot be read as a reference file: expected a whole `.npz` with mu and "
            f"sigma, and without pickles."
        ) from error
    if not {"mu", "sigma"} <= arrays.keys():
        raise DataError(
            f'{path} has no "mu" and "sigma", so it is no reference file: make one from the real '
            f"pictures."
        )
    try:
        return _understood(arrays)
    except (ValueError, TypeError, DataError) as error:
        raise DataError(
            f"{path} is damaged ({error}): make it anew from the real pictures."
        ) from error


def _understood(arrays: dict[str, np.ndarray]) -> Reference:
    mean, cov = (torch.from_numpy(arrays[key].astype(np.float64)) for key in ("mu", "sigma"))
    mean = mean.flatten()
    if cov.shape != (len(mean), len(mean)):
        raise DataError(f"mu of {len(mean)} numbers and sigma of {tuple(cov.shape)} do not fit")
    if not bool(mean.isfinite().all() and cov.isfinite().all()):
        raise DataError("mu or sigma is not finite")
    if fault := _fault(cov):
        raise DataError(f"sigma is no covariance: {fault}")
    n = int(arrays["n"]) if "n" in arrays else None
    space, resize, fingerprint = (
        str(arrays[key]) if key in arrays else None for key in ("space", "resize", "fingerprint")
    )
    sight = None
    if "features" in arrays:
        features = torch.from_numpy(arrays["features"].astype(np.float32))
        sight = Sight(space or "unknown", features, _probabilities(arrays))
        if sight.width != len(mean):
            raise DataError(f"features of {sight.width} numbers and mu of {len(mean)} do not fit")
    return Reference(Gaussian(mean, (cov + cov.T) / 2, n), space, resize, fingerprint, sight)


def _fault(cov: Tensor) -> str:
    """Why a finite matrix, (D, D), is no covariance; empty if it is one."""
    if bool((cov - cov.T).abs().max() > _ROUNDING * cov.abs().max()):
        return "it is not symmetric"
    if bool((cov.diagonal() < 0).any()):
        return "a variance on its diagonal is negative"
    values = torch.linalg.eigvalsh(cov)
    if values[0] < -_ROUNDING * values[-1]:
        return f"its smallest eigenvalue is {values[0]:.3g}, and its largest {values[-1]:.3g}"
    return ""


def _probabilities(arrays: dict[str, np.ndarray]) -> Tensor | None:
    if "probabilities" not in arrays:
        return None
    return torch.from_numpy(arrays["probabilities"].astype(np.float32))
