"""Reading the weights of improved-diffusion and guided-diffusion (`.pt` files of tensors).

Nichol & Dhariwal (2021) and Dhariwal & Nichol (2021) published their networks as bare tensors; the
options went to the command line.  What shapes do not tell is a fact that the user may state.  What
is not stated is taken from the published network of the same levels, and a note says so.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from kao.diffusion import Cosine, Linear, ScheduleConfig, Target, targets
from kao.errors import ConfigError
from kao.exchange.facts import number, one_of, whole, yes
from kao.exchange.formats import Facts, Format
from kao.exchange.located import Source, in_float32
from kao.exchange.model import Model
from kao.exchange.openai_unet import Shape, read_shape, rules
from kao.exchange.renaming import to_ours
from kao.exchange.wrapped import prefixes
from kao.networks import UNetConfig

_ANCHORS = ("time_embed.0.weight", "input_blocks.0.0.weight")
"""Tensors that every such network has."""

_SIZES = {
    (1, 2, 2, 2): 32,
    (1, 2, 3, 4): 64,
    (1, 1, 2, 3, 4): 128,
    (1, 1, 2, 2, 4, 4): 256,
}
"""Pixels, by the levels that both programs choose for them."""

_SCHEDULES: Mapping[str, Literal["linear", "cosine"]] = {"linear": "linear", "cosine": "cosine"}
_ORDERS = {"legacy": True, "new": False}
_TARGETS: Mapping[str, Target] = {"eps": targets.eps, "x0": targets.x0}


@dataclass(frozen=True)
class Published:
    """How a published network was built and trained, as its makers' commands say.

    Attributes:
        schedule: Its noise levels.
        steps: Of its chain.
        heads: Attention heads; 0: as `head_width` says.
        head_width: Channels of a head; 0: as `heads` says.
        interleaved: Whether queries, keys and values of a head lie beside each other.
    """

    schedule: Literal["linear", "cosine"]
    steps: int
    heads: int
    head_width: int
    interleaved: bool = True


def published(shape: Shape, size: int) -> Published:
    """The published network that is most like one: guided-diffusion's, or improved-diffusion's.

    guided-diffusion alone changes the size inside residual blocks.
    """
    if shape.residual:
        if size == 64:
            return Published("cosine", 1000, 0, 64, interleaved=False)
        return Published("linear", 1000, 4, 0) if size == 128 else Published("linear", 1000, 0, 64)
    return Published("linear", 1000, 1, 0) if size == 256 else Published("cosine", 4000, 4, 0)


def recognises(source: Source) -> bool:
    """Whether a file holds tensors by the names of these programs."""
    return bool(prefixes(source.tensors, *_ANCHORS))


def read(source: Source, facts: Facts) -> Model:
    """The model of a file; see `Format.read`.

    Raises:
        ConfigError: It is a network that draws nothing by itself or cannot be expressed, or a
            fact is needed or cannot be.
        CheckpointError: Tensors are missing or left over.
    """
    # Half of the published files are in half precision.
    state = in_float32(source.network(*_ANCHORS).state)
    shape = read_shape(state, origin=source.origin)
    size, notes = _size(shape, facts, source.origin), list[str]()
    alike = published(shape, size)

    name = one_of(facts, "schedule", _SCHEDULES) or alike.schedule
    steps = whole(facts, "steps", least=2) or alike.steps
    if "schedule" not in facts or "steps" not in facts:
        notes.append(
            f"The schedule is not in the file and was taken to be {name} with {steps} steps: "
            f"schedule=linear, schedule=cosine and steps=1000 say another."
        )
    heads, head_width = _heads(facts, alike, notes)
    interleaved = one_of(facts, "attention_order", _ORDERS)
    if interleaved is None:
        interleaved = alike.interleaved
        if heads != 1:
            order = "legacy" if interleaved else "new"
            notes.append(
                f"The order of the attention's weights is not in the file and was taken to be "
                f"{order}: attention_order=legacy and attention_order=new say another."
            )
    if shape.classes:
        notes.append(
            "It was never taught to draw without a class: no class is a row of zeros here, and "
            "guidance by it would be by a network that was not trained for that."
        )

    network = UNetConfig(
        width=shape.width,
        levels=shape.levels,
        blocks=shape.blocks,
        attention=shape.attention(size),
        heads=max(heads, 1),
        head_width=head_width,
        dropout=number(facts, "dropout") or 0.0,
        level="film" if shape.film else "add",
        resample="residual" if shape.residual else "conv",
        embedding="adm",
        label_scale=1000 / steps if yes(facts, "rescale_timesteps") else 1.0,
    )
    network.check(size)
    per_level = {w: w // head_width if head_width else heads for w in shape.widths}
    return Model(
        network=network,
        channels=shape.channels,
        size=size,
        classes=tuple(str(i) for i in range(shape.classes)),
        schedule=_schedule(name, steps),
        target=one_of(facts, "target", _TARGETS) or targets.eps,
        learned_variance=shape.outputs == 2 * shape.channels,
        weights=to_ours(
            rules(shape, heads=per_level, interleaved=interleaved), state, origin=source.origin
        ),
        origin=source.origin,
        notes=tuple(notes),
    )


def _size(shape: Shape, facts: Facts, origin: str) -> int:
    """Pixels along a side.

    Raises:
        ConfigError: Nothing tells it.
    """
    size = whole(facts, "size") or _SIZES.get(shape.levels)
    if size is None:
        raise ConfigError(
            f"{origin} has levels {list(shape.levels)}, which are of no published network, so the "
            f"size of its pictures is not known: say it, as in size=64."
        )
    return size


def _heads(facts: Facts, alike: Published, notes: list[str]) -> tuple[int, int]:
    """Attention heads and channels of a head, one of them 0; a note where nothing was said.

    Raises:
        ConfigError: Both were said.
    """
    heads, head_width = whole(facts, "heads"), whole(facts, "head_width")
    if heads and head_width:
        raise ConfigError(
            f"heads = {heads} and head_width = {head_width} were both said, and one follows from "
            f"the other: say one of them."
        )
    if heads or head_width:
        return heads or 0, head_width or 0
    taken = f"heads of {alike.head_width} channels" if alike.head_width else f"{alike.heads} heads"
    notes.append(
        f"The number of attention heads is not in the file and was taken to be that of {taken}: "
        f"heads=4 or head_width=64 say another."
    )
    return alike.heads, alike.head_width


def _schedule(name: Literal["linear", "cosine"], steps: int) -> ScheduleConfig:
    """Noise levels by the programs' name; betas of fewer steps are larger in proportion."""
    if name == "cosine":
        return Cosine(steps=steps)
    return Linear(steps=steps, beta_first=0.1 / steps, beta_last=20 / steps)


FORMAT = Format(
    says="a file of improved-diffusion or guided-diffusion",
    recognises=recognises,
    read=read,
    facts={
        "size": "pixels along a side; the levels of the published networks tell it",
        "heads": "attention heads; that of the published network",
        "head_width": "channels of an attention head, in place of heads",
        "attention_order": "legacy or new (use_new_attention_order); new at 64 pixels with "
        "residual resampling",
        "schedule": "linear or cosine; that of the published network",
        "steps": "of the chain (diffusion_steps); that of the published network",
        "rescale_timesteps": "true where the network is told 0..1000 whatever the steps; false",
        "target": "eps, or x0 (predict_xstart); eps",
        "dropout": "share that further training drops, above 0; none",
    },
    several=True,
)
