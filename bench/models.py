"""The models that are trained, each with a batch. Their forward returns the loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Callable


class Chain(nn.Module):
    """Square Linear layers one after the other; orthogonal, so that neither values nor gradients vanish."""

    def __init__(self, layers: int, width: int, *, bias: bool) -> None:
        super().__init__()
        self.layers = nn.Sequential(*[nn.Linear(width, width, bias=bias) for _ in range(layers)])
        for param in self.parameters():
            (nn.init.orthogonal_ if param.dim() > 1 else nn.init.zeros_)(param)

    def forward(self, batch: Tensor) -> Tensor:
        """Return the mean square of the last layer's output."""
        output: Tensor = self.layers(batch)
        return output.square().mean()


class Block(nn.Module):
    """A layer of GPT-2: attention and a feed-forward network, each after a LayerNorm."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.feed_forward = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, hidden: Tensor) -> Tensor:
        """Return the hidden states after this layer."""
        every = self.query_key_value(self.norm_1(hidden)).unflatten(-1, (3, self.heads, -1))
        query, key, value = every.permute(2, 0, 3, 1, 4).unbind()
        attended = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        hidden = hidden + self.project(attended.transpose(1, 2).flatten(2))
        output: Tensor = hidden + self.feed_forward(self.norm_2(hidden))
        return output


class Transformer(nn.Module):
    """A language model in the shape of GPT-2; the embedding is also the output layer."""

    def __init__(self, layers: int, width: int, heads: int, vocabulary: int, context: int) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
        self.blocks = nn.Sequential(*[Block(width, heads) for _ in range(layers)])
        self.norm = nn.LayerNorm(width)
        for param in self.parameters():
            if param.dim() > 1:
                nn.init.normal_(param, std=0.02)

    def forward(self, batch: Tensor) -> Tensor:
        """Return the mean cross entropy of each token given those before it."""
        places = torch.arange(batch.shape[1] - 1, device=batch.device)
        hidden = self.norm(self.blocks(self.tokens(batch[:, :-1]) + self.positions(places)))
        logits = nn.functional.linear(hidden, self.tokens.weight)
        return nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())


@dataclass(frozen=True)
class Workload:
    """A model and its batch.

    Attributes:
        label: The model in a few words.
        build: Makes the model, with random values.
        batch: Makes the batch.
    """

    label: str
    build: Callable[[], nn.Module]
    batch: Callable[[], Tensor]


VOCABULARY, CONTEXT = 8192, 16

WORKLOADS = {
    "small": Workload("200 small", lambda: Chain(100, 16, bias=True), lambda: torch.randn(8, 16)),
    "mid": Workload("96 of 256²", lambda: Chain(96, 256, bias=False), lambda: torch.randn(8, 256)),
    "large": Workload("12 of 1024²", lambda: Chain(12, 1024, bias=False), lambda: torch.randn(8, 1024)),
    "gpt": Workload(
        "GPT-2 small",
        lambda: Transformer(12, 768, 12, VOCABULARY, CONTEXT),
        lambda: torch.randint(VOCABULARY, (1, CONTEXT + 1)),
    ),
}
