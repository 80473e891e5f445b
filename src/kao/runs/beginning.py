"""The configuration and weights that a fine-tuning run begins with, from its base and the request.

What makes the base what it is stays: network, schedule, target, loss, how pictures are drawn.  What
is of its pictures, its length and its machine comes from the request or the defaults.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from kao.checkpoints import FOLDER
from kao.config import RunConfig, Table, dump, leaves
from kao.config.conditioning import ConditionsConfig
from kao.config.finetuning import FinetuneConfig
from kao.config.sampling import GuidanceConfig
from kao.data.sources import SOURCES
from kao.diffusion import DiscreteSchedule, grids
from kao.errors import ConfigError, KaoError
from kao.networks import EDM2Config, UNetConfig
from kao.networks.cost import parameters
from kao.networks.selecting import choose
from kao.runs.adapting import adapted
from kao.runs.ask import Ask
from kao.runs.bases import Base, open_base
from kao.runs.changes import FILLED
from kao.runs.run import CONFIG
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
    _refuse_filled(ask)
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


def begun(config: RunConfig, base: Base, ask: Ask, *, trained: int) -> Beginning:
    """What the run begins with, once its pictures are known.

    Args:
        config: From `asked_over`, with the names of the classes filled in.
        base: What it begins with.
        ask: As it was asked for.
        trained: How many pictures are learned from.

    Raises:
        ConfigError: The base's weights have no place in this network; the keys are named.
    """
    config, chosen = for_few(config, ask.request(ask.recipe).table, trained)
    weights, new, told = adapted(base.weights, there=base.config, now=config)
    config = replace(config, finetune=replace(config.finetune, new=new))
    plan = [
        f"Beginning with {base.origin}.",
        *_conversions(config, base),
        *told,
        *_rate(config, base),
        *_learning(config),
        *chosen,
    ]
    return Beginning(config, weights, plan)


def refuse_misplaced(ask: Ask) -> None:
    """Raise a ConfigError where what is called a base can be none, or is written into.

    Args:
        ask: Names a base.
    """
    base = str(ask.base)
    if ask.source is not None and (Path(ask.source) / CONFIG).is_file():
        raise ConfigError(
            f"{ask.source} is a trained model, and pictures are expected in its place: the base "
            f"comes first, as in kao finetune {ask.source} {base}."
        )
    if base.partition(":")[0] in SOURCES and not Path(base).exists():
        raise ConfigError(
            f"{base} names pictures, and a trained model comes first: kao finetune BASE {base}."
        )
    place = Path(base).resolve()
    if ask.run.resolve() == (place.parents[1] if place.parent.name == FOLDER else place):
        raise ConfigError(
            f"{base} is the base, and --run {ask.run} would be written into the same directory: "
            f"give another --run to fine-tune it, or go on with it by kao train."
        )


def same_base(ask: Ask, stored: FinetuneConfig) -> list[str]:
    """What the user should be told of the base of a run that goes on, which may be gone by now.

    Its weights decide, or its place where they cannot be read any more.

    Args:
        ask: Names a run that exists, and perhaps a base.
        stored: Of that run.

    Raises:
        ConfigError: The run began with something else.
    """
    if ask.base is None:
        return []
    if not stored.base:
        raise ConfigError(
            f"{ask.run} exists and did not begin with another model: give another --run to begin "
            f"with {ask.base}, or go on with it by kao train."
        )
    there = Path(ask.base)
    placed = Path(stored.base).resolve() == there.resolve()
    digest = _digest_of(ask.base) if there.exists() else None
    if digest == stored.sha256 or (placed and digest is None):
        return []
    if placed:
        return [
            f"{ask.base} holds other weights than when {ask.run} began with it: the run goes on "
            f"with its own."
        ]
    raise ConfigError(
        f"{ask.run} began with {stored.base}, and {ask.base} is asked for: name the same base "
        f"to go on with it, or give another --run."
    )


def _digest_of(name: str) -> str | None:
    """Of a model's weights; None where they cannot be read."""
    try:
        return open_base(name).sha256
    except KaoError:
        return None


def refuse_without_a_base(config: RunConfig, ask: Ask) -> None:
    """Raise a ConfigError where [finetune] is set for a run that begins with noise.

    A recipe that names any key of it is one for fine-tuning; a whole run.toml, which has all of
    them and its base among them, is not, if it began with noise itself.

    Args:
        config: As it is asked for.
        ask: Names no base.
    """
    before, now = leaves(dump(FinetuneConfig())), leaves(dump(config.finetune))
    told = leaves(ask.request(ask.recipe).table.get("finetune", {}))
    keys = [key for key, value in now.items() if before.get(key) != value]
    keys += [] if "base" in told else told
    if not keys:
        return
    typed = leaves(ask.request(None).table)
    key = f"finetune.{keys[0]}"
    if ask.recipe is not None and key not in typed:
        raise ConfigError(
            f"The recipe {ask.recipe} sets {key}, and there is no base to begin with: kao finetune "
            f"BASE FACES {ask.recipe} begins with one; name another recipe to train from noise."
        )
    raise ConfigError(
        f"{key} is set, and there is no base to begin with: kao finetune BASE FACES begins with "
        f"one; leave [finetune] out to train from noise."
    )


def _refuse_filled(ask: Ask) -> None:
    """Raise a ConfigError where keys are asked for that are filled in from the base.

    A recipe may have them as a run that began with noise has them in its run.toml.
    """
    empty = leaves(dump(RunConfig()))
    recipe, typed = (leaves(ask.request(name).table) for name in (ask.recipe, None))
    for key, value in recipe.items():
        if not key.startswith(FILLED) or (key not in typed and value == empty.get(key)):
            continue
        name = next(name for name in FILLED if key.startswith(name))
        made = name.removeprefix("finetune.")
        other = (
            f"set {made} for what is learned next; what other people's weights were made for is "
            f"told by kao import SOURCE key=value, whose run is then the base"
            if made in ("schedule", "target")
            else "leave it out"
        )
        raise ConfigError(f"{name} is filled in from the base, {ask.base}: {other}.")


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
    """The configuration with an even grid where the base's means nothing on another schedule.

    That is one which was learned, or which counts the steps of a chain.
    """
    sampling = config.sampling
    learned = isinstance(sampling.grid, grids.Learned) and sampling.grid.knots
    counts = sampling.grid in (grids.leading, grids.linspace) or isinstance(
        sampling.grid, grids.Spaced
    )
    lost = counts and not isinstance(config.schedule.build(), DiscreteSchedule)
    if config.schedule == there.schedule or sampling.grid != there.sampling.grid:
        return config
    if not (learned or lost):
        return config
    return replace(config, sampling=replace(sampling, grid=grids.uniform))


def _rate(config: RunConfig, base: Base) -> list[str]:
    """A sentence on the learning rate, where it is the one that is chosen for a base."""
    rate, there = config.optimizer.rate, base.config.optimizer.rate
    if rate != (RATE * there if base.trained else there):
        return []
    if not base.trained:
        method = dump(config)["optimizer"]["method"]["kind"]
        return [
            f"It learns by {method} at {rate:g}, since nobody knows how the base was trained: "
            f"optimizer.rate sets another."
        ]
    return [
        f"It learns at {rate:g}, {RATE:g} of the base's rate, since its weights are to be changed "
        f"and not made: optimizer.rate sets another."
    ]


def _learning(config: RunConfig) -> list[str]:
    """A sentence on how much of the network learns, where that is not all."""
    tuned = config.finetune
    if tuned.train == "all" and tuned.freeze == 0:
        return []
    network = config.build_denoiser("meta").network
    names = choose(network, tuned.train, freeze=tuned.freeze, new=tuned.new)
    learning = sum(network.get_parameter(name).numel() for name in names)
    what = {
        "all": "those",
        "norms_attention": "norms and attention",
        "lora": f"adapters of rank {tuned.rank}",
    }[tuned.train]
    first = "block" if tuned.freeze == 1 else f"{tuned.freeze} blocks"
    behind = f" behind the first {first}" if tuned.freeze else ""
    return [f"{learning:,} of {parameters(network):,} weights learn: {what}{behind}."]


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
    if config.sampling.grid != there.sampling.grid and config.sampling.grid == grids.uniform:
        told.append("It draws on even times: the base's grid is of its own schedule.")
    if config.data.size != there.data.size:
        told.append(
            f"The base drew {there.data.size} x {there.data.size} pixels, and this run draws "
            f"{config.data.size} x {config.data.size}: every layer takes pictures of either size, "
            f"and learns what is large and small in them anew."
        )
    return told
