"""Reading what the trainer of denoising_diffusion_pytorch saves (`model-*.pt`).

Such a file holds the network and its average, each with the tables of the chain it was trained on:
they tell the schedule, and the weights of the loss tell the target.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from kao.diffusion import ScheduleConfig, Target, targets
from kao.errors import CheckpointError, ConfigError
from kao.exchange.betas import named
from kao.exchange.facts import number, one_of, whole
from kao.exchange.formats import Facts, Format
from kao.exchange.located import Source, in_float32
from kao.exchange.lucidrains_unet import Generation, Shape, Version, read_shape, rules
from kao.exchange.model import Model
from kao.exchange.renaming import to_ours
from kao.exchange.wrapped import prefixes
from kao.networks import LinearUNetConfig

_ANCHOR = "init_conv.weight"
"""A tensor that every such network has."""

_USUAL = ("model.model.", "ema.ema_model.model.")
"""What the trainer puts before it."""

_TABLES = (
    *("betas", "alphas_cumprod", "alphas_cumprod_prev", "loss_weight", "p2_loss_weight"),
    *("sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod", "log_one_minus_alphas_cumprod"),
    *("sqrt_recip_alphas_cumprod", "sqrt_recipm1_alphas_cumprod", "posterior_variance"),
    *("posterior_log_variance_clipped", "posterior_mean_coef1", "posterior_mean_coef2"),
)
"""Of the chain; all follow from the first, but for the weights of the loss."""

_OLDEST = (0, 29)
_ALONE = (1, 7, 1)
_SIZE = 32
_HEAD_WIDTH = 32
_GROUPS = 8

_TARGETS: Mapping[str, Target] = {"eps": targets.eps, "x0": targets.x0, "v": targets.v}


def recognises(source: Source) -> bool:
    """Whether a file is one of this trainer."""
    return bool(prefixes(source.tensors, _ANCHOR))


def read(source: Source, facts: Facts) -> Model:
    """The model of a file; see `Format.read`.

    Raises:
        ConfigError: It is a network that cannot be expressed, or a fact cannot be.
        CheckpointError: Tensors are missing or left over.
    """
    found = source.network(_ANCHOR, usual=_USUAL, tables=_TABLES)
    state, everything = in_float32(found.state), in_float32(found.beside)
    shape = read_shape(state, origin=source.origin)
    notes: list[str] = []
    size = whole(facts, "size")
    if size is None:
        size = _SIZE
        notes.append(
            f"The size of the pictures is not in the file and was taken to be {size}: size=64 says "
            f"another."
        )
    network = _network(shape, source, facts, notes)
    network.check(size)
    schedule = _schedule(everything, source.origin)
    return Model(
        network=network,
        channels=shape.channels,
        size=size,
        classes=(),
        schedule=schedule,
        target=_target(shape, everything, facts, notes),
        learned_variance=shape.outputs == 2 * shape.channels,
        weights=to_ours(rules(shape), state, origin=source.origin),
        origin=source.origin,
        notes=tuple(notes),
    )


def told_target(loss_weight: Tensor, betas: Tensor) -> Target | None:
    """The target whose loss has these weights; None where it is that of no target.

    The package weighs the squared error of x_0 by min(snr, gamma), where gamma is infinite unless
    one is asked for (Hang et al. 2023), and that of another target by as much in its own units:
    eps by min(snr, gamma) / snr, v by min(snr, gamma) / (snr + 1).

    Args:
        loss_weight: (T,).
        betas: Of the chain, (T,).
    """
    # From the betas: in float32, abar near 1 has lost what the snr is made of.
    abar = (1 - betas.double()).cumprod(0)
    snr = abar / (1 - abar)
    units = {targets.x0: torch.ones_like(snr), targets.eps: snr, targets.v: snr + 1}
    for target, unit in units.items():
        weight = loss_weight.double() * unit
        if torch.allclose(weight, snr.clamp(max=weight.max().item()), rtol=1e-3, atol=0):
            return target
    return None


def _network(shape: Shape, source: Source, facts: Facts, notes: list[str]) -> LinearUNetConfig:
    """The network's options.

    Raises:
        ConfigError: A fact cannot be, or the network cannot be expressed.
    """
    generation = _generation(shape, source.content, facts, notes)
    heads = _heads(shape, facts, notes)
    groups = whole(facts, "groups")
    if shape.grouped and groups is None:
        groups = _GROUPS
        notes.append(
            f"The number of groups of each norm (resnet_block_groups) is not in the file and was "
            f"taken to be {groups}: groups=4 says another."
        )
    groups = groups or _GROUPS
    for width in (shape.first, *shape.widths) if shape.grouped else ():
        if width % groups or width < 2 * groups:
            raise ConfigError(
                f"groups = {groups}, but norms over the {width} channels of a level have 2 or more "
                f"in each of their groups here: {source.origin} cannot be expressed so."
            )
    return LinearUNetConfig(
        width=shape.width,
        first=0 if shape.first == shape.width else shape.first,
        levels=shape.levels,
        full_attention=shape.full_attention,
        heads=heads,
        head_width=shape.hidden // heads,
        memory=shape.memory,
        norm="group" if shape.grouped else "rms",
        groups=groups if shape.grouped else _GROUPS,
        standardised=generation.standardised,
        attention_norm="layer" if generation.layer_norm else "rms",
        # Full attention everywhere has no values to divide.
        mean_values=generation.mean_values and len(shape.full_attention) < len(shape.levels),
        kernel=shape.kernel,
        down="unshuffle" if shape.folded else "conv",
        theta=number(facts, "theta", above=1.0) or 10_000.0,
        dropout=number(facts, "dropout") or 0.0,
    )


def _generation(
    shape: Shape, content: Mapping[str, Any], facts: Facts, notes: list[str]
) -> Generation:
    """What the version of the package tells; a note where none is told and it matters.

    Raises:
        ConfigError: The version that was said is none.
    """
    if not shape.wrapped:
        return Generation()
    said = facts.get("version", content.get("version"))
    if said is None:
        said = "1.0.0" if shape.folded else "0.29.0"
        notes.append(
            f"The version of denoising_diffusion_pytorch is not in the file and was taken to be "
            f"{said}: version=1.7.0 says another."
        )
    return Generation.of(_version(said))


def _version(said: object) -> Version:
    """The numbers of a version.

    Raises:
        ConfigError: It is none.
    """
    if isinstance(said, str) and re.fullmatch(r"\d+\.\d+\.\d+", said):
        version = tuple(int(part) for part in said.split("."))
        if version >= _OLDEST and version != _ALONE:
            return version
    raise ConfigError(
        f"version = {said!r}; expected a version of denoising_diffusion_pytorch whose network can "
        f"be expressed here: 0.29.0 or later, but not 1.7.1, which standardised its weights in a "
        f"way of its own."
    )


def _heads(shape: Shape, facts: Facts, notes: list[str]) -> int:
    """Attention heads.

    Raises:
        ConfigError: Those that were said are not those of the file, or do not divide the channels.
    """
    heads = whole(facts, "heads")
    if heads is None:
        heads = shape.heads or max(1, shape.hidden // _HEAD_WIDTH)
        if not shape.heads:
            notes.append(
                f"The number of attention heads is not in the file and was taken to be {heads}: "
                f"heads=8 says another."
            )
    if shape.hidden % heads or (shape.heads and heads != shape.heads):
        known = f"has {shape.heads}" if shape.heads else f"shares {shape.hidden} channels"
        raise ConfigError(f"heads = {heads}, but the network {known}: leave it out.")
    return heads


def _schedule(everything: Mapping[str, Tensor], origin: str) -> ScheduleConfig:
    """The schedule of the chain.

    Raises:
        CheckpointError: Its table is missing.
        ConfigError: It is no chain's.
    """
    if "betas" not in everything:
        raise CheckpointError(
            f"{origin} has no table of betas beside its network: it was not saved by the trainer "
            f"of denoising_diffusion_pytorch, or another diffusion was trained."
        )
    return named(everything["betas"].float())


def _target(
    shape: Shape, everything: Mapping[str, Tensor], facts: Facts, notes: list[str]
) -> Target:
    """What the network says.

    Raises:
        ConfigError: The target that was said is none, or not that of the file.
    """
    said = one_of(facts, "target", _TARGETS)
    told: Target | None = None
    if shape.outputs == 2 * shape.channels:
        told = targets.eps  # variances are learned beside the noise alone, whatever else was asked
    elif "loss_weight" in everything:
        told = told_target(everything["loss_weight"], everything["betas"])
    if said is not None and told not in (None, said):
        raise ConfigError(
            f'target = "{facts["target"]}", but the file tells that its network predicts '
            f'"{_name(told)}": leave it out.'
        )
    if target := said or told:
        return target
    # Versions that have other weights had another default.
    assumed = targets.v if "loss_weight" in everything else targets.eps
    notes.append(
        f'What the network predicts is not in the file and was taken to be "{_name(assumed)}": '
        f"target=eps, target=x0 and target=v say another."
    )
    return assumed


def _name(target: Target | None) -> str:
    return next((name for name, known in _TARGETS.items() if known is target), "")


FORMAT = Format(
    says="a file of the trainer of denoising_diffusion_pytorch",
    recognises=recognises,
    read=read,
    facts={
        "size": f"pixels along a side; {_SIZE}",
        "target": "eps, x0 or v (objective); told by the weights of the loss from version 1.5 on",
        "heads": "attention heads (attn_heads); told from version 1.9 on, else heads of "
        f"{_HEAD_WIDTH} channels",
        "groups": f"of each GroupNorm (resnet_block_groups), before version 2; {_GROUPS}",
        "version": "of the package, before 1.8, where the file does not tell it",
        "theta": "sinusoidal_pos_emb_theta; 10000",
        "dropout": "share that further training drops, above 0; none",
    },
    several=True,
)
