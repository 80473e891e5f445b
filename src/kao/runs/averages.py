"""Averages of any width for a run: snapshots while it trains, reconstructions after it.

snapshots/000012800.safetensors    averages of a few widths at one moment
averages/w0.100.safetensors        an average that `kao ema` made of them
averages/best.safetensors          the one whose pictures came nearest to real ones
averages/best-score.safetensors    the average with the best score while training
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from kao.checkpoints.snapshots import Snapshot
from kao.errors import CheckpointError, ConfigError
from kao.files import new_file, tensors_of, writing
from kao.shards import whole
from kao.tracking import Tracker
from kao.training import Trainer
from kao.training.ema import average_name, average_width
from kao.training.posthoc import Blend, Mixture, Profile, mix

AVERAGES = "averages"
BEST = "best"
BEST_SCORE = "best-score"


class Snapshots:
    """Keeps the averages of a power profile that are tracked, for `Reconstruction`.

    To be called before checkpoints: what a checkpoint resumes from has then all snapshots that
    were due by then, and those past it are dropped when the run is taken up.  A run that is
    interrupted takes none, so that it ends with those of a run that was not.

    With several processes each calls it, and the first one writes.

    Args:
        run: The run directory.
        tracker: Told of each snapshot.
        every: Images between snapshots.
    """

    def __init__(self, run: Path, tracker: Tracker, *, every: int):
        self.run, self.tracker, self.every = run, tracker, every

    def __call__(self, trainer: Trainer) -> None:
        """Write one, tell the tracker; nothing on the way out of a stopped run.

        Raises:
            OutputError: It cannot be written; the run may go on without it.
        """
        if trainer.stopping and trainer.done < 1:
            return
        images, main = trainer.progress.images, trainer.processes.main
        averages: dict[str, Mapping[str, Tensor]] = {}
        widths: dict[str, float] = {}
        for kind, average in trainer.ema.items():
            if (width := average_width(kind)) is not None:
                name = short(width)
                averages[name], widths[name] = whole(average.average, kept=main), width
        if main:
            Snapshot.write(self.run, images=images, averages=averages, widths=widths)
            self.tracker.event("snapshot", images, {})


def short(width: float) -> str:
    """What an average of that width is called among a run's averages: 0.1 -> "w0.100"."""
    return average_name(width).removeprefix("ema-")


class Reconstruction:
    """Averages of several widths, made of the snapshots of a run.

        made = Reconstruction.of(run.path, [0.1, 0.15])
        for _ in made.steps():                       # one snapshot is read in each
            ...
        for average in made.averages():
            average.save(run.path)

    Attributes:
        snapshots: What they are made of, oldest first.
        images: Images seen at the moment that is reconstructed.
        mixtures: By width.
    """

    def __init__(self, snapshots: Sequence[Snapshot], widths: Sequence[float], *, images: int):
        self.snapshots, self.images = snapshots, images
        self._held = [snapshot.widths() for snapshot in snapshots]
        parts = [
            Profile.of(width=width, end=snapshot.images)
            for snapshot, held in zip(snapshots, self._held, strict=True)
            for width in held.values()
        ]
        self.mixtures: dict[float, Mixture] = {
            width: mix(parts, Profile.of(width=width, end=images)) for width in widths
        }
        self._blend = Blend(torch.stack([m.coefficients for m in self.mixtures.values()]))

    @classmethod
    def of(cls, run: Path, widths: Sequence[float], *, images: int | None = None) -> Self:
        """A reconstruction that is planned; nothing large is read yet.

        Args:
            run: The run directory.
            widths: One or more, each a sigma_rel.
            images: Images seen at the moment to reconstruct; None takes the newest snapshot's.

        Raises:
            CheckpointError: The run has no snapshots, or one is damaged.
            ConfigError: A width is out of range, or the moment is not between the snapshots.
        """
        snapshots = Snapshot.all(run)
        if not snapshots:
            raise CheckpointError(
                f"{run} has no snapshots to make averages of: they are taken while a run trains "
                f'with ema.snapshots = "auto".'
            )
        oldest, newest = snapshots[0].images, snapshots[-1].images
        if images is not None and not oldest <= images <= newest:
            raise ConfigError(
                f"--images = {images}; expected {oldest} to {newest}, at which the first and the "
                f"newest snapshot of {run} were taken."
            )
        return cls(snapshots, widths, images=newest if images is None else images)

    def steps(self) -> Iterator[Snapshot]:
        """Read the snapshots one after the other; yields each when it is mixed in.

        Raises:
            CheckpointError: One is damaged.
        """
        for snapshot, held in zip(self.snapshots, self._held, strict=True):
            averages = snapshot.averages()
            for name in held:
                self._blend.add(averages[name])
            yield snapshot

    def averages(self) -> Iterator["SavedAverage"]:
        """The averages, in the order of the widths, after the last of `steps`."""
        for (width, mixture), tensors in zip(
            self.mixtures.items(), self._blend.averages, strict=True
        ):
            facts = Facts(short(width), images=self.images, width=width, fit=mixture.error)
            yield SavedAverage(facts, tensors)


@dataclass(frozen=True)
class Facts:
    """What is known of an average.

    Attributes:
        name: "w0.100"; "ema-0.999" for one that was tracked.
        images: Images seen by it.
        width: sigma_rel; None for a fixed decay.
        fit: Share of its profile that the snapshots' profiles leave over; 0 where it was tracked.
        score: Distance of its pictures to real ones, where they were compared.
        error: Standard error of that.
        measure: Of the score, where it was taken while training.
        digest: Of what that score depends on but the weights.
    """

    name: str
    images: int
    width: float | None = None
    fit: float = 0.0
    score: float | None = None
    error: float | None = None
    measure: str | None = None
    digest: str | None = None


@dataclass(frozen=True)
class SavedAverage:
    """Averaged weights, to be drawn with.

    Attributes:
        facts: What is known of it.
        tensors: By name.
    """

    facts: Facts
    tensors: Mapping[str, Tensor]

    def save(self, run: Path, name: str = "") -> Path:
        """Write RUN/averages/NAME.safetensors, whole or not at all.

        Args:
            run: The run directory.
            name: Empty takes its own.

        Raises:
            OutputError: It cannot be written.
        """
        path = place(run, name or self.facts.name)
        with writing(path):
            path.parent.mkdir(exist_ok=True)
        packed = {n: t.detach().cpu().contiguous() for n, t in self.tensors.items()}
        with new_file(path) as beside:
            metadata = {"facts": json.dumps(asdict(self.facts))}
            beside.write_bytes(safetensors.torch.save(packed, metadata))
        return path

    @classmethod
    def load(cls, run: Path, name: str) -> Self:
        """What `save` wrote.

        Args:
            run: The run directory.
            name: "w0.100", `BEST` or `BEST_SCORE`.

        Raises:
            CheckpointError: It is not there, or is damaged.
        """
        with _opened(run, name) as file:
            return cls(_facts(file), {key: file.get_tensor(key) for key in file.keys()})


def facts_of(run: Path, name: str) -> Facts:
    """What is known of an average that `SavedAverage.save` wrote; its tensors are not read.

    Raises:
        CheckpointError: It is not there, or is damaged.
    """
    with _opened(run, name) as file:
        return _facts(file)


@contextmanager
def _opened(run: Path, name: str) -> Iterator[Any]:
    """The file of an average; what goes wrong inside becomes a sentence."""
    path, how = place(run, name), _made(run, name)
    if not path.is_file():
        raise CheckpointError(f"{run} has no average {name}: {how}.")
    try:
        with tensors_of(path) as file:
            yield file
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is damaged ({error}): {how}.") from error


def _made(run: Path, name: str) -> str:
    """How an average comes to be."""
    if name == BEST_SCORE:
        return "scores while training ([evaluation]) keep one"
    option = "--best FACES" if name == BEST else f"--width {name.removeprefix('w')}"
    return f"make it with `kao ema {run} {option}`"


def _facts(file: Any) -> Facts:
    return Facts(**json.loads(file.metadata()["facts"]))


def place(run: Path, name: str) -> Path:
    """Where an average of a run is kept."""
    return run / AVERAGES / f"{name}.safetensors"


def known_name(weights: str) -> str | None:
    """The name of an average of `AVERAGES` that is meant by what a user wrote; None if none is.

    Args:
        weights: "best", "best-score", "w0.10".
    """
    if weights in (BEST, BEST_SCORE):
        return weights
    try:
        return short(float(weights.removeprefix("w"))) if weights.startswith("w") else None
    except ValueError:
        return None
