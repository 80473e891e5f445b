"""Attention over feature maps whose cost grows with the map and not with its square.

Shape letters: B batch, C channels, H and W height and width, N = H W positions, K heads,
D width of a head, M remembered keys and values.
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kao.networks.attention import attend

Norm = Literal["layer", "rms"]

_EPSILON = 1e-5


class ChannelNorm(nn.Module):
    """Norm over the channels of each position by itself, with a gain; computed in float32.

    Args:
        channels: Channels.
        kind: "layer": mean 0 and variance 1 (Ba et al. 2016); "rms": mean square 1 (Zhang &
            Sennrich 2019).
    """

    def __init__(self, channels: int, kind: Norm):
        super().__init__()
        self.kind = kind
        self.gain = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape and dtype."""
        # A difference of a large mean has few digits in bf16, and what is added to the length of
        # zeros is lost in fp16.
        h = x.float()
        if self.kind == "layer":
            variance, mean = torch.var_mean(h, dim=1, correction=0, keepdim=True)
            h = (h - mean) * (variance + _EPSILON).rsqrt()
        else:
            h = F.normalize(h, dim=1) * math.sqrt(h.shape[1])
        return (h * self.gain[:, None, None]).to(x.dtype)


def linear_attention(q_BKDN: Tensor, k_BKDM: Tensor, v_BKDM: Tensor) -> Tensor:
    """Attention by way of D x D products in the place of N x M ones; returns (B, K, D, N).

    With softmax over the channels of each query and over the positions of each key channel, row n
    of softmax(q)^T softmax(k) is a distribution over positions as the rows of softmax(q^T k) are,
    and the product of the three matrices can start from the right (Shen et al. 2021, eq. 3;
    Katharopoulos et al. 2020, eq. 5).  Scaled by 1 / sqrt(D).
    """
    q = q_BKDN.softmax(-2) * q_BKDN.shape[-2] ** -0.5
    context_BKDD = v_BKDM @ k_BKDM.softmax(-1).mT
    return context_BKDD @ q


class MapAttention(nn.Module):
    """Norm, then attention of all positions to all, around a skip.

    Args:
        channels: Of the map.
        linear: `linear_attention`, with a norm behind it, or softmax attention.
        heads: Attention heads.
        head_width: Channels of each.
        memory: Keys and values that are learned, beside those of the map.
        norm: Before the attention, and behind a linear one.
        mean_values: Divide the values of linear attention by the number of positions.
    """

    def __init__(
        self,
        channels: int,
        *,
        linear: bool,
        heads: int,
        head_width: int,
        memory: int,
        norm: Norm,
        mean_values: bool,
    ):
        super().__init__()
        self.linear, self.heads, self.mean_values = linear, heads, mean_values
        self.norm_in = ChannelNorm(channels, norm)
        self.qkv = nn.Conv2d(channels, 3 * heads * head_width, 1, bias=False)
        self.memory = nn.Parameter(torch.randn(2, heads, head_width, memory)) if memory else None
        self.out = nn.Conv2d(heads * head_width, channels, 1)
        self.norm_out = ChannelNorm(channels, norm) if linear else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        B, _, H, W = x.shape
        q, k, v = self.qkv(self.norm_in(x)).reshape(B, 3, self.heads, -1, H * W).unbind(1)
        if self.mean_values and self.linear:
            v = v / (H * W)
        if self.memory is not None:
            k_KDM, v_KDM = self.memory.to(k.dtype)
            k = torch.cat([k_KDM.expand(B, -1, -1, -1), k], dim=-1)
            v = torch.cat([v_KDM.expand(B, -1, -1, -1), v], dim=-1)
        mixed = linear_attention(q, k, v) if self.linear else attend(q, k, v)
        return x + self.norm_out(self.out(mixed.reshape(B, -1, H, W)))
