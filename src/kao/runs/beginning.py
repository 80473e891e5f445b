"""The configuration and weights that a fine-tuning run begins with, from its base and the request.

What makes the base what it is stays: network, schedule, target, loss, how pictures are drawn.  What
is of its pictures, its length and its machine comes from the request or the defaults.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from kao.config import RunConfig, Table, dump, leaves
from kao.config.conditioning import ConditionsConfig
from kao.config.finetuning import FinetuneConfig
from kao.config.sections import GuidanceConfig
from kao.diffusion import grids
from kao.errors import ConfigError
from kao.networks import EDM2Config, UNetConfig
from kao.runs.adapting import adapted
from kao.runs.ask import Ask
from kao.runs.bases import Base
from kao.runs.small_data import for_few

RATE = 0.5
"""Share of the base's peak learning rate: its weights are to be changed, not made."""


class Beginning(NamedTuple):
    """What a fine-tuning run begins with.

    Attributes:
        config: With all of [finetune] filled in.
        weights: By the names of the denoiser's state dict without adapters.
        plan: What was kept, converted and chosen, and what is new.
    """

    config: RunConfig
    weights: Mapping[str, Tensor]
    plan: list[str]


def under(base: Base) -> RunConfig:
    """The configuration of a run that begins with a base, before anything is asked for."""
    there, default = base.config, RunConfig()
    sampling = there.sampling
    if sampling.guidance.worse:  # a worse model of other pictures
        sampling = replace(sampling, guidance=GuidanceConfig())
    rate = there.optimizer.rate * (RATE if base.trained else 1)
    return replace(
        default,
        data=replace(default.data, size=there.data.size, augment=there.data.augment),
        # Names are those of the new pictures' folders.
        conditions=ConditionsConfig(classes=there.conditions.classes, drop=there.conditions.drop),
        schedule=there.schedule,
        target=there.target,
        network=there.network,
        finetune=there.finetune,
        loss=there.loss,
        optimizer=replace(there.optimizer, rate=rate),
        ema=replace(default.ema, decay=there.ema.decay),
        training=replace(
            default.training, batch=there.training.batch, curriculum=there.training.curriculum
        ),
        input_scaling=there.input_scaling,
        sampling=sampling,
    )


def asked_over(base: Base, ask: Ask) -> RunConfig:
    """The configuration that is asked for, over that of a base.

    Args:
        base: What the run begins with.
        ask: Names it, with recipe, overrides and flags.

    Raises:
        ConfigError: A key or value cannot work.
    """
    request = ask.request(ask.recipe)
    config = _moved(request.over(dump(under(base))), base.config, request.table)
    there = base.config
    if config.input_scaling != there.input_scaling:
        raise ConfigError(
            f"input_scaling = {str(config.input_scaling).lower()}, and the network of {ask.base} "
            f"was trained with {str(there.input_scaling).lower()}: leave it out; what the network "
            f"sees is converted where the schedule changes."
        )
    made = there.finetune.native(there.schedule.build(), there.target)
    schedule = there.finetune.schedule or there.schedule
    target = there.target if made is None else made.target
    tuned = replace(
        config.finetune,
        base=str(ask.base),
        sha256=base.sha256,
        schedule=None if config.schedule == schedule else schedule,
        target=None if config.target == target else target,
        new=(),
    )
    return _with_a_grid(replace(config, finetune=tuned), there)


def begun(config: RunConfig, base: Base, ask: Ask, *, pictures: int) -> Beginning:
    """What the run begins with, once its pictures are known.

    Args:
        config: From `asked_over`, with the names of the classes filled in.
        base: What it begins with.
        ask: As it was asked for.
        pictures: How many there are.

    Raises:
        ConfigError: The base's weights have no place in this network; the keys are named.
    """
    config, chosen = for_few(config, ask.request(ask.recipe).table, pictures)
    weights, new, told = adapted(base.weights, there=base.config, now=config)
    config = replace(config, finetune=replace(config.finetune, new=new))
    plan = [f"Beginning with {base.origin}.", *_conversions(config, base), *told, *chosen]
    return Beginning(config, weights, plan)


def refuse_another_base(ask: Ask, stored: FinetuneConfig) -> None:
    """Raise a ConfigError where a run goes on that began with something else.

    Args:
        ask: Names a run that exists.
        stored: Of that run.
    """
    if ask.base is None or stored.base == ask.base:
        return
    if not stored.base:
        raise ConfigError(
            f"{ask.run} exists and did not begin with another model: give another --run to begin "
            f"with {ask.base}, or go on with it by kao train."
        )
    if Path(stored.base).resolve() != Path(ask.base).resolve():
        raise ConfigError(
            f"{ask.run} began with {stored.base}, and {ask.base} is asked for: name the same base "
            f"to go on with it, or give another --run."
        )


def refuse_without_a_base(config: RunConfig) -> None:
    """Raise a ConfigError where [finetune] is set for a run that begins with noise."""
    if config.finetune != FinetuneConfig():
        before = leaves(dump(FinetuneConfig()))
        key = next(k for k, v in leaves(dump(config.finetune)).items() if before.get(k) != v)
        raise ConfigError(
            f"finetune.{key} is set, and there is no base to begin with: kao finetune BASE FACES "
            f"begins with one; leave [finetune] out to train from noise."
        )


def _moved(config: RunConfig, there: RunConfig, asked: Table) -> RunConfig:
    """The configuration with attention at the levels where the base has it, at another size."""
    network, before = config.network, there.network
    if config.data.size == there.data.size or "network.attention" in leaves(asked):
        return config
    if isinstance(network, UNetConfig) and isinstance(before, UNetConfig):
        return replace(
            config, network=replace(network, attention=_at_levels(before, config, there))
        )
    if isinstance(network, EDM2Config) and isinstance(before, EDM2Config):
        return replace(
            config, network=replace(network, attention=_at_levels(before, config, there))
        )
    return config


def _at_levels(
    network: UNetConfig | EDM2Config, config: RunConfig, there: RunConfig
) -> tuple[int, ...]:
    """The sizes of the maps of the levels that have attention at another size of pictures."""
    sizes = zip(network.sizes(there.data.size), network.sizes(config.data.size), strict=True)
    return tuple(new for old, new in sizes if old in network.attention)


def _with_a_grid(config: RunConfig, there: RunConfig) -> RunConfig:
    """The configuration with an even grid in the place of one that was learned on a schedule."""
    sampling = config.sampling
    learned = isinstance(sampling.grid, grids.Learned) and sampling.grid.knots
    if not learned or config.schedule == there.schedule:
        return config
    return replace(config, sampling=replace(sampling, grid=grids.uniform))


def _conversions(config: RunConfig, base: Base) -> list[str]:
    """What is not as the base had it, though its weights stay."""
    told = []
    tuned, there = config.finetune, base.config
    if tuned.schedule is not None or tuned.target is not None:
        kinds = dump(config), dump(tuned)
        what = [
            f"{key} = {kinds[0][key]['kind']} for {kinds[1][key]['kind']}"
            for key in ("schedule", "target")
            if kinds[1][key]["kind"] != "none"
        ]
        told.append(
            f"Converted exactly: {' and '.join(what)}; the network is asked at its own levels, as "
            f"it was trained."
        )
    if config.data.size != there.data.size:
        told.append(
            f"The base drew {there.data.size} x {there.data.size} pixels, and this run draws "
            f"{config.data.size} x {config.data.size}: every layer takes pictures of either size, "
            f"and learns what is large and small in them anew."
        )
    return told
