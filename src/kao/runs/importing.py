"""Making a run of a model that was trained elsewhere."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from kao.checkpoints import MODEL, Checkpoint
from kao.config.run import CHANNELS
from kao.config.sections import EvaluationConfig
from kao.errors import CheckpointError, OutputError
from kao.exchange import Model, import_model
from kao.files import write_text, writing
from kao.machine import describe, versions
from kao.networks.cost import flops, parameters
from kao.runs.provenance import Provenance
from kao.runs.run import CONFIG, SAMPLES, Run
from kao.tracking import Jsonl, read_events

IMPORTED = "imported_from"
"""The key under which a start event tells where a model is from."""


def import_run(
    name: str | Path,
    *,
    run: str | Path,
    revision: str | None = None,
    weights: str = "auto",
    facts: Mapping[str, Any] = MappingProxyType({}),
) -> Run:
    """Make a run of a model that somebody published, to draw with, to measure and to fine-tune.

    Args:
        name: A folder, a file, or owner/name on the Hugging Face hub.
        run: The run directory; new or empty.
        revision: A branch, a tag or a commit of the hub; None: the newest.
        weights: Which, where there are several: "auto" takes the averaged ones.
        facts: What the files leave open: see `kao.exchange.import_model`.

    Returns:
        The run, of a single checkpoint at 0 images.

    Raises:
        KaoError: As `kao.exchange.import_model` and `write_run`.
    """
    refuse_occupied(Path(run))
    model = import_model(str(name), revision=revision, weights=weights, facts=facts)
    return write_run(model, Path(run))


def refuse_occupied(path: Path) -> None:
    """Raise an OutputError for a directory that holds something already.

    Args:
        path: Where a model is to become a run.
    """
    if path.is_file() or (path.is_dir() and any(path.iterdir())):
        raise OutputError(
            f"{path} holds something already, and an imported model becomes a run of its own: give "
            f"an empty or new folder with --run."
        )


def write_run(model: Model, path: Path) -> Run:
    """A run directory with a model in it: its configuration, and one checkpoint at 0 images.

    Where it was averaged, the averaged weights are all that was published, so they stand for
    both.  Its pictures are not known: data.source is empty.

    Args:
        model: Of pictures.
        path: New or empty.

    Returns:
        The run.

    Raises:
        ConfigError: The model does not draw pictures of three channels, or its schedule and target
            do not go together.
        CheckpointError: Its weights are not those of its network.
        OutputError: The directory holds something, or cannot be written.
    """
    refuse_occupied(path)
    config = model.config()
    config = replace(
        config,
        data=replace(config.data, held_out=0),
        training=replace(config.training, precision="fp32"),
        evaluation=EvaluationConfig(every=0),
    )
    denoiser = model.denoiser()
    tensors = denoiser.state_dict()
    provenance = Provenance.of_import(model.origin, model.licence)
    told = {IMPORTED: model.origin, **provenance.told(), "notes": list(model.notes)}
    with writing(path):
        (path / SAMPLES).mkdir(parents=True)
    average = next(iter(config.ema.build(denoiser)))
    Checkpoint.write(
        path,
        images=0,
        config=config.to_toml(),
        weights={MODEL: tensors, average: tensors},
        state={},
        card={"versions": versions(), "seconds": 0.0, **told},
    )
    log = Jsonl(path, images=0)
    shape = (CHANNELS, config.data.size, config.data.size)
    start = {
        "machine": describe(),
        "versions": versions(),
        "processes": 1,
        "parameters": parameters(denoiser),
        "flops": flops(config.build_denoiser("meta").network, shape),
        "precision": config.training.precision,
        "rate": config.optimizer.rate,
        "pictures": 0,
        "resumed": False,
        "recipe": None,
        "auto": [],
        **told,
    }
    log.event("start", 0, start)
    log.event("checkpoint", 0, {})
    log.event("end", 0, {"seconds": 0.0, "reason": "finished"})
    log.close()
    # Last, since it makes the directory a run.
    write_text(path / CONFIG, config.to_toml())
    return Run(path)


def imported_from(run: Path) -> str | None:
    """Where the model of a run is from; None where it was trained here."""
    told = (event.get(IMPORTED) for event in read_events(run))
    return next((str(origin) for origin in told if origin), None)


def refuse_imported(run: Path) -> None:
    """Raise a CheckpointError where training is to go on that never began here."""
    if origin := imported_from(run):
        raise CheckpointError(
            f"{run} was imported from {origin}, and how it was trained is not known here, so that "
            f"it cannot be trained on: begin a run of its own with `kao finetune {run} FACES`."
        )
