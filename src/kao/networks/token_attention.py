"""Attention of tokens in rows, (B, N, C): among those of a picture, and to those of a text.

Shape letters: B batch, C width of a token, N tokens of a picture, M tokens of a text, T their
width, K heads, D width of a head.
"""

from typing import TypeVar

from torch import Tensor, nn

from kao.networks.attention import HeadNorm, attend
from kao.networks.dropout import Dropout
from kao.networks.positions import rotated

Layer = TypeVar("Layer", nn.Conv2d, nn.Linear)


class SelfAttention(nn.Module):
    """Each token of a picture attends to all of them.

    Args:
        width: Of a token, a multiple of `heads`.
        heads: Attention heads.
        dropout: Share of what was attended to that is dropped, 0..1.
        qk_norm: Norm queries and keys of each head by their root mean square.
    """

    def __init__(self, width: int, *, heads: int, dropout: float, qk_norm: bool):
        super().__init__()
        self.heads = heads
        self.qkv = glorot(nn.Linear(width, 3 * width))
        self.norm_q, self.norm_k = (_head_norm(width // heads, on=qk_norm) for _ in "qk")
        self.dropout = Dropout(dropout)
        self.out = glorot(nn.Linear(width, width))

    def forward(self, h_BNC: Tensor, turn: Tensor | None) -> Tensor:
        """Map (B, N, C) and, with rotary positions, what `rotation` gives, to (B, N, C)."""
        qkv = self.qkv(h_BNC).unflatten(2, (3, self.heads, -1))
        q_BKND, k_BKND, v_BKND = qkv.permute(2, 0, 3, 1, 4).unbind()
        q_BKND, k_BKND = self.norm_q(q_BKND), self.norm_k(k_BKND)
        if turn is not None:
            q_BKND, k_BKND = rotated(q_BKND, turn), rotated(k_BKND, turn)
        mixed: Tensor = self.out(self.dropout(_mixed(q_BKND, k_BKND, v_BKND)))
        return mixed


class CrossAttention(nn.Module):
    """Each token of a picture attends to those of a text (Chen et al. 2023, PixArt-alpha).

    Starts as zero.  There are no biases after the text's tokens, so that tokens of zeros say as
    much as no tokens: nothing.

    Args:
        width: Of a token of a picture, a multiple of `heads`.
        tokens: Width of a token of a text.
        heads: Attention heads.
        dropout: Share of what was attended to that is dropped, 0..1.
        qk_norm: Norm queries and keys of each head by their root mean square.
    """

    def __init__(self, width: int, *, tokens: int, heads: int, dropout: float, qk_norm: bool):
        super().__init__()
        self.heads = heads
        self.q = glorot(nn.Linear(width, width))
        self.kv = glorot(nn.Linear(tokens, 2 * width, bias=False))
        self.norm_q, self.norm_k = (_head_norm(width // heads, on=qk_norm) for _ in "qk")
        self.dropout = Dropout(dropout)
        self.out = nn.Linear(width, width, bias=False)
        nn.init.zeros_(self.out.weight)

    def forward(self, h_BNC: Tensor, tokens_BMT: Tensor) -> Tensor:
        """Map (B, N, C) and (B, M, T) to (B, N, C)."""
        q_BKND = self.q(h_BNC).unflatten(2, (self.heads, -1)).transpose(1, 2)
        kv = self.kv(tokens_BMT).unflatten(2, (2, self.heads, -1))
        k_BKMD, v_BKMD = kv.permute(2, 0, 3, 1, 4).unbind()
        mixed = _mixed(self.norm_q(q_BKND), self.norm_k(k_BKMD), v_BKMD)
        read: Tensor = self.out(self.dropout(mixed))
        return read


def glorot(layer: Layer) -> Layer:
    """The layer with the start of Glorot & Bengio (2010): outputs about as loud as inputs.

    A convolution's kernel counts as the matrix (out, in * k * k): where kernels do not overlap, it
    is a linear layer.
    """
    nn.init.xavier_uniform_(layer.weight.detach().flatten(1))  # a view
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def _head_norm(width: int, *, on: bool) -> nn.Module:
    return HeadNorm(width) if on else nn.Identity()


def _mixed(q_BKND: Tensor, k_BKMD: Tensor, v_BKMD: Tensor) -> Tensor:
    """Attention of all heads, beside each other: (B, N, K D)."""
    return attend(q_BKND.mT, k_BKMD.mT, v_BKMD.mT).permute(0, 3, 1, 2).flatten(2)
