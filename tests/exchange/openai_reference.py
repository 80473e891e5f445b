"""The U-Net of improved-diffusion and guided-diffusion as a function of its tensors.

Written from Nichol & Dhariwal (2021) and Dhariwal & Nichol (2021), with the programs' names, and
without a line of kao: it says what an imported network must say.
"""

import math
from dataclasses import dataclass

import torch
from torch.nn import functional as F


@dataclass(frozen=True)
class Options:
    """The programs' options: (attention) by level, `channels` and `outputs` of the pictures."""

    width: int = 64
    multiples: tuple[int, ...] = (1, 2)
    blocks: int = 1
    attention: tuple[int, ...] = (1,)
    heads: int = 2
    new_order: bool = False
    film: bool = True
    residual: bool = False
    classes: int = 0
    channels: int = 3
    outputs: int = 3


def names(options: Options):
    """(name, shape) of each tensor."""
    o, e = options, 4 * options.width

    def layer(name, *shape):
        yield f"{name}.weight", shape
        yield f"{name}.bias", shape[:1]

    def block(name, inputs, width):
        yield from layer(f"{name}.in_layers.0", inputs)
        yield from layer(f"{name}.in_layers.2", width, inputs, 3, 3)
        yield from layer(f"{name}.emb_layers.1", (1 + o.film) * width, e)
        yield from layer(f"{name}.out_layers.0", width)
        yield from layer(f"{name}.out_layers.3", width, width, 3, 3)
        if inputs != width:
            yield from layer(f"{name}.skip_connection", width, inputs, 1, 1)

    def attention(name, width):
        yield from layer(f"{name}.norm", width)
        yield from layer(f"{name}.qkv", 3 * width, width, 1)
        yield from layer(f"{name}.proj_out", width, width, 1)

    yield from layer("time_embed.0", e, o.width)
    yield from layer("time_embed.2", e, e)
    if o.classes:
        yield "label_emb.weight", (o.classes, e)
    yield from layer("input_blocks.0.0", o.width, o.channels, 3, 3)
    kept, current, at = [o.width], o.width, 1
    last = len(o.multiples) - 1
    for level, multiple in enumerate(o.multiples):
        width = multiple * o.width
        for _ in range(o.blocks):
            yield from block(f"input_blocks.{at}.0", current, width)
            if level in o.attention:
                yield from attention(f"input_blocks.{at}.1", width)
            current, at = width, at + 1
            kept.append(current)
        if level < last:
            if o.residual:
                yield from block(f"input_blocks.{at}.0", current, current)
            else:
                yield from layer(f"input_blocks.{at}.0.op", current, current, 3, 3)
            kept.append(current)
            at += 1
    yield from block("middle_block.0", current, current)
    yield from attention("middle_block.1", current)
    yield from block("middle_block.2", current, current)
    at = 0
    for level, multiple in reversed(list(enumerate(o.multiples))):
        width = multiple * o.width
        for i in range(o.blocks + 1):
            yield from block(f"output_blocks.{at}.0", current + kept.pop(), width)
            place, current = 1, width
            if level in o.attention:
                yield from attention(f"output_blocks.{at}.1", width)
                place = 2
            if level > 0 and i == o.blocks:
                if o.residual:
                    yield from block(f"output_blocks.{at}.{place}", width, width)
                else:
                    yield from layer(f"output_blocks.{at}.{place}.conv", width, width, 3, 3)
            at += 1
    yield from layer("out.0", current)
    yield from layer("out.2", o.outputs, current, 3, 3)


def drawn(options: Options, *, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random tensors, of a size that keeps signals near one."""
    generator = torch.Generator().manual_seed(seed)

    def tensor(name, shape):
        noise = torch.randn(shape, generator=generator)
        if len(shape) == 1:
            norm = ".weight" in name
            return 0.1 * noise + (1.0 if norm else 0.0)
        return noise / math.sqrt(math.prod(shape[1:]))

    return {name: tensor(name, shape) for name, shape in names(options)}


def forward(state, options: Options, x, t, y=None):
    """What the network says of pictures x (B, C, H, W) at times t (B,) of classes y (B,)."""
    o = options

    def layer(name, h, **options):
        weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
        if weight.ndim == 2:
            return F.linear(h, weight, bias)
        convolve = F.conv1d if weight.ndim == 3 else F.conv2d
        return convolve(h, weight, bias, **options)

    def norm(name, h):
        return F.group_norm(h, 32, state[f"{name}.weight"], state[f"{name}.bias"])

    def block(name, h, resampled=lambda h: h):
        inner = resampled(F.silu(norm(f"{name}.in_layers.0", h)))
        inner = layer(f"{name}.in_layers.2", inner, padding=1)
        level = layer(f"{name}.emb_layers.1", F.silu(embedding))[:, :, None, None]
        if o.film:
            scale, shift = level.chunk(2, dim=1)
            inner = norm(f"{name}.out_layers.0", inner) * (1 + scale) + shift
        else:
            inner = norm(f"{name}.out_layers.0", inner + level)
        inner = layer(f"{name}.out_layers.3", F.silu(inner), padding=1)
        h = resampled(h)
        skips = f"{name}.skip_connection.weight" in state
        return inner + (layer(f"{name}.skip_connection", h) if skips else h)

    def attention(name, h):
        flat = h.flatten(2)
        B, C, N = flat.shape
        qkv = layer(f"{name}.qkv", norm(f"{name}.norm", flat))
        if o.new_order:
            q, k, v = qkv.reshape(B, 3, o.heads, C // o.heads, N).unbind(1)
        else:
            q, k, v = qkv.reshape(B, o.heads, 3, C // o.heads, N).unbind(2)
        share = (q.mT @ k / math.sqrt(C // o.heads)).softmax(-1)  # (B, K, N, M)
        mixed = (v @ share.mT).reshape(B, C, N)
        return (flat + layer(f"{name}.proj_out", mixed)).reshape(h.shape)

    def doubled(h):
        return h.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)

    frequency = 10_000 ** (-torch.arange(o.width // 2) / (o.width // 2))
    angle = t[:, None] * frequency
    embedding = layer("time_embed.0", torch.cat([angle.cos(), angle.sin()], dim=1))
    embedding = layer("time_embed.2", F.silu(embedding))
    if o.classes:
        embedding = embedding + state["label_emb.weight"][y]

    h = layer("input_blocks.0.0", x, padding=1)
    kept, at = [h], 1
    for level in range(len(o.multiples)):
        for _ in range(o.blocks):
            h = block(f"input_blocks.{at}.0", h)
            if level in o.attention:
                h = attention(f"input_blocks.{at}.1", h)
            kept.append(h)
            at += 1
        if level < len(o.multiples) - 1:
            if o.residual:
                h = block(f"input_blocks.{at}.0", h, lambda h: F.avg_pool2d(h, 2))
            else:
                h = layer(f"input_blocks.{at}.0.op", h, stride=2, padding=1)
            kept.append(h)
            at += 1
    h = block("middle_block.0", h)
    h = attention("middle_block.1", h)
    h = block("middle_block.2", h)
    at = 0
    for level in reversed(range(len(o.multiples))):
        for i in range(o.blocks + 1):
            h = block(f"output_blocks.{at}.0", torch.cat([h, kept.pop()], dim=1))
            place = 1
            if level in o.attention:
                h = attention(f"output_blocks.{at}.1", h)
                place = 2
            if level > 0 and i == o.blocks:
                if o.residual:
                    h = block(f"output_blocks.{at}.{place}", h, doubled)
                else:
                    h = layer(f"output_blocks.{at}.{place}.conv", doubled(h), padding=1)
            at += 1
    return layer("out.2", F.silu(norm("out.0", h)), padding=1)
