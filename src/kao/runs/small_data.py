"""What keeps fine-tuning on few pictures from memorising them, and what is said of very few.

Three steps, by the number of pictures, for keys that nobody asked for.  The fewer there are, the
more dropout (Srivastava et al. 2014); below a few thousand, EDM's augmentation, of which the
network is told and which therefore does not show in what it draws (Karras et al. 2022, appendix
F.2); and, where scores tell, an end where drawn pictures turn out to be copies.  The numbers are
borrowed from published small sets, not searched.
"""

from dataclasses import dataclass
from typing import Any

from kao.config import Request, RunConfig, Table, dump, leaves
from kao.data.split import held_out_count
from kao.runs.stopping import PATIENCE
from kao.runs.yardstick import FEWEST
from kao.training import Length


@dataclass(frozen=True)
class Step:
    """What is chosen below a number of pictures.

    Attributes:
        below: Pictures.
        dropout: Of the network, at least.
        edm: Probability of each of EDM's transforms, at least.
    """

    below: int
    dropout: float
    edm: float


STEPS = (Step(300, 0.3, 0.12), Step(2_000, 0.2, 0.12), Step(10_000, 0.1, 0.0))
"""For about a hundred pictures, about a thousand, and about five thousand."""

VERY_FEW = 50
"""Pictures below which a model is expected to memorise them, whatever is done about it."""


def trained_on(config: RunConfig, pictures: int) -> int:
    """How many pictures are learned from, of which the held-out ones are none.

    Args:
        config: Of the run; its data.held_out may be "auto".
        pictures: In the set.

    Raises:
        ConfigError: None is left.
    """
    return pictures - held_out_count(pictures, config.data.held_out)


def expected_of_few(trained: int) -> list[str]:
    """What is said where so few pictures are learned from that the model will memorise them.

    Args:
        trained: How many.
    """
    if trained >= VERY_FEW:
        return []
    return [
        f"A model that learns from {trained} picture{'' if trained == 1 else 's'} memorises them "
        f"and draws little but copies: some hundreds or more are needed for new faces (fewer, with "
        f"kao finetune)."
    ]


def for_few(config: RunConfig, asked: Table, trained: int) -> tuple[RunConfig, list[str]]:
    """The configuration for so many pictures, and what was chosen and why.

    EDM's augmentation is not chosen where blocks are frozen: the network learns to be told of it
    at its beginning, so that gradients would go back through what is frozen.

    Args:
        config: Of a fine-tuning run that begins.
        asked: What the user did set, which stays.
        trained: How many pictures are learned from.
    """
    step = _step(trained)
    if step is None:
        return config, []
    now = leaves(dump(config))
    wanted: dict[str, Any] = {"network.dropout": max(step.dropout, now["network.dropout"])}
    left_out = False
    if config.finetune.freeze == 0:
        wanted["data.augment.edm"] = max(step.edm, now["data.augment.edm"])
    else:
        left_out = step.edm > now["data.augment.edm"] and "data.augment.edm" not in leaves(asked)
    config, told = _with(config, asked, wanted, trained=trained, below=step.below)
    if left_out:
        told.append(
            f"data.augment.edm = {step.edm} is not chosen for so few pictures, since what the "
            f"network would learn of it stands before the frozen blocks (finetune.freeze = "
            f"{config.finetune.freeze})."
        )
    return config, told


def stopped_for_few(config: RunConfig, asked: Table, trained: int) -> tuple[RunConfig, list[str]]:
    """The configuration with an end at copies, where pictures are few and scores can tell of them.

    Args:
        config: Of a fine-tuning run that begins; evaluation.every = "auto" is of a run in minutes,
            of which nobody knows yet how often it will be scored.
        asked: What the user did set, which stays.
        trained: How many pictures are learned from.
    """
    step = _step(trained)
    if step is None or trained < FEWEST or not _scored_enough(config):
        return config, []
    wanted = {"evaluation.stop": "auto"}
    return _with(config, asked, wanted, trained=trained, below=step.below)


def _scored_enough(config: RunConfig) -> bool:
    """Whether there may be a score after so many as a run is stopped for."""
    every = config.evaluation.every
    images = Length.parse(config.length, batch=config.training.batch).images
    if every in ("auto", 0) or not images:
        return every != 0
    return images // int(every) > PATIENCE


def _step(trained: int) -> Step | None:
    return next((step for step in STEPS if trained < step.below), None)


def _with(
    config: RunConfig, asked: Table, wanted: dict[str, Any], *, trained: int, below: int
) -> tuple[RunConfig, list[str]]:
    """The configuration with the dotted keys that nobody set, and a sentence on them."""
    now, typed = leaves(dump(config)), leaves(asked)
    chosen = {key: value for key, value in wanted.items() if key not in typed and now[key] != value}
    if not chosen:
        return config, []
    table: Table = {}
    for key, value in chosen.items():
        *path, name = key.split(".")
        branch = table
        for part in path:
            branch = branch.setdefault(part, {})
        branch[name] = value
    told = ", ".join(f"{key} = {value}" for key, value in chosen.items())
    why = (
        f"Chosen for {trained:,} pictures, which are soon learned by heart (fewer than "
        f"{below:,}): {told}."
    )
    return Request(table).over(dump(config)), [why]
