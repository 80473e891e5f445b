"""The magnitude-preserving U-Net of Karras et al. (2024a), configuration G.

The layout is ADM's (Dhariwal & Nichol 2021); what differs is that no layer can change the magnitude
of what passes through it: see `magnitude`.  There are no norms with gains and no biases, so nothing
grows in training, and the learning rate alone says how fast the network changes: it wants Adam
without weight decay, at a rate of about 0.01 that falls as 1 / sqrt(images), and an input of
magnitude 1 (`input_scaling`, or the EDM target).

A block on the way down brings its input to magnitude 1 at every pixel; one on the way up joins a
kept map.  The last convolution has a learned gain that starts at zero, where the weights of other
networks' last layer are zero themselves.

Classes start as nothing too, so that a network can be taught them later: their embedding is added
to that of the noise level and the sum brought to magnitude 1, where the paper weighs two
embeddings of magnitude 1 alike.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kao.networks.attention import attend
from kao.networks.conditions import NOTHING, Conditions, Takes, placed, told
from kao.networks.dropout import Dropout
from kao.networks.magnitude import (
    MPConv,
    MPFourier,
    MPLinear,
    mp_cat,
    mp_silu,
    mp_sum,
    pixel_norm,
    renormalise,
    unit,
)
from kao.networks.recompute import Part
from kao.networks.sides import refuse_unfit

if TYPE_CHECKING:
    # Only named here: the configuration builds the network.
    from kao.networks.edm2_config import EDM2Config

_BRANCH = 0.3
"""Share of a residual or attention branch in its sum; Karras et al. (2024a), table 6."""

_LARGEST = 256.0
"""Beyond it activations are cut in fp16, as published."""


class MPBlock(nn.Module):
    """SiLU, convolution, twice, with the noise level in between, around a skip.

    Args:
        inputs, outputs: Channels.
        embedding: Width of the level's embedding.
        dropout: Share of activations dropped before the second convolution, 0..1.
        normed: On the way down, where the skip changes the channels first and every pixel is
            brought to magnitude 1; on the way up the skip is changed for the sum only.
        resample: Module that halves or doubles the size first, without parameters.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        embedding: int,
        dropout: float,
        normed: bool,
        resample: nn.Module | None = None,
    ):
        super().__init__()
        self.normed = normed
        self.resample = resample if resample is not None else nn.Identity()
        self.skip = MPConv(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        self.conv_in = MPConv(outputs if normed else inputs, outputs, 3)
        self.level = MPLinear(embedding, outputs)
        self.gain = nn.Parameter(torch.zeros(1))
        self.dropout = Dropout(dropout)
        self.conv_out = MPConv(outputs, outputs, 3)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Map (B, inputs, H, W) and (B, E) to (B, outputs, H', W')."""
        x = self.resample(x)
        if self.normed:
            x = pixel_norm(self.skip(x))
        scale = 1 + self.level(embedding) * self.gain
        h = self.conv_in(mp_silu(x))
        h = mp_silu(h * scale[:, :, None, None].to(h.dtype))
        h = self.conv_out(self.dropout(h))
        return mp_sum(x if self.normed else self.skip(x), h, _BRANCH)


class MPAttention(nn.Module):
    """Self-attention with queries, keys and values of magnitude 1, around a skip.

    Products of queries and keys are cosines times sqrt(D) so, and softmax cannot saturate.

    Args:
        channels: Channels, a multiple of `head_width`.
        head_width: Channels of a head, D.
    """

    def __init__(self, channels: int, *, head_width: int):
        super().__init__()
        self.head_width = head_width
        self.qkv = MPConv(channels, 3 * channels, 1)
        self.out = MPConv(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        B, C, H, W = x.shape
        heads = C // self.head_width
        qkv = self.qkv(x).reshape(B, 3, heads, self.head_width, H * W)
        seen = attend(*unit(qkv, (3,)).unbind(1)).reshape(B, C, H, W)
        return mp_sum(x, self.out(seen), _BRANCH)


class MPStage(nn.Module):
    """A block, and attention or nothing behind it.

    Args:
        block: The block.
        attention: Applied after it; None: nothing is.
        joins: Whether a kept output of the way down is put beside the input first.
    """

    def __init__(
        self, block: MPBlock, attention: MPAttention | None = None, *, joins: bool = False
    ):
        super().__init__()
        self.block = block
        self.attention = attention if attention is not None else nn.Identity()
        self.joins = joins

    def forward(self, h: Tensor, embedding: Tensor, kept: Tensor | None = None) -> Tensor:
        """Map (B, C, H, W), (B, E) and, where it joins, (B, K, H, W) to (B, C', H', W')."""
        if kept is not None:
            h = mp_cat(h, kept)
        h = self.attention(self.block(h, embedding))
        return h.clamp(-_LARGEST, _LARGEST) if h.dtype == torch.float16 else h


class EDM2(nn.Module):
    """A magnitude-preserving U-Net; see the module's docstring and EDM2Config.

    In training mode each forward pass starts by bringing the weights back to magnitude 1 in place,
    which depends on them alone.  Under training.parallel = "fsdp" that reaches the blocks; the
    outer layers, whose gathered weights are thrown away after the pass, are brought to it as all
    are in drawing: in passing.

    Args:
        config: Checked options.
        channels: Of the pictures.
        size: Of the pictures, in pixels; decides where attention goes.
        outputs: Channels of what it says.
        takes: What it can be told beside the noise level.
    """

    def __init__(
        self, config: "EDM2Config", *, channels: int, size: int, outputs: int, takes: Takes
    ):
        super().__init__()
        self.stem, self.multiple, self.takes = config.stem, config.multiple, takes
        widths = [config.width * multiple for multiple in config.levels]
        sizes = config.sizes(size)
        embedding = max(widths)

        def block(
            inputs: int, outputs: int, *, normed: bool, resample: nn.Module | None = None
        ) -> MPBlock:
            return MPBlock(
                inputs,
                outputs,
                embedding=embedding,
                dropout=config.dropout,
                normed=normed,
                resample=resample,
            )

        def attention(channels: int, at: int) -> MPAttention | None:
            if at not in config.attention:
                return None
            return MPAttention(channels, head_width=config.head_width)

        self.embed = nn.Sequential(MPFourier(config.width), MPLinear(config.width, embedding))
        # One more channel, of ones, is what biases would be.
        seen = takes.channels(channels) * config.stem**2 + 1
        self.conv_in = MPConv(seen, widths[0], 3)

        kept = [widths[0]]
        self.down = nn.ModuleList()
        for i, (width, at) in enumerate(zip(widths, sizes, strict=True)):
            if i > 0:
                halved = block(kept[-1], kept[-1], normed=True, resample=nn.AvgPool2d(2))
                self.down.append(MPStage(halved))
                kept.append(kept[-1])
            for _ in range(config.blocks):
                body = block(kept[-1], width, normed=True)
                self.down.append(MPStage(body, attention(width, at)))
                kept.append(width)

        current = widths[-1]
        self.middle = nn.ModuleList(
            MPStage(block(current, current, normed=False), mixed)
            for mixed in (MPAttention(current, head_width=config.head_width), None)
        )

        self.up = nn.ModuleList()
        for i, (width, at) in reversed(list(enumerate(zip(widths, sizes, strict=True)))):
            for _ in range(config.blocks + 1):
                body = block(current + kept.pop(), width, normed=False)
                self.up.append(MPStage(body, attention(width, at), joins=True))
                current = width
            if i > 0:
                double = nn.Upsample(scale_factor=2, mode="nearest")
                doubled = block(current, current, normed=False, resample=double)
                self.up.append(MPStage(doubled))

        self.conv_out = MPConv(current, outputs * config.stem**2, 3, gained=True)

        self.augmented = takes.augmented(embedding)
        self.classes = takes.named(embedding)
        renormalise(self)

    def forward(self, x: Tensor, label: Tensor, condition: Conditions | None = None) -> Tensor:
        """Map pictures and their noise labels to what the target asks for.

        Args:
            x: (B, C, H, W), of magnitude 1 or about.
            label: (B,), float32, about 0..1000.
            condition: What it is told beside them; None: nothing.

        Returns:
            (B, outputs, H, W).

        Raises:
            ConfigError: It tells of what the network was not built for, or the sides do not fit.
        """
        given = NOTHING if condition is None else condition
        self.takes.refuse_unheard(given)
        refuse_unfit(x, self.multiple)
        if self.training:
            renormalise(self)
        embedding = told(self.embed(label), given, augmented=self.augmented, classes=self.classes)
        embedding = unit(embedding, (1,))
        embedding = mp_silu(embedding)

        if self.takes.coordinates:
            x = placed(x, given.where)
        x = F.pixel_unshuffle(x, self.stem)
        h = self.conv_in(torch.cat([x, torch.ones_like(x[:, :1])], dim=1))
        kept = [h]
        for stage in self.down:
            h = stage(h, embedding)
            kept.append(h)

        for stage in self.middle:
            h = stage(h, embedding)

        for stage in self.up:
            h = stage(h, embedding, kept.pop() if stage.joins else None)

        return F.pixel_shuffle(self.conv_out(h), self.stem)

    def blocks(self) -> list[Part]:
        """The residual blocks."""
        return [Part(module) for module in self.modules() if isinstance(module, MPBlock)]

    def parts(self) -> list[Part]:
        """The stages."""
        return [Part(stage) for stage in (*self.down, *self.middle, *self.up)]
