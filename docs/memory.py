"""Counts what is in memory during one step of training, in the standard loop and with the optimizer in backward."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import nn

import inbackward
from inbackward_conformance.storages import Allocations

LAYERS, WIDTH = 16, 512  # a layer has 1 MiB of parameters
BATCH = 128  # and its input a quarter of that
MIB = 2**20
KINDS = ("parameters", "optimizer state", "activations", "gradients")


@dataclass
class Step:
    """What was alive in one step.

    Attributes:
        sizes: For each kind, the MiB at each moment.
        phases: The name of each phase, and the moment at which it begins.
    """

    sizes: dict[str, list[float]] = field(default_factory=lambda: {kind: [] for kind in KINDS})
    phases: dict[str, int] = field(default_factory=dict)

    @property
    def moments(self) -> int:
        """The number of moments."""
        return len(self.sizes["gradients"])

    def peak(self, kind: str) -> float:
        """Return the most MiB of a kind at any moment."""
        return max(self.sizes[kind])

    @property
    def peak_of_all(self) -> float:
        """The most MiB at any moment."""
        return max(map(sum, zip(*self.sizes.values(), strict=True)))


class Recorder:
    """Records what is alive whenever a layer has run, forward or backward, and a parameter may have been stepped."""

    def __init__(self, layers: nn.Sequential, optimizer: torch.optim.Optimizer, allocations: Allocations) -> None:
        self.step = Step()
        self._layers = layers
        self._optimizer = optimizer
        self._allocations = allocations

    def begin(self, phase: str) -> None:
        """Begin a phase."""
        self.step.phases[phase] = self.step.moments
        self.record()

    def record(self, *_: object) -> None:
        """Record this moment."""
        params = list(self._layers.parameters())
        states = [value for state in self._optimizer.state.values() for value in state.values()]
        gradients = [param.grad for param in params if param.grad is not None]
        found = {"parameters": params, "optimizer state": states, "gradients": gradients}
        sizes = {kind: sum(each.untyped_storage().nbytes() for each in tensors) for kind, tensors in found.items()}
        # All else that operators have allocated in this step. Parameters and state were allocated before it.
        sizes["activations"] = self._allocations.storages.live_bytes() - sizes["gradients"]
        for kind in KINDS:
            self.step.sizes[kind].append(sizes[kind] / MIB)


def count(bucket_bytes: int | None) -> Step:
    """Return the third step of a chain of Linear layers with AdamW.

    Args:
        bucket_bytes: The bucket of `inbackward.step_in_backward`; None for the standard loop.
    """
    torch.manual_seed(0)
    layers = nn.Sequential(*(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(LAYERS)))
    optimizer = torch.optim.AdamW(layers.parameters(), lr=1e-3, fused=True)
    if bucket_bytes is not None:
        inbackward.step_in_backward(optimizer, bucket_bytes)
    batch = torch.randn(BATCH, WIDTH)
    for _ in range(2):  # the state is there from the first step on
        layers(batch).sum().backward()
        if bucket_bytes is None:
            optimizer.step()
            optimizer.zero_grad()
    with Allocations() as allocations:
        recorder = Recorder(layers, optimizer, allocations)
        for layer in layers:
            layer.register_forward_hook(recorder.record)
        for param in layers.parameters():
            param.register_post_accumulate_grad_hook(recorder.record)
        recorder.begin("forward")
        loss: torch.Tensor = layers(batch).sum()
        recorder.begin("backward")
        loss.backward()
        recorder.record()
        if bucket_bytes is None:
            recorder.begin("step, zero_grad")
            optimizer.step()
            recorder.record()
            optimizer.zero_grad()
            recorder.record()
    return recorder.step
