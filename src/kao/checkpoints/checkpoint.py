"""A checkpoint: a folder that says all that is needed to draw with a model, or to train it on."""

import hashlib
import io
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from kao.errors import CheckpointError
from kao.files import encoded, new_folder, read_text, writing
from kao.shards import like

FOLDER = "checkpoints"
MODEL = "model"
LOSS = "loss"
_CARD, _STATE, _SHARDS, _CONFIG = "card.json", "trainer.pt", "trainer", "run.toml"


@dataclass(frozen=True)
class Checkpoint:
    """A folder, named by images seen, whole or absent.

        run.toml              the full configuration, defaults included
        model.safetensors     weights being trained
        ema-0.999.safetensors averaged weights, one file an average
        loss.safetensors      what the loss learned: training times, uncertainty; if it did
        trainer.pt            optimiser and progress; only for resuming, opened with weights_only
        trainer/              what processes that shard the optimiser save of it, each its part
        card.json             versions, images seen, size and SHA-256 of each file above

    Drawing reads only .toml and .safetensors: no pickle is opened.
    """

    path: Path

    @property
    def images(self) -> int:
        """Images seen when it was written."""
        return int(self.path.name)

    @classmethod
    def write(
        cls,
        run: Path,
        *,
        images: int,
        config: str,
        weights: Mapping[str, Mapping[str, Tensor]],
        state: Mapping[str, Any],
        card: Mapping[str, Any],
        shared: Callable[[Path], None] | None = None,
    ) -> Self:
        """Write beside, bring to the disk, rename.

        Args:
            run: The run directory.
            images: Images seen; names the folder.
            config: The full configuration, TOML.
            weights: Tensors by name, by kind: "model", "ema-0.999", ...
            state: What resuming needs; tensors, numbers, strings, lists and dicts only.
            card: Facts for a reader, JSON.
            shared: Called first, with the folder for what several processes write together.

        Raises:
            OutputError: The disk is full or not writable; earlier checkpoints are untouched.
        """
        path = run / FOLDER / f"{images:09d}"
        with new_folder(path) as folder:
            if shared is not None:
                shared(folder / _SHARDS)
            (folder / _CONFIG).write_bytes(encoded(config))
            for kind, tensors in weights.items():
                packed = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
                (folder / f"{kind}.safetensors").write_bytes(safetensors.torch.save(packed))
            # Through memory, since on a full disk torch.save raises an error of its own.
            packed_state = io.BytesIO()
            torch.save(dict(state), packed_state)
            (folder / _STATE).write_bytes(packed_state.getbuffer())
            files = {
                file.relative_to(folder).as_posix(): {
                    "bytes": file.stat().st_size,
                    "sha256": _sha256(file),
                }
                for file in sorted(folder.rglob("*"))
                if file.is_file()
            }
            text = json.dumps({**card, "images": images, "files": files}, indent=2)
            (folder / _CARD).write_text(text, encoding="utf-8")
        return cls(path)

    @classmethod
    def all(cls, run: Path) -> list[Self]:
        """The checkpoints of a run directory, oldest first, whole or damaged."""
        paths = (run / FOLDER).glob("[0-9]*")
        checkpoints = [cls(p) for p in paths if p.name.isdecimal() and p.is_dir()]
        return sorted(checkpoints, key=lambda checkpoint: checkpoint.images)

    @classmethod
    def latest(cls, run: Path, *, training: bool = True) -> tuple[Self | None, list[str]]:
        """The newest whole checkpoint of a run, and what is wrong with the newer ones.

        Args:
            run: The run directory.
            training: Whether it must be fit for training on; drawing needs no trainer.pt.
        """
        damages: list[str] = []
        for checkpoint in reversed(cls.all(run)):
            if (damage := checkpoint.damage(training=training)) is None:
                return checkpoint, damages
            damages.append(damage)
        return None, damages

    def damage(self, *, training: bool = True) -> str | None:
        """What is wrong with it, as a sentence; None if every file is as it was written.

        Args:
            training: Whether trainer.pt and trainer/ count, which drawing does not open.
        """
        try:
            files = json.loads((self.path / _CARD).read_text(encoding="utf-8"))["files"]
            for name, facts in files.items():
                if not training and (name == _STATE or name.startswith(f"{_SHARDS}/")):
                    continue
                file = self.path / name
                if file.stat().st_size != facts["bytes"]:
                    return (
                        f"{file} has {file.stat().st_size:,} bytes where {facts['bytes']:,} were "
                        f"written"
                    )
                if _sha256(file) != facts["sha256"]:
                    return f"{file} is not what was written (its SHA-256 differs)"
        except FileNotFoundError as error:
            return f"{error.filename} is missing"
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            return f"{self.path / _CARD} cannot be read ({error})"
        return None

    @property
    def averages(self) -> Sequence[str]:
        """Kinds of averaged weights that it holds: "ema-0.999", "ema-w0.050", ...

        The one to draw with, unless another is asked for, comes first: the optimiser's own
        ("schedule-free"), or else the one of a fixed decay.
        """
        kinds = {file.stem for file in self.path.glob("*.safetensors")} - {MODEL, LOSS}
        return sorted(kinds, key=lambda kind: (kind.startswith("ema-"), kind))

    @property
    def config(self) -> str:
        """The full configuration, TOML.

        Raises:
            CheckpointError: It cannot be read.
        """
        try:
            return read_text(self.path / _CONFIG)
        except (OSError, UnicodeDecodeError) as error:
            raise CheckpointError(f"{self.path / _CONFIG} cannot be read ({error}).") from error

    def weights(self, kind: str = MODEL) -> dict[str, Tensor]:
        """The tensors of one kind, on the CPU.

        Raises:
            CheckpointError: There are none of that kind, or the file is damaged.
        """
        file = self.path / f"{kind}.safetensors"
        if not file.exists():
            kinds = ", ".join(sorted(f.stem for f in self.path.glob("*.safetensors"))) or "none"
            raise CheckpointError(f"{self.path} has no weights {kind!r}; it has: {kinds}.")
        try:
            return safetensors.torch.load(file.read_bytes())
        except (OSError, SafetensorError) as error:
            raise CheckpointError(
                f"{file} is damaged ({error}): use an earlier checkpoint of the run."
            ) from error

    def load_into(self, module: nn.Module, kind: str = MODEL) -> None:
        """Copy weights into a module of the same shape.

        Raises:
            CheckpointError: A weight is missing, left over or of another shape; the first
                three are named.
        """
        fill(module, self.weights(kind), self.path)

    def state(self) -> dict[str, Any]:
        """What `write` was given for resuming.  Tensors and plain values only, never code.

        Raises:
            CheckpointError: The file is missing or damaged.
        """
        try:
            return torch.load(self.path / _STATE, weights_only=True, map_location="cpu")
        except Exception as error:  # torch.load raises many kinds on damaged input
            raise CheckpointError(f"{self.path / _STATE} cannot be read ({error}).") from error

    @property
    def shards(self) -> Path | None:
        """The folder of what several processes wrote together; None where one wrote it all."""
        folder = self.path / _SHARDS
        return folder if folder.is_dir() else None

    @classmethod
    def set_aside(cls, run: Path, *, newer_than: int) -> None:
        """Rename damaged checkpoints past those images, so that they no longer count.

        Args:
            run: The run directory.
            newer_than: Images of the checkpoint that is taken instead.
        """
        for checkpoint in cls.all(run):
            if checkpoint.images > newer_than:
                beside = checkpoint.path.with_name(f"{checkpoint.path.name}.damaged")
                with writing(beside):
                    shutil.rmtree(beside, ignore_errors=True)
                    checkpoint.path.rename(beside)

    @classmethod
    def prune(cls, run: Path, *, last: int, every: int) -> None:
        """Remove checkpoints except the `last` newest and the first past each multiple of `every`.

        Args:
            run: The run directory.
            last: How many of the newest stay, 1 or more.
            every: Images; 0 keeps no other.
        """
        checkpoints = cls.all(run)
        milestones = {c.images // every: c for c in reversed(checkpoints)} if every else {}
        kept = {*checkpoints[-last:], *(c for n, c in milestones.items() if n > 0)}
        gone = [checkpoint.path for checkpoint in checkpoints if checkpoint not in kept]
        for path in (*gone, *(run / FOLDER).glob(".*.partial")):  # also what a kill left
            with writing(path):
                shutil.rmtree(path)


def fill(module: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Copy weights into a module of the same shape.

    Args:
        module: Changed in place.
        weights: Tensors by name.
        path: Where they come from, for the message.

    Raises:
        CheckpointError: A weight is missing, left over or of another shape; the first three are
            named.
    """
    wanted = module.state_dict()
    if problems := misfits(wanted, weights):
        raise CheckpointError(
            f"{path} does not fit the network of its run.toml: {problems}. Check [network] and "
            f"data.size there."
        )
    module.load_state_dict({name: like(weights[name], value) for name, value in wanted.items()})


def misfits(wanted: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> str:
    """What keeps weights from being those of a module, as the middle of a sentence.

    Args:
        wanted: The module's state dict; only its names and shapes count.
        weights: Tensors by name.

    Returns:
        The first three names that are missing, left over or of another shape; empty if none is.
    """
    problems = [f"{name} is missing" for name in wanted if name not in weights]
    problems += [f"{name} is left over" for name in sorted(weights) if name not in wanted]
    problems += [
        f"{name} is {tuple(weights[name].shape)} where {tuple(wanted[name].shape)} is needed"
        for name in wanted
        if name in weights and weights[name].shape != wanted[name].shape
    ]
    more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
    return f"{'; '.join(problems[:3])}{more}"


def _sha256(file: Path) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
