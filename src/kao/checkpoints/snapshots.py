"""Snapshots of a run's averages, from which averages of other widths are made after training."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from kao.errors import CheckpointError
from kao.files import new_file, tensors_of, writing

SNAPSHOTS = "snapshots"
_FACTS = "snapshot"


@dataclass(frozen=True)
class Snapshot:
    """A file of a run: its averages at one moment, whole or absent.

        snapshots/000012800.safetensors     tensors "w0.050/<name>", "w0.250/<name>", ...

    Its metadata say the images seen, the widths and the SHA-256 of the tensors.  They stand in
    half precision, which moves a reconstruction by 5e-4 of itself at most and halves the disk
    space; a tensor that would leave that range keeps its own.

    Attributes:
        path: The file.
    """

    path: Path

    @property
    def images(self) -> int:
        """Images seen when it was taken."""
        return int(self.path.stem)

    @classmethod
    def write(
        cls,
        run: Path,
        *,
        images: int,
        averages: Mapping[str, Mapping[str, Tensor]],
        widths: Mapping[str, float],
    ) -> Self:
        """Write beside, bring to the disk, rename.

        Args:
            run: The run directory.
            images: Images seen; names the file.
            averages: Tensors by name, by name of the average: "w0.050", ...
            widths: Of each average.

        Raises:
            OutputError: The disk is full or not writable.
        """
        path = run / SNAPSHOTS / f"{images:09d}.safetensors"
        with writing(path):
            path.parent.mkdir(exist_ok=True)
        packed = {
            f"{own}/{name}": _halved(tensor)
            for own, tensors in averages.items()
            for name, tensor in tensors.items()
        }
        facts = {"images": images, "widths": dict(widths), "sha256": _digest(packed)}
        # One entry, since safetensors shuffles several, and equal snapshots are to be equal bytes.
        metadata = {_FACTS: json.dumps(facts)}
        with new_file(path) as beside:
            beside.write_bytes(safetensors.torch.save(packed, metadata))
        return cls(path)

    @classmethod
    def all(cls, run: Path) -> list[Self]:
        """The snapshots of a run directory, oldest first, whole or damaged."""
        paths = (run / SNAPSHOTS).glob("[0-9]*.safetensors")
        found = [cls(path) for path in paths if path.stem.isdecimal() and path.is_file()]
        return sorted(found, key=lambda snapshot: snapshot.images)

    @classmethod
    def drop(cls, run: Path, *, newer_than: int) -> None:
        """Remove the snapshots past those images.

        A run that is taken up makes them again: what it did there last time is no part of it.

        Args:
            run: The run directory.
            newer_than: Images from which the run goes on; 0 removes all.

        Raises:
            OutputError: They cannot be removed.
        """
        for snapshot in cls.all(run):
            if snapshot.images > newer_than:
                with writing(snapshot.path):
                    snapshot.path.unlink()

    def widths(self) -> dict[str, float]:
        """The width of each average that it holds; the tensors are not read.

        Raises:
            CheckpointError: The file is damaged.
        """
        with self._opened() as (_, facts):
            return {own: float(width) for own, width in facts["widths"].items()}

    def averages(self) -> dict[str, dict[str, Tensor]]:
        """The averages: tensors as they are stored, on the CPU, by name, by name of the average.

        Raises:
            CheckpointError: The file is damaged.
        """
        with self._opened() as (file, facts):
            packed = {key: file.get_tensor(key) for key in file.keys()}
            if _digest(packed) != facts["sha256"]:
                raise ValueError("its SHA-256 differs")
        averages: dict[str, dict[str, Tensor]] = {}
        for key, tensor in packed.items():
            own, _, name = key.partition("/")
            averages.setdefault(own, {})[name] = tensor
        return averages

    @contextmanager
    def _opened(self) -> Iterator[tuple[Any, dict[str, Any]]]:
        """The file and what it says of itself; what goes wrong inside becomes a sentence."""
        try:
            with tensors_of(self.path) as file:
                metadata = file.metadata() or {}
                if _FACTS not in metadata:
                    raise ValueError("it does not say what it holds")
                yield file, json.loads(metadata[_FACTS])
        except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(
                f"{self.path} is damaged ({error}): remove it, and averages are made of the others."
            ) from error


def _halved(tensor: Tensor) -> Tensor:
    half = tensor.detach().to("cpu", torch.float16).contiguous()
    return half if half.isfinite().all() else tensor.detach().cpu().contiguous()


def _digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
