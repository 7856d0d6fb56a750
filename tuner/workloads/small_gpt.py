"""A small decoder-only transformer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_INITIAL_STD = 0.02


class SmallGPT(nn.Module):
    """Transformer blocks with causal attention, normalised before each part (Radford et al. 2019).

    The output layer shares the embedding's weights (Press and Wolf 2017).

    Args:
        num_symbols: Size of the vocabulary.
        width: Features of a position.
        depth: Blocks.
        heads: Attention heads; divides `width`.
        context: Longest window.
    """

    def __init__(self, *, num_symbols: int, width: int, depth: int, heads: int, context: int) -> None:
        super().__init__()
        self.symbol = nn.Embedding(num_symbols, width)
        self.position = nn.Embedding(context, width)
        self.blocks = nn.Sequential(*(_Block(width, heads) for _ in range(depth)))
        self.last_normalization = nn.LayerNorm(width)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=_INITIAL_STD)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
        for name, parameter in self.named_parameters():
            # Each block adds to the residual stream twice: without this its variance grows with depth.
            if name.endswith("out.weight"):
                nn.init.normal_(parameter, std=_INITIAL_STD / (2 * depth) ** 0.5)

    def forward(self, symbols: Tensor) -> Tensor:
        """Scores of the next symbol, `(num_windows, length, num_symbols)`, from `(num_windows, length)`."""
        positions = torch.arange(symbols.shape[1], device=symbols.device)
        features = self.blocks(self.symbol(symbols) + self.position(positions))
        return nn.functional.linear(self.last_normalization(features), self.symbol.weight)


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention_normalization = nn.LayerNorm(width)
        self.attention = _CausalAttention(width, heads)
        self.feed_forward_normalization = nn.LayerNorm(width)
        self.feed_forward = _FeedForward(width)

    def forward(self, features: Tensor) -> Tensor:
        attended: Tensor = features + self.attention(self.attention_normalization(features))
        added: Tensor = self.feed_forward(self.feed_forward_normalization(attended))
        return attended + added


class _CausalAttention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.projected = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, features: Tensor) -> Tensor:
        num_windows, length, width = features.shape
        projected = self.projected(features).view(num_windows, length, 3, self.heads, width // self.heads)
        query, key, value = projected.permute(2, 0, 3, 1, 4)
        attended = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        joined: Tensor = self.out(attended.transpose(1, 2).reshape(num_windows, length, width))
        return joined


class _FeedForward(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(width, 4 * width)
        self.out = nn.Linear(4 * width, width)

    def forward(self, features: Tensor) -> Tensor:
        out: Tensor = self.out(nn.functional.gelu(self.hidden(features)))
        return out
