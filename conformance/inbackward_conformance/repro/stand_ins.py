"""Short definitions for scripts, which replace the suite's own with their detailed messages.

`body_script.STAND_INS` maps the suite's own definitions to these.
"""

from __future__ import annotations

import copy
import inspect
import tempfile
from contextlib import contextmanager
from datetime import timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import nn

from inbackward_conformance.accident import is_accidental
from inbackward_conformance.catalogue.models import MLP

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from torch import Tensor
    from torch.optim import Optimizer

    from inbackward_conformance.adapters.implementation import Implementation

    implementation = Implementation(None)
    """Scripts have the implementation's own calls instead."""


@contextmanager
def rejected(
    model: nn.Module, listed: Callable[[nn.Module], list[Any]], what: str, as_in: Callable[[], object] | None = None
) -> Iterator[None]:
    """Require that the body raises an error on purpose, or the same error as torch, and attaches nothing."""
    before = list(map(id, listed(model)))
    try:
        yield
    except Exception as error:
        if is_accidental(error) and str(error) != _error_of(as_in):
            raise
        print(f"{what} is rejected: {type(error).__name__}: {error}")
    else:
        raise AssertionError(f"{what} is accepted")
    assert list(map(id, listed(model))) == before, f"{what} is rejected, but something is attached"


def _error_of(call: Callable[[], object] | None) -> str:
    try:
        if call:
            call()
    except Exception as error:  # noqa: BLE001 (torch may raise any error)
        return str(error)
    return ""


def observed(
    event: str,
    model: nn.Module,
    optimizers: Iterable[Optimizer],
    state_of: Callable[[Optimizer, Tensor], Any],
) -> dict[str, Any]:
    """Return the parameters and optimizer states, by name."""
    found: dict[str, Any] = {"event": event}
    for name, param in model.named_parameters():
        found[f"parameter {name!r}"] = param.detach().clone()
        states = [state_of(optimizer, param) for optimizer in optimizers if param in optimizer.state]
        for number, state in enumerate(states):
            for path, leaf in leaves(state, f"state {number} of {name!r}").items():
                found[path] = leaf.detach().clone() if isinstance(leaf, torch.Tensor) else leaf
    return found


def snapshot_difference(expected: dict[str, Any], actual: dict[str, Any], tolerance: float = 0.0) -> str:
    """Return what differs between two snapshots; empty if nothing does."""
    if expected.keys() != actual.keys():
        return f"there are {list(actual)}, expected {list(expected)}"
    for name in [*expected][1:]:
        try:
            assert_alike(actual[name], expected[name], f"after {actual['event']}, {name}", tolerance)
        except AssertionError as error:
            return str(error)
    return ""


def leaves(value: Any, path: str = "", within: tuple[int, ...] = ()) -> dict[str, Any]:
    """Return what a value is made of, by path; an object is made of its attributes."""
    if isinstance(value, torch.Tensor):
        return {path: value}
    if id(value) in within or inspect.ismodule(value):
        return {}
    if isinstance(value, dict):
        parts = {f"[{key!r}]": part for key, part in value.items()}
    elif isinstance(value, list | tuple):
        parts = {f"[{number}]": part for number, part in enumerate(value)}
    else:
        names = [*getattr(value, "__dict__", ()), *getattr(value, "__slots__", ())]
        parts = {f".{name}": getattr(value, name) for name in names if hasattr(value, name)}
    inner = [leaves(part, path + place, (*within, id(value))) for place, part in parts.items()]
    return {path: leaf for each in inner for path, leaf in each.items()} if parts else {path: value}


def tensors_in(value: Any) -> list[Tensor]:
    """Return each tensor that a value is made of, once."""
    return list({id(leaf): leaf for leaf in leaves(value).values() if isinstance(leaf, torch.Tensor)}.values())


def assert_alike(actual: Any, expected: Any, where: str, tolerance: float = 0.0) -> None:
    """Require that two values are equal in every tensor, number and text that they are made of."""
    actual, expected = leaves(actual), leaves(expected)
    assert actual.keys() == expected.keys(), f"{where}: there are {list(actual)}, expected {list(expected)}"
    for path, value in expected.items():
        if isinstance(value, torch.Tensor | float | complex):
            number = torch.as_tensor(value)
            rounded = number.numel() and (number.is_floating_point() or number.is_complex())
            atol = tolerance * number.to_dense().abs().nan_to_num(0, 0).max().item() if tolerance and rounded else 0.0
            msg = f"{where}{path}: ".__add__
            torch.testing.assert_close(actual[path], value, rtol=0, atol=atol, equal_nan=True, msg=msg)
        elif value is None or isinstance(value, int | str):
            assert actual[path] == value, f"{where}{path}: {actual[path]!r}, expected {value!r}"


def configuration(optimizer: str, options: dict[str, Any], kind: str = "") -> SimpleNamespace:
    """Return an optimizer class by name, with its options and a model."""
    model = "SparseEmbedding" if optimizer == "SparseAdam" else "MLP"
    may_raise = kind in {"differentiable", "capturable", "fused"}
    return SimpleNamespace(optimizer=optimizer, options=options, model=model, standard_may_raise=may_raise)


class FunctionalAndOrdinary:
    """A functional optimizer and the ordinary one of its class, over equal parameters, fed the same gradients."""

    def __init__(self, optimizer: str, options: dict[str, Any], device: str, model: str = "") -> None:
        self._optimizer = optimizer
        self._options = options
        self._device = device
        self.generator = torch.Generator().manual_seed(0)
        self.expected = self._make_params(model)
        self.params = self._make_params(model)
        self.functional = self.make_functional(self.params)
        self.standard = self.make_standard(self.expected)

    def _make_params(self, model: str) -> list[Tensor]:
        torch.manual_seed(0)
        module = nn.Embedding(10, 4) if model or self._optimizer == "SparseAdam" else MLP()
        return list(module.to(self._device).parameters())

    def make_functional(self, params: list[Tensor]) -> Any:
        """Make a functional optimizer."""
        return implementation.functional_optimizer(getattr(torch.optim, self._optimizer), params, **self._options)

    def make_standard(self, params: list[Tensor]) -> Optimizer:
        """Make an ordinary optimizer."""
        return implementation.standard_optimizer(getattr(torch.optim, self._optimizer), params, self._options)

    def draw(self, *, sparse: bool = False) -> list[Tensor]:
        """Return the next gradients."""
        drawn = [torch.randn(param.shape, generator=self.generator) for param in self.params]
        if sparse:
            drawn = [(grad * (torch.arange(10) % 3 > 0).unsqueeze(1)).to_sparse(1) for grad in drawn]
        return [grad.to(self._device) for grad in drawn]

    def feed(self, gradients: Sequence[Tensor | None], *, one_by_one: bool = False) -> None:
        """Step both, and compare."""
        self.step_standard(gradients)
        self.step_functional(gradients, one_by_one=one_by_one)
        self.compare()

    def step_standard(self, gradients: Sequence[Tensor | None]) -> None:
        """Step the ordinary optimizer."""
        for param, grad in zip(self.expected, gradients, strict=True):
            param.grad = copy.deepcopy(grad)
        self.standard.step()
        self.standard.zero_grad()

    def step_functional(self, gradients: Sequence[Tensor | None], *, one_by_one: bool) -> None:
        """Step the functional optimizer with all gradients at once, or one by one."""
        if one_by_one:
            for param, grad in zip(self.params, gradients, strict=True):
                self.functional.step_param(param, copy.deepcopy(grad))
        else:
            self.functional.step(copy.deepcopy(gradients))

    def compare(self, tolerance: float = 0.0) -> None:
        """Compare parameters and states."""
        tolerance = max(tolerance, implementation.declared.rounding.size)
        for param, expected in zip(self.params, self.expected, strict=True):
            pairs: list[tuple[Any, Any]] = [(param, expected)]
            if hasattr(self.functional, "state"):
                state, kept = self.functional.state.get(param) or {}, self.standard.state.get(expected) or {}
                assert state.keys() == kept.keys(), f"the state has {list(state)}, expected {list(kept)}"
                pairs += [(state[key], kept[key]) for key in kept]
            for actual, value in pairs:
                atol = tolerance and tolerance * torch.as_tensor(value).abs().max().item()
                torch.testing.assert_close(actual, value, rtol=0, atol=atol, equal_nan=True)


def on_ranks(world_size: int, body: Callable[..., None], *arguments: Any) -> None:
    """Call `body` on each of `world_size` ranks."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = (world_size, folder, body, *arguments)
        torch.multiprocessing.start_processes(  # type: ignore[attr-defined,no-untyped-call]
            _on_rank, arguments, world_size, start_method="forkserver"
        )


def _on_rank(number: int, world_size: int, folder: str, body: Callable[..., None], *arguments: Any) -> None:
    dist.init_process_group("gloo", f"file://{folder}/store", timedelta(seconds=20), world_size, number)
    body(SimpleNamespace(number=number, world_size=world_size, device="cpu"), *arguments)
