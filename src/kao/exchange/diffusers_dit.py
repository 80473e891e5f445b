"""Reading diffusers' DiTTransformer2DModel (Peebles & Xie 2023) as our DiT."""

from collections.abc import Mapping
from typing import Any

from kao.errors import ConfigError
from kao.exchange.changes import Permuted, Pointwise
from kao.exchange.diffusers_files import (
    SCHEDULER_FACTS,
    class_name,
    class_names,
    licence_of,
    network_of,
    scheduler_of,
    state_of,
)
from kao.exchange.formats import Facts, Format
from kao.exchange.located import Source
from kao.exchange.model import Model
from kao.exchange.options import POSITIVE, SHARE, SIZE, WHOLE, Option, maybe, read_options
from kao.exchange.renaming import Repeated, Rule, joined_layer, layer, to_ours
from kao.networks import DiTConfig

CLASSES = ("DiTTransformer2DModel", "Transformer2DModel")
"""Today's name, and that of the published weights, when one class was all transformers."""

_FREQUENCIES = 256

_OPTIONS: Mapping[str, tuple[Any, ...]] = {
    "norm_type": ("ada_norm_zero",),
    "activation_fn": ("gelu-approximate",),
    "attention_bias": (True,),
    "norm_elementwise_affine": (False,),
    "double_self_attention": (False, None),
    "only_cross_attention": (False, None),
    "use_linear_projection": (False, None),
    "cross_attention_dim": (None,),
    "num_vector_embeds": (None,),
    "caption_channels": (None,),
}
"""Options with the values that a DiT has; a left-out one has the first."""

_READ: Mapping[str, Option] = {
    "num_attention_heads": Option(16, WHOLE),
    "attention_head_dim": Option(72, WHOLE),
    "in_channels": Option(4, WHOLE),
    "out_channels": Option(None, maybe(WHOLE)),
    "num_layers": Option(28, WHOLE),
    "dropout": Option(0.0, SHARE),
    "sample_size": Option(32, SIZE),
    "patch_size": Option(2, WHOLE),
    "num_embeds_ada_norm": Option(1000, WHOLE),
    "norm_eps": Option(1e-5, POSITIVE),
}
"""Options that are read, with the values that it gives those that are left out, and kinds."""

_UNFELT = ("norm_num_groups", "upcast_attention", "attention_type")
"""Options without a meaning for a DiT."""


def read_config(table: Mapping[str, Any]) -> DiTConfig:
    """Our shape of a DiTTransformer2DModel.

    Args:
        table: Of its config.json.

    Raises:
        ConfigError: It has an option that a DiT has not; the message names the key.
    """
    for key, value in table.items():
        if key.startswith("_") or key in (*_READ, *_UNFELT):
            continue
        if key not in _OPTIONS and value is not None:
            raise ConfigError(
                f"{key} = {value!r} is no option of a {CLASSES[0]} that is known here."
            )
    for key, values in _OPTIONS.items():
        if (value := table.get(key, values[0])) not in values:
            raise ConfigError(
                f"{key} = {value!r} of this transformer cannot be expressed here; expected "
                f"{values[0]!r}, as a DiT has."
            )
    told = _told(table)
    network = DiTConfig(
        width=told["num_attention_heads"] * told["attention_head_dim"],
        depth=told["num_layers"],
        heads=told["num_attention_heads"],
        patch=told["patch_size"],
        dropout=told["dropout"],
        embedding="ddpm",
        mlp_norm_eps=told["norm_eps"],
    )
    network.check(_size(told))
    return network


def rules(network: DiTConfig, *, outputs: int) -> list[Rule]:
    """All tensors of the network, here and there.

    There each block has an embedding of the noise level and of the class; here all share one.

    Args:
        network: Its shape here.
        outputs: Channels of what it says.
    """
    half = _FREQUENCIES // 2
    sines_first = Permuted((*range(half, 2 * half), *range(half)), dim=1)
    # There the numbers of a patch are listed pixel by pixel, here channel by channel.
    pixels = network.patch**2
    by_channel = Permuted(tuple(p * outputs + c for c in range(outputs) for p in range(pixels)))
    blocks = [f"transformer_blocks.{i}" for i in range(network.depth)]

    def shared(ours: str, theirs: str, *changes: Permuted) -> Repeated:
        return Repeated(ours, tuple(f"{block}.norm1.emb.{theirs}" for block in blocks), changes)

    found: list[Rule] = [
        *layer("conv_in", "pos_embed.proj"),
        *layer("level_out", "proj_out_1"),
        *layer("conv_out", "proj_out_2", weight=(by_channel, Pointwise(2, 0)), bias=(by_channel,)),
        shared("embed.0.weight", "timestep_embedder.linear_1.weight", sines_first),
        shared("embed.0.bias", "timestep_embedder.linear_1.bias"),
        shared("embed.2.weight", "timestep_embedder.linear_2.weight"),
        shared("embed.2.bias", "timestep_embedder.linear_2.bias"),
        shared("classes.weight", "class_embedder.embedding_table.weight"),
    ]
    for i, theirs in enumerate(blocks):
        ours = f"layers.{i}"
        parts = [f"{theirs}.attn1.{name}" for name in ("to_q", "to_k", "to_v")]
        found += [
            *layer(f"{ours}.level", f"{theirs}.norm1.linear"),
            *joined_layer(f"{ours}.attention.qkv", parts),
            *layer(f"{ours}.attention.out", f"{theirs}.attn1.to_out.0"),
            *layer(f"{ours}.mlp.0", f"{theirs}.ff.net.0.proj"),
            *layer(f"{ours}.mlp.3", f"{theirs}.ff.net.2"),
        ]
    return found


def read(source: Source, facts: Facts) -> Model:
    """A DiTTransformer2DModel with its weights and its scheduler.

    Args:
        source: A folder of such a model, or of a pipeline with one.
        facts: Of `FORMAT.facts`.

    Raises:
        ConfigError: It has an option that cannot be expressed here; the message names the key.
        CheckpointError: Weights are missing, damaged or of another network; or the embeddings of
            its blocks differ.
    """
    found = network_of(source)
    assert found is not None, "read is called of what was recognised"
    folder, table = found
    network, options = read_config(table), _told(table)
    told = scheduler_of(source, facts)
    channels = options["in_channels"]
    outputs = options["out_channels"] or channels
    if outputs not in (channels, 2 * channels):
        raise ConfigError(
            f"out_channels = {outputs} of this transformer cannot be expressed here; expected "
            f"{channels}, or {2 * channels} with a variance."
        )
    state = state_of(folder, source)
    return Model(
        network=network,
        channels=channels,
        size=_size(options),
        classes=class_names(source, options["num_embeds_ada_norm"]),
        schedule=told.schedule,
        target=told.target,
        learned_variance=outputs > channels,
        weights=to_ours(rules(network, outputs=outputs), state, origin=source.origin),
        origin=source.origin,
        sampling=told.sampling,
        licence=licence_of(source),
        notes=told.notes,
    )


def _told(table: Mapping[str, Any]) -> dict[str, Any]:
    """The options that are read, each of its kind."""
    return read_options(table, _READ, file="config.json")


def _size(told: Mapping[str, Any]) -> int:
    size = told["sample_size"]
    if not isinstance(size, int):
        raise ConfigError(
            f"sample_size = {size!r} of this transformer cannot be expressed here; expected pixels "
            f"along a side, of square pictures."
        )
    return size


FORMAT = Format(
    says=f"a folder of diffusers with a {CLASSES[0]}",
    recognises=lambda source: class_name(source) in CLASSES,
    read=read,
    facts=SCHEDULER_FACTS,
    several=True,
)
