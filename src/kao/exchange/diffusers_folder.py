"""A pipeline folder of diffusers, written as plain files: diffusers need not be installed.

What diffusers tells a network is the index of a level, j = 0 .. T-1, and so does a chain of ours.
A schedule in continuous time tells 1000 t: 0 for the clean picture, 1000 for noise.  Its levels
t = 1/1000 .. 1 make a chain whose labels would be j + 1.  So the first layer of the network is
turned: of sines and cosines of angles omega j it makes what it made of omega (j + 1), by

    sin(omega (j + 1)) = cos(omega) sin(omega j) + sin(omega) cos(omega j),
    cos(omega (j + 1)) = cos(omega) cos(omega j) - sin(omega) sin(omega j),

and the pipeline draws along the very levels that we draw along, the noisiest included.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from kao.config import SamplingConfig
from kao.config.sampling import stepped_by
from kao.diffusion import (
    DDIM,
    EDM,
    Ancestral,
    Betas,
    DiscreteSchedule,
    ScheduleConfig,
    VPCosine,
    grids,
)
from kao.errors import ConfigError
from kao.exchange.betas import betas_of
from kao.exchange.diffusers_config import CLASS, write_config
from kao.exchange.diffusers_files import CONFIG, INDEX, SCHEDULER
from kao.exchange.diffusers_names import rules
from kao.exchange.located import WEIGHTS
from kao.exchange.markdown import plain
from kao.exchange.renaming import to_theirs
from kao.exchange.schedulers import write_scheduler
from kao.exchange.trained import Trained
from kao.files import encoded, new_folder
from kao.networks import UNetConfig
from kao.networks.embeddings import sinusoids

_VERSION = "0.35.0"
"""Of diffusers, whose options these are."""

_LABELS = 1000
"""Of a schedule in continuous time, without the clean picture's."""

_INSTEAD = "export --to safetensors or --to onnx, which take any network"


@dataclass(frozen=True)
class Pipeline:
    """What the folder holds.

    Attributes:
        index: Of model_index.json.
        network: Of unet/config.json.
        scheduler: Of scheduler/scheduler_config.json.
        weights: By diffusers' names.
        notes: Sentences on how diffusers draws otherwise than we do.
    """

    index: Mapping[str, Any]
    network: Mapping[str, Any]
    scheduler: Mapping[str, Any]
    weights: Mapping[str, Tensor]
    notes: tuple[str, ...]


def write_diffusers(trained: Trained, path: Path) -> tuple[str, ...]:
    """Write the folder, whole or not at all.

    Args:
        trained: A U-Net on a variance-preserving schedule.
        path: The folder; what has that name is replaced.

    Returns:
        Sentences on how diffusers draws otherwise than we do.

    Raises:
        ConfigError: diffusers has no such network, schedule or target; the key is named.
        OutputError: The folder cannot be written.
    """
    made = pipeline(trained)
    with new_folder(path) as folder:
        fill(folder, made)
        (folder / "README.md").write_bytes(encoded(page(trained, made)))
    return made.notes


def fill(folder: Path, made: Pipeline) -> None:
    """Put the files of a pipeline into a folder, which may hold others."""
    _write(folder / INDEX, made.index)
    _write(folder / "scheduler" / SCHEDULER, made.scheduler)
    _write(folder / "unet" / CONFIG, made.network)
    file = folder / "unet" / f"{WEIGHTS}.safetensors"
    file.write_bytes(safetensors.torch.save(dict(made.weights), metadata={"format": "pt"}))


def pipeline(trained: Trained) -> Pipeline:
    """A network as a pipeline of diffusers.

    Args:
        trained: A U-Net on a variance-preserving schedule.

    Raises:
        ConfigError: diffusers has no such network, schedule or target; the key is named.
    """
    config = trained.config
    network = _network(trained)
    schedule = _chain(config.schedule)
    table = write_config(network, channels=3, outputs=3, size=trained.size)
    try:
        scheduler = write_scheduler(
            schedule, config.target, sampling=config.sampling, learned_variance=False
        )
    except ConfigError as error:
        raise ConfigError(f"{str(error).rstrip('.')}; or {_INSTEAD}.") from error
    ours = _weights(trained, network, turned=isinstance(config.schedule, VPCosine))
    walks = isinstance(config.sampling.sampler, Ancestral)
    return Pipeline(
        index={
            "_class_name": "DDPMPipeline" if walks else "DDIMPipeline",
            "_diffusers_version": _VERSION,
            "scheduler": ["diffusers", "DDPMScheduler"],
            "unet": ["diffusers", CLASS],
        },
        network={"_diffusers_version": _VERSION, **table},
        scheduler={
            "_diffusers_version": _VERSION,
            **scheduler,
            # Its "linspace" takes steps of another length than those between its levels.
            "timestep_spacing": _spacing(config.sampling),
        },
        weights=to_theirs(rules(network, size=trained.size), ours, origin=trained.name),
        notes=_notes(trained, steps=scheduler["num_train_timesteps"]),
    )


def one_later(first_layer: Tensor, *, endpoint: bool) -> Tensor:
    """The first layer after `sinusoids` that makes of label j what it made of j + 1.

    Args:
        first_layer: (E, W).
        endpoint: Of `sinusoids`.

    Returns:
        (E, W), float32.
    """
    sin, cos = (
        sinusoids(torch.ones(1), first_layer.shape[1], endpoint=endpoint).double().chunk(2, dim=1)
    )
    of_sines, of_cosines = first_layer.double().chunk(2, dim=1)
    turned = (of_sines * cos - of_cosines * sin, of_sines * sin + of_cosines * cos)
    return torch.cat(turned, dim=1).float()


def page(trained: Trained, made: Pipeline) -> str:
    """The README of the folder."""
    config = trained.config
    steps = stepped_by(DDIM(), config.sampling, trained.schedule).steps
    notes = "".join(f"\n* {note}" for note in made.notes)
    return f"""\
# {plain(trained.name)}

A denoising diffusion model of {trained.size}x{trained.size} pictures as a pipeline of diffusers, \
written by kao.

```python
from diffusers import {made.index["_class_name"]}

pipeline = {made.index["_class_name"]}.from_pretrained(".")
pictures = pipeline(batch_size=4, num_inference_steps={steps}).images
```
{notes}
"""


def _network(trained: Trained) -> UNetConfig:
    """The U-Net's shape.

    Raises:
        ConfigError: It is no U-Net, or is scaled or told what a pipeline cannot scale or tell.
    """
    config = trained.config
    network, curriculum = config.network, config.training.curriculum
    if not isinstance(network, UNetConfig):
        raise ConfigError(
            f'network.kind is not "unet", and only such a network goes into this folder of '
            f"diffusers: {_INSTEAD}."
        )
    if trained.denoiser.sigma_data is not None:
        key = 'target = "edm"' if isinstance(config.target, EDM) else "input_scaling = true"
        raise ConfigError(
            f"{key} scales what the network sees, and pipelines of diffusers do not: {_INSTEAD}."
        )
    for key, told in (
        ("conditions.classes", bool(config.conditions.names)),
        ("training.curriculum", curriculum is not None and curriculum.coordinates),
    ):
        if told:
            raise ConfigError(
                f"{key} tells the network more than pipelines of diffusers tell a {CLASS}: "
                f"{_INSTEAD}."
            )
    return network


def _chain(schedule: ScheduleConfig) -> ScheduleConfig:
    """A schedule as a chain: of one in continuous time the levels t = 1/1000 .. 1."""
    if not isinstance(schedule, VPCosine):
        return schedule
    times = torch.arange(_LABELS + 1, dtype=torch.float64) / _LABELS
    abar = schedule.build()(times).alpha ** 2
    # cos(pi / 2) is next to nothing in float64, and a chain may end at nothing.
    abar[-1] = 0
    return Betas(tuple(betas_of(DiscreteSchedule.of_abar(abar)).tolist()))


def _weights(trained: Trained, network: UNetConfig, *, turned: bool) -> dict[str, Tensor]:
    """Our weights, without what a pipeline does not tell the network or ask it.

    Nothing that is drawn changes by it: of pictures to which nothing was done no augmentation is
    told, and the learned variance is no part of the picture.
    """
    ours = {name: t for name, t in trained.weights.items() if name != "augmented.weight"}
    if trained.denoiser.learned_variance:
        for name in ("conv_out.weight", "conv_out.bias"):
            ours[name] = ours[name][:3].contiguous()
    if turned:
        name = "embed.0.weight"
        ours[name] = one_later(ours[name], endpoint=network.embedding == "ddpm")
    return ours


def _spacing(sampling: SamplingConfig) -> str:
    return "leading" if sampling.grid is grids.leading else "trailing"


def _notes(trained: Trained, *, steps: int) -> tuple[str, ...]:
    """How diffusers draws otherwise than the run does."""
    sampling = trained.config.sampling
    notes = []
    if not isinstance(sampling.sampler, DDIM | Ancestral):
        notes.append(
            "The run draws with another sampler than the pipeline, which takes DDIM: pass it a "
            "scheduler of its own for others."
        )
    if isinstance(sampling.sampler, DDIM) and sampling.sampler.eta:
        notes.append(f"The run draws with eta={sampling.sampler.eta:g}: pass that to the pipeline.")
    if isinstance(sampling.sampler, Ancestral) and sampling.sampler.variance == "learned":
        notes.append("The learned variance is left out, and the pipeline takes the smaller one.")
    if sampling.grid not in (grids.uniform, grids.trailing, grids.leading):
        notes.append("The run draws on another grid of times than the pipeline's even steps.")
    if (start := _start(trained)) < 1 - 1e-3:
        notes.append(
            f"The pipeline begins with noise of standard deviation 1, and the run with {start:.4g}."
        )
    if steps % sampling.steps:
        notes.append(f"diffusers rounds its steps: numbers that divide {steps} are drawn exactly.")
    return tuple(notes)


def _start(trained: Trained) -> float:
    """Standard deviation of the noise that drawing begins with."""
    schedule = trained.schedule
    return schedule(torch.tensor(float(schedule.t_max), dtype=torch.float64)).sigma.item()


def _write(file: Path, table: Mapping[str, Any]) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")
