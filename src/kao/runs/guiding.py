"""What may guide a model: checks that need its whole configuration, and that of the worse model."""

from torch import nn

from kao.config import RunConfig, SamplingConfig, Table, dump
from kao.config.tree import finite
from kao.data.names import listed
from kao.errors import ConfigError
from kao.runs.weights import fingerprint


def guides(config: RunConfig) -> bool:
    """Whether a step asks for two predictions, to go away from one of them."""
    guidance = config.sampling.guidance
    return bool(guidance.worse) or (config.conditions.classes and guidance.scale != 1)


def sampling_table(sampling: SamplingConfig, worse: nn.Module | None) -> Table:
    """All of [sampling] that the drawn pictures depend on, as JSON can say it.

    Args:
        sampling: How pictures are drawn; the knots of a grid that a run learned are left out of it,
            as they follow from the run.
        worse: The model that guides, which is told by its weights: those behind a name may change.
    """
    table = finite(dump(sampling))
    table["guidance"]["worse"] = fingerprint(worse) if worse else ""
    return table


def refuse_vain(config: RunConfig) -> None:
    """Refuse a scale of guidance that goes away from nothing.

    Args:
        config: Of the model that is to draw.

    Raises:
        ConfigError: There is no worse model, and no class that the model might not be told.
    """
    guidance, told = config.sampling.guidance, config.conditions
    if guidance.scale == 1 or guidance.worse:
        return
    if not told.classes:
        raise ConfigError(
            f"sampling.guidance.scale = {guidance.scale} goes away from a worse model, and none "
            f"is named, nor is this one told classes: set sampling.guidance.worse to a run, or "
            f"leave scale out."
        )
    if told.drop == 0:
        raise ConfigError(
            f"sampling.guidance.scale = {guidance.scale} goes away from what the model says "
            f"without a class, which it does not learn with conditions.drop = 0: train with "
            f"conditions.drop = 0.1, name a worse model, or leave scale out."
        )


def refuse_stranger(name: str, worse: RunConfig, config: RunConfig) -> None:
    """Refuse a worse model that a model cannot be held against.

    Args:
        name: Of the worse model, as the user wrote it.
        worse: Its configuration.
        config: Of the model that it should guide.

    Raises:
        ConfigError: It is of other pictures, another schedule or other classes.
    """
    if worse.data.size != config.data.size:
        raise ConfigError(
            f'sampling.guidance.worse = "{name}" draws pictures of data.size = {worse.data.size}, '
            f"and the model that it should guide of {config.data.size}: name one of the same size."
        )
    if worse.schedule != config.schedule:
        raise ConfigError(
            f'sampling.guidance.worse = "{name}" was trained on the schedule {worse.schedule}, and '
            f"the model that it should guide on {config.schedule}: name one of the same schedule."
        )
    theirs, ours = worse.conditions, config.conditions
    if not ours.classes:
        return  # neither is told anything
    if not theirs.classes:
        raise ConfigError(
            f'sampling.guidance.worse = "{name}" is told no classes, and the model that it should '
            f"guide is: name one that is told the same."
        )
    # The names of a run that has not begun are not known yet.
    if ours.names and theirs.names != ours.names:
        raise ConfigError(
            f'sampling.guidance.worse = "{name}" is told the classes {listed(theirs.names)}, and '
            f"the model that it should guide {listed(ours.names)}: name one that is told the same."
        )
