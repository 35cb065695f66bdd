"""What the technique is for: the memory of all gradients but one. Counted exactly, by weak references; no timing.

An implementation may have gradients wait until there are up to 4 MiB of them, and step their parameters by one call.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from inbackward_conformance.adapters.implementation import Implementation
from inbackward_conformance.binding import bind
from inbackward_conformance.plan import Assignment
from inbackward_conformance.plan.need import NOT_COMPARED
from inbackward_conformance.plugin.optimizer_cases import optimizers
from inbackward_conformance.storages import Allocations, GradientBytes, gc_new_objects_only

WIDTH = 16
WIDE = 512  # a layer has 1 MiB of weights
BYTES_OF_A_WEIGHT = 4 * WIDE**2
SGD = Assignment("SGD", {"lr": 0.01, "momentum": 0.9}, need=NOT_COMPARED)
ADAMW = Assignment("AdamW", {"lr": 0.01}, need=NOT_COMPARED)

with_both = optimizers("assignment", [SGD, ADAMW])


def _layers(depth: int, device: str, *, width: int = WIDTH, bias: bool = True) -> nn.Sequential:
    return nn.Sequential(*(nn.Linear(width, width, bias, device=device) for _ in range(depth)))


class Layer(nn.Module):
    """A layer of a class of its own: the `compile()` of torch's own, such as `nn.Linear`, compiles nothing."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """Return the same shape."""
        return torch.tanh(self.linear(features))


class Layers(nn.ModuleList):
    """Layers that are called one after the other."""

    def forward(self, features: Tensor) -> Tensor:
        """Return the same shape."""
        for layer in self:
            features = layer(features)
        return features


def compilable_layers(depth: int, width: int, device: str) -> Layers:
    """Return layers that can be compiled, together or each by itself."""
    return Layers(Layer(width) for _ in range(depth)).to(device)


def _batch(device: str, width: int = WIDTH) -> Tensor:
    return torch.linspace(-1, 1, 4 * width, device=device).reshape(4, width)


@pytest.mark.must
@with_both
def test_peak_of_gradients(implementation: Implementation, device: str, assignment: Assignment) -> None:
    """The peak of simultaneously live gradient bytes does not grow with depth: 32 layers need no more than 8.

    Everything counts that is allocated inside backward, so gradients do that are kept as copies, or elsewhere.
    """
    peaks = {}
    for depth in (8, 32):
        peaks[depth] = _peak_in_backward(implementation, _layers(depth, device, width=WIDE), assignment)
    # A state of small tensors that a step replaces may grow with depth by a few bytes, and is no gradient.
    most = peaks[8] + BYTES_OF_A_WEIGHT // 2
    assert 0 < peaks[32] < most, f"backward takes {peaks[32]} bytes in 32 layers at its peak, {peaks[8]} in 8"


@pytest.mark.should
def test_peak_of_compiled_layers(implementation: Implementation, device: str) -> None:
    """The peak of live gradient bytes does not grow with depth either where `layer.compile()` compiled layer by layer.

    A model that is compiled as a whole returns all gradients at once, which no implementation can change. A SHOULD: not
    every implementation works with compiled code.
    """
    peaks = {}
    for depth in (8, 32):
        model = compilable_layers(depth, WIDE, device)
        peaks[depth] = _peak_in_backward(implementation, model, SGD, compiled=True)
    found = f"{peaks[32]} bytes in 32 compiled layers at its peak, {peaks[8]} in 8"
    assert 0 < peaks[32] <= peaks[8], f"backward takes {found}"


@pytest.mark.must
@with_both
def test_gradients_freed(implementation: Implementation, device: str, assignment: Assignment) -> None:
    """After backward the memory of every gradient is free, not just `.grad` None."""
    optimizer_class, options = bind(implementation, assignment)
    with gc_new_objects_only():
        model = _layers(4, device)
        implementation.attach(model, [(optimizer_class, model.parameters(), dict(options), True)])
        with GradientBytes(model.parameters()) as gradients:
            for _ in range(2):
                implementation.backward(model(_batch(device)).sum(), model)
        gc.collect()
    left = gradients.live_bytes
    assert gradients.peak, "no gradient was seen"
    assert not left, f"{left} bytes of gradients are still alive after backward"


@pytest.mark.must
@with_both
def test_stepped_while_backward_runs(implementation: Implementation, device: str, assignment: Assignment) -> None:
    """A parameter is stepped while backward still runs: when it reaches the first layer, the last ones have changed.

    Of 12 layers the last four have, which are followed by gradients of 7 MiB.
    """
    optimizer_class, options = bind(implementation, assignment)
    model = _layers(12, device, width=WIDE)
    implementation.attach(model, [(optimizer_class, model.parameters(), dict(options), True)])
    before = {name: param.detach().clone() for name, param in model[8:].named_parameters()}
    waiting: list[str] = []

    def reached(_: Tensor) -> None:
        waiting.extend(name for name, param in model[8:].named_parameters() if torch.equal(param, before[name]))

    model[0].register_forward_hook(lambda _layer, _inputs, hidden: hidden.register_hook(reached) and None)
    implementation.backward(model(_batch(device, WIDE)).sum(), model)
    for name, param in model[8:].named_parameters():
        assert name not in waiting, f"{name} of 12 layers is not stepped yet when backward reaches the first layer"
        assert not torch.equal(param, before[name]), f"{name} of 12 layers is not stepped by backward"


@pytest.mark.must
@with_both
def test_no_second_copy(implementation: Implementation, device: str, assignment: Assignment) -> None:
    """Parameters and states exist once: after training no more memory is held than with the standard optimizer.

    An implementation may keep little things, such as learning rates, in tensors: less than one parameter in all.
    """
    optimizer_class, options = bind(implementation, assignment)
    batch = _batch(device)
    held: list[Any] = []

    def standard() -> None:
        optimizer = implementation.standard_optimizer(optimizer_class, model.parameters(), dict(options))
        for _ in range(3):
            model(batch).sum().backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        held.append(optimizer)

    def in_backward() -> None:
        implementation.attach(model, [(optimizer_class, model.parameters(), dict(options), True)])
        for _ in range(3):
            implementation.backward(model(batch).sum(), model)

    model = _layers(4, device, bias=False)
    expected = _bytes_left_by(standard)
    model = _layers(4, device, bias=False)
    found = _bytes_left_by(in_backward)
    smallest = min(param.untyped_storage().nbytes() for param in model.parameters())
    assert found - expected < smallest, f"after three steps {found} bytes are held, {expected} by the standard loop"


def _peak_in_backward(
    implementation: Implementation, model: nn.Module, assignment: Assignment, *, compiled: bool = False
) -> int:
    """Return the most bytes that the second backward holds at one time, of what it has allocated itself."""
    optimizer_class, options = bind(implementation, assignment)
    implementation.attach(model, [(optimizer_class, model.parameters(), dict(options), True)])
    if compiled:
        torch._dynamo.reset()  # noqa: SLF001 (a module that torch documents, whatever its name)
        for layer in model.children():
            layer.compile(backend="aot_eager")
    batch = _batch(str(next(model.parameters()).device), WIDE)
    implementation.backward(model(batch).sum(), model)  # makes the states, which last
    loss = model(batch).sum()
    with Allocations() as allocations:
        implementation.backward(loss, model)
    return int(allocations.peak)


def _bytes_left_by(train: Callable[[], None]) -> int:
    """Return how many bytes are alive of all that was allocated in `train`."""
    allocations = Allocations()
    with gc_new_objects_only():
        with allocations:
            train()
        gc.collect()
    return allocations.storages.live_bytes()
