"""What a fine-tuning run begins with: a run, one of its checkpoints, or other people's weights."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from kao.checkpoints import FOLDER, Checkpoint
from kao.config import RunConfig, load_config
from kao.config.finetuning import FinetuneConfig
from kao.config.run import CHANNELS
from kao.exchange import import_model
from kao.exchange.own import FILE as PUSHED
from kao.runs.importing import imported_from
from kao.runs.provenance import Provenance
from kao.runs.run import CONFIG, Run
from kao.training import OptimizerConfig

IMPORTED_RATE = 1e-4
"""Peak learning rate, with AdamW, for a model of which nobody knows how it was trained."""


@dataclass(frozen=True, eq=False)
class Base:
    """A trained model that another run may begin with.

    Attributes:
        config: Of the run that made it; of an imported model what is known, over the defaults.
            In its [finetune] stands what the network was made for, if that is not what it was
            last trained on, and nothing else.
        weights: By the names of a denoiser's state dict without adapters, float32 on the CPU.
        origin: Where it is from, for people.
        sha256: Of the weights, 64 hexadecimal digits.
        trained: Whether `config` tells how it was trained.
        provenance: The published model that it is or goes back to.
        notes: Sentences on what is not known of it and was assumed.
    """

    config: RunConfig
    weights: Mapping[str, Tensor]
    origin: str
    sha256: str
    trained: bool
    provenance: Provenance
    notes: tuple[str, ...] = ()


def open_base(name: str) -> Base:
    """A model by its name.

    Args:
        name: A run directory, whose newest whole checkpoint counts; a checkpoint's folder; or
            whatever `kao.exchange.import_model` takes: a file, a folder, a name on the Hugging
            Face hub.  Of runs the averaged weights are taken.

    Raises:
        CheckpointError: There is no such model, or it is damaged.
        ConfigError: It is of a kind that no network here is.
        MissingExtraError: A package that it needs is not installed.
    """
    path = Path(name)
    if not (path / CONFIG).is_file() or (path / PUSHED).is_file():
        return _imported(name)
    if path.absolute().parent.name == FOLDER:
        return _trained(Run(path.absolute().parents[1]), Checkpoint(path))
    run = Run.open(path)
    return _trained(run, run.checkpoint()[0])


def _trained(run: Run, checkpoint: Checkpoint) -> Base:
    config = load_config(checkpoint.config, str(checkpoint.path / CONFIG))
    weights = run.denoiser(checkpoint, device=torch.device("cpu")).state_dict()
    made_for = FinetuneConfig(schedule=config.finetune.schedule, target=config.finetune.target)
    trained = imported_from(run.path) is None
    if not trained:
        config = replace(config, optimizer=OptimizerConfig(rate=IMPORTED_RATE))
    return Base(
        replace(config, finetune=made_for),
        weights,
        origin=str(checkpoint.path),
        sha256=_digest(weights),
        trained=trained,
        provenance=Provenance.of_run(run.path),
    )


def _imported(name: str) -> Base:
    model = import_model(name)
    weights = {f"network.{key}": value.float() for key, value in model.weights.items()}
    config = replace(model, channels=CHANNELS).config()
    return Base(
        replace(config, optimizer=OptimizerConfig(rate=IMPORTED_RATE)),
        weights,
        origin=model.origin,
        sha256=_digest(weights),
        trained=False,
        provenance=Provenance.of_import(name, model.licence),
        notes=model.notes,
    )


def _digest(weights: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
