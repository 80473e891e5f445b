"""Which tensor of diffusers' UNet2DModel is which of our U-Net."""

from collections.abc import Iterator, Mapping

from torch import Tensor

from kao.exchange.changes import Extended, Permuted, Pointwise
from kao.exchange.renaming import Rule, Same, joined_layer, layer
from kao.networks import UNetConfig

_OLD = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""Layers of attention before diffusers had one kind of it for all networks."""


def renewed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights with the names that attention has in diffusers today."""
    return {_renewed(name): tensor for name, tensor in state.items()}


def _renewed(name: str) -> str:
    *path, last, kind = name.split(".")
    if "attentions" not in path or last not in _OLD:
        return name
    return ".".join([*path, _OLD[last], kind])


def rules(network: UNetConfig, *, size: int, classes: int = 0, flipped: bool = False) -> list[Rule]:
    """All tensors of the network, here and there.

    Args:
        network: Its shape here, one that `diffusers_unet.write_config` can tell of.
        size: Of the pictures, pixels.
        classes: That it is told; 0: none.
        flipped: Whether the cosines of the noise level come first there.
    """
    half = network.width // 2
    order = (Permuted((*range(half, 2 * half), *range(half)), dim=1),) if flipped else ()
    found: list[Rule] = [
        *layer("conv_in", "conv_in"),
        *layer("embed.0", "time_embedding.linear_1", weight=order),
        *layer("embed.2", "time_embedding.linear_2"),
        *layer("norm_out", "conv_norm_out"),
        *layer("conv_out", "conv_out"),
    ]
    if classes:
        found.append(Same("classes.weight", "class_embedding.weight", (Extended(1),)))
    return [*found, *_down(network, size), *_middle(network), *_up(network, size)]


def _down(network: UNetConfig, size: int) -> Iterator[Rule]:
    """The way down: here halving begins a level, there it ends the one before."""
    at, current = 0, network.width
    for i, (multiple, of) in enumerate(zip(network.levels, network.sizes(size), strict=True)):
        if i > 0:
            ours, theirs = f"down.{at}.body", f"down_blocks.{i - 1}.downsamplers.0"
            if network.resample == "residual":
                yield from _block(ours, theirs, skips=False)
            else:
                inner = ".1" if network.resample == "conv_right" else ""
                yield from layer(f"{ours}{inner}", f"{theirs}.conv")
            at += 1
        width = network.width * multiple
        for j in range(network.blocks):
            theirs = f"down_blocks.{i}.resnets.{j}"
            yield from _block(f"down.{at}.body", theirs, skips=current != width)
            if of in network.attention:
                yield from _attention(f"down.{at}.attention", f"down_blocks.{i}.attentions.{j}")
            at, current = at + 1, width


def _middle(network: UNetConfig) -> Iterator[Rule]:
    yield from _block("middle.0.body", "mid_block.resnets.0", skips=False)
    if network.middle_attention:
        yield from _attention("middle.0.attention", "mid_block.attentions.0")
    yield from _block("middle.1.body", "mid_block.resnets.1", skips=False)


def _up(network: UNetConfig, size: int) -> Iterator[Rule]:
    widths = [network.width * multiple for multiple in network.levels]
    kept = [network.width]
    for i, width in enumerate(widths):
        kept += [kept[-1]] * (i > 0) + [width] * network.blocks

    at, current = 0, widths[-1]
    levels = list(enumerate(zip(widths, network.sizes(size), strict=True)))
    for k, (i, (width, of)) in enumerate(reversed(levels)):
        for j in range(network.blocks + 1):
            theirs = f"up_blocks.{k}.resnets.{j}"
            yield from _block(f"up.{at}.body", theirs, skips=current + kept.pop() != width)
            if of in network.attention:
                yield from _attention(f"up.{at}.attention", f"up_blocks.{k}.attentions.{j}")
            at, current = at + 1, width
        if i > 0:
            ours, theirs = f"up.{at}.body", f"up_blocks.{k}.upsamplers.0"
            if network.resample == "residual":
                yield from _block(ours, theirs, skips=False)
            else:
                yield from layer(f"{ours}.1", f"{theirs}.conv")
            at += 1


def _block(ours: str, theirs: str, *, skips: bool) -> Iterator[Rule]:
    """The rules of a residual block; `skips`: whether its skip has a layer."""
    yield from layer(f"{ours}.norm_in", f"{theirs}.norm1")
    yield from layer(f"{ours}.conv_in", f"{theirs}.conv1")
    yield from layer(f"{ours}.level", f"{theirs}.time_emb_proj")
    yield from layer(f"{ours}.norm_out", f"{theirs}.norm2")
    yield from layer(f"{ours}.conv_out", f"{theirs}.conv2")
    if skips:
        yield from layer(f"{ours}.skip", f"{theirs}.conv_shortcut")


def _attention(ours: str, theirs: str) -> Iterator[Rule]:
    yield from layer(f"{ours}.norm", f"{theirs}.group_norm")
    parts = [f"{theirs}.{name}" for name in ("to_q", "to_k", "to_v")]
    yield from joined_layer(f"{ours}.qkv", parts, weight=(Pointwise(2, 0),))
    yield from layer(f"{ours}.out", f"{theirs}.to_out.0", weight=(Pointwise(2, 0),))
