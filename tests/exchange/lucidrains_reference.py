"""The U-Net of denoising_diffusion_pytorch as a function of its tensors, in all its forms.

Written with the package's names and without a line of kao: it says what an imported network must
say.  The package itself asks for torchvision, whose mere presence breaks others on CPU builds.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch.nn import functional as F


@dataclass(frozen=True)
class Options:
    """The package's options, and how its form was at some version; the defaults are 2.3's."""

    width: int = 16
    first: int = 16
    multiples: tuple[int, ...] = (1, 2)
    channels: int = 3
    outputs: int = 3
    full: tuple[int, ...] = (1,)
    heads: int = 4
    head_width: int = 32
    memory: int = 4
    grouped: bool = False  # GroupNorm in the blocks: before 2.0
    wrapped: bool = False  # attention inside two wrappers: before 1.8
    folded: bool = True  # pixels folded into channels: from 1.0 on
    standardised: bool = False  # before 1.7.2
    layer_norm: bool = False  # before 1.7.0
    mean_values: bool = False  # before 1.7.4


NEWEST = Options()
VERSION_1_9 = Options(grouped=True)
VERSION_1_8 = Options(grouped=True, memory=0, full=())
VERSION_1_7 = Options(
    grouped=True, memory=0, full=(), wrapped=True, standardised=True, mean_values=True
)
VERSION_1_0 = Options(
    grouped=True,
    memory=0,
    full=(),
    wrapped=True,
    standardised=True,
    mean_values=True,
    layer_norm=True,
)
VERSION_0_29 = Options(
    grouped=True,
    memory=0,
    full=(),
    wrapped=True,
    standardised=True,
    mean_values=True,
    layer_norm=True,
    folded=False,
)


def names(o: Options):
    """(name, shape) of each tensor."""
    time, hidden = 4 * o.width, o.heads * o.head_width

    def layer(name, *shape):
        yield f"{name}.weight", shape
        yield f"{name}.bias", shape[:1]

    def norm(name, width):
        if o.grouped:
            yield from layer(name, width)
        else:
            yield f"{name}.g", (1, width, 1, 1)

    def block(name, inputs, width):
        yield from layer(f"{name}.mlp.1", 2 * width, time)
        yield from layer(f"{name}.block1.proj", width, inputs, 3, 3)
        yield from norm(f"{name}.block1.norm", width)
        yield from layer(f"{name}.block2.proj", width, width, 3, 3)
        yield from norm(f"{name}.block2.norm", width)
        if inputs != width:
            yield from layer(f"{name}.res_conv", width, inputs, 1, 1)

    def attention(name, width, full):
        outer, inner = (f"{name}.fn", f"{name}.fn.fn") if o.wrapped else (name, name)
        yield f"{outer}.norm.g", (1, width, 1, 1)
        if o.memory:
            listed = (o.memory, o.head_width) if full else (o.head_width, o.memory)
            yield f"{inner}.mem_kv", (2, o.heads, *listed)
        yield f"{inner}.to_qkv.weight", (3 * hidden, width, 1, 1)
        if full:
            yield from layer(f"{inner}.to_out", width, hidden, 1, 1)
        else:
            yield from layer(f"{inner}.to_out.0", width, hidden, 1, 1)
            yield f"{inner}.to_out.1.g", (1, width, 1, 1)

    widths = [o.first, *(o.width * multiple for multiple in o.multiples)]
    levels = list(enumerate(pairwise(widths)))
    yield from layer("init_conv", o.first, o.channels, 7, 7)
    yield from layer("time_mlp.1", time, o.width)
    yield from layer("time_mlp.3", time, time)
    for i, (above, below) in levels:
        yield from block(f"downs.{i}.0", above, above)
        yield from block(f"downs.{i}.1", above, above)
        yield from attention(f"downs.{i}.2", above, i in o.full)
        if i == len(levels) - 1:
            yield from layer(f"downs.{i}.3", below, above, 3, 3)
        elif o.folded:
            yield from layer(f"downs.{i}.3.1", below, 4 * above, 1, 1)
        else:
            yield from layer(f"downs.{i}.3", below, above, 4, 4)
    yield from block("mid_block1", widths[-1], widths[-1])
    yield from attention("mid_attn", widths[-1], True)
    yield from block("mid_block2", widths[-1], widths[-1])
    for k, (i, (above, below)) in enumerate(reversed(levels)):
        yield from block(f"ups.{k}.0", below + above, below)
        yield from block(f"ups.{k}.1", below + above, below)
        yield from attention(f"ups.{k}.2", below, i in o.full)
        yield from layer(f"ups.{k}.3" if i == 0 else f"ups.{k}.3.1", above, below, 3, 3)
    yield from block("final_res_block", 2 * o.first, o.first)
    yield from layer("final_conv", o.outputs, o.first, 1, 1)


def drawn(options: Options, *, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random tensors, of the spread that torch draws layers with."""
    generator = torch.Generator().manual_seed(seed)

    def tensor(name, shape):
        noise = torch.randn(shape, generator=generator)
        if name.endswith(".g") or (name.endswith(".weight") and len(shape) == 1):
            return 1 + 0.1 * noise
        if name.endswith((".bias", ".mem_kv")):
            return 0.1 * noise if name.endswith(".bias") else noise
        return noise / math.sqrt(3 * math.prod(shape[1:]))

    return {name: tensor(name, shape) for name, shape in names(options)}


def forward(state, options: Options, x, t):
    """What the network says of pictures x (B, C, H, W) at times t (B,)."""
    o = options

    def layer(name, h, **options):
        weight, bias = state[f"{name}.weight"], state.get(f"{name}.bias")
        if weight.ndim == 2:
            return F.linear(h, weight, bias)
        return F.conv2d(h, weight, bias, **options)

    def gained(name, h):
        """The norm over channels of each position."""
        if o.layer_norm:
            h = h - h.mean(dim=1, keepdim=True)
            h = h / (h.square().mean(dim=1, keepdim=True) + 1e-5).sqrt()
        else:
            h = h / h.square().mean(dim=1, keepdim=True).sqrt()
        return h * state[f"{name}.g"]

    def half(name, h):
        """Convolution and norm."""
        weight = state[f"{name}.proj.weight"]
        if o.standardised:
            weight = weight - weight.mean(dim=(1, 2, 3), keepdim=True)
            weight = weight / (weight.square().mean(dim=(1, 2, 3), keepdim=True) + 1e-5).sqrt()
        h = F.conv2d(h, weight, state[f"{name}.proj.bias"], padding=1)
        if o.grouped:
            return F.group_norm(h, 8, state[f"{name}.norm.weight"], state[f"{name}.norm.bias"])
        return h / h.square().mean(dim=1, keepdim=True).sqrt() * state[f"{name}.norm.g"]

    def block(name, h):
        level = layer(f"{name}.mlp.1", F.silu(embedding))[:, :, None, None]
        scale, shift = level.chunk(2, dim=1)
        inner = F.silu(half(f"{name}.block1", h) * (scale + 1) + shift)
        inner = F.silu(half(f"{name}.block2", inner))
        skips = f"{name}.res_conv.weight" in state
        return inner + (layer(f"{name}.res_conv", h) if skips else h)

    def attention(name, h, full):
        outer, inner = (f"{name}.fn", f"{name}.fn.fn") if o.wrapped else (name, name)
        B, _, H, W = h.shape
        qkv = layer(f"{inner}.to_qkv", gained(f"{outer}.norm", h))
        q, k, v = qkv.reshape(B, 3, o.heads, o.head_width, H * W).unbind(1)
        if o.mean_values and not full:
            v = v / (H * W)
        if o.memory:
            more = state[f"{inner}.mem_kv"].expand(B, -1, -1, -1, -1)
            more = more.mT if full else more
            k, v = torch.cat([more[:, 0], k], dim=-1), torch.cat([more[:, 1], v], dim=-1)
        if full:
            share = torch.einsum("bkdn,bkdm->bknm", q, k) / math.sqrt(o.head_width)
            mixed = torch.einsum("bknm,bkdm->bkdn", share.softmax(-1), v)
        else:
            q, k = q.softmax(dim=2) / math.sqrt(o.head_width), k.softmax(dim=3)
            context = torch.einsum("bkdm,bkem->bkde", k, v)
            mixed = torch.einsum("bkde,bkdn->bken", context, q)
        mixed = mixed.reshape(B, -1, H, W)
        if full:
            return h + layer(f"{inner}.to_out", mixed)
        return h + gained(f"{inner}.to_out.1", layer(f"{inner}.to_out.0", mixed))

    half_width = o.width // 2
    frequency = torch.exp(-math.log(10_000) / (half_width - 1) * torch.arange(half_width))
    angle = t[:, None] * frequency
    embedding = layer("time_mlp.1", torch.cat([angle.sin(), angle.cos()], dim=1))
    embedding = layer("time_mlp.3", F.gelu(embedding))

    last = len(o.multiples) - 1
    h = start = layer("init_conv", x, padding=3)
    kept = []
    for i in range(last + 1):
        h = block(f"downs.{i}.0", h)
        kept.append(h)
        h = attention(f"downs.{i}.2", block(f"downs.{i}.1", h), i in o.full)
        kept.append(h)
        if i == last:
            h = layer(f"downs.{i}.3", h, padding=1)
        elif o.folded:
            B, C, H, W = h.shape
            h = h.reshape(B, C, H // 2, 2, W // 2, 2).permute(0, 1, 3, 5, 2, 4)
            h = layer(f"downs.{i}.3.1", h.reshape(B, 4 * C, H // 2, W // 2))
        else:
            h = layer(f"downs.{i}.3", h, stride=2, padding=1)
    h = block("mid_block1", h)
    h = block("mid_block2", attention("mid_attn", h, True))
    for k in range(last + 1):
        i = last - k
        h = block(f"ups.{k}.0", torch.cat([h, kept.pop()], dim=1))
        h = block(f"ups.{k}.1", torch.cat([h, kept.pop()], dim=1))
        h = attention(f"ups.{k}.2", h, i in o.full)
        if i > 0:
            h = h.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
            h = layer(f"ups.{k}.3.1", h, padding=1)
        else:
            h = layer(f"ups.{k}.3", h, padding=1)
    return layer("final_conv", block("final_res_block", torch.cat([h, start], dim=1)))
