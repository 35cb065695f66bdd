"""What can be found out about an optimizer class by a few steps of the standard loop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from inbackward_conformance.catalogue.optimizers import bind_options, find_optimizer_class

if TYPE_CHECKING:
    from inbackward_conformance.adapters.declarations import OwnOptimizer
    from inbackward_conformance.adapters.implementation import Implementation


@dataclass(frozen=True)
class Facts:
    """What a class does with one set of options.

    Attributes:
        keeps_state: whether it keeps a state for a parameter.
        moves_at_zero: whether it moves a parameter whose gradient is zero, after one whose gradient was not.
        proportional: whether it moves a parameter in proportion to its gradient, beside what it does without one.
        lr: the learning rate that it has at first; None if it is no number.
        has_plain_state: whether its state for a parameter holds tensors and numbers alone, as in `torch.optim`.
    """

    keeps_state: bool
    moves_at_zero: bool
    proportional: bool
    lr: float | None
    has_plain_state: bool


READ = ("step", "zero_grad", "param_groups", "state")
"""What the suite reads of an optimizer."""

_KNOWN: WeakKeyDictionary[OwnOptimizer, dict[str, Facts]] = WeakKeyDictionary()


def facts_of(entry: OwnOptimizer, options: Mapping[str, Any], implementation: Implementation) -> Facts:
    """Return the facts of a class with these options; they are found out once in a process.

    Raises:
        RuntimeError: the class cannot train two parameters, or moves neither; the message has the remedy.
    """
    known = _KNOWN.setdefault(entry, {})
    key = repr(options)
    if key not in known:
        known[key] = _find_out(entry, options, implementation)
    return known[key]


def _find_out(entry: OwnOptimizer, options: Mapping[str, Any], implementation: Implementation) -> Facts:
    what = f"{entry.name} with options {dict(options)}"
    remedy = "correct its entry in `own_optimizers`"
    try:
        with torch.random.fork_rng(devices=[]):
            at_rest, moved, twice = (_Probe(entry, options, implementation, gradient) for gradient in (0.0, 1.0, 2.0))
            facts = Facts(
                keeps_state=moved.has_state() if entry.keeps_state is None else entry.keeps_state,
                proportional=_nearly_equal(twice.distance - moved.distance, moved.distance - at_rest.distance),
                lr=moved.lr(),
                has_plain_state=moved.has_plain_state(),
                moves_at_zero=moved.moves_at_zero(),
            )
    except Exception as error:
        raise RuntimeError(
            f"{what} does not train two parameters in the standard loop: {type(error).__name__}: {error}; {remedy}"
        ) from error
    if not moved.distance.any() and not facts.moves_at_zero:
        raise RuntimeError(f"{what} moves no parameter in two steps of the standard loop; {remedy}")
    return facts


class _Probe:
    """Two parameters after one step of the standard loop, with gradients of this size.

    Attributes:
        distance: how far the parameters have moved.
    """

    def __init__(
        self, entry: OwnOptimizer, options: Mapping[str, Any], implementation: Implementation, gradient: float
    ) -> None:
        device = implementation.declared.requires_device or "cpu"
        values = torch.linspace(-1, 2, 15, device=device)
        self._params = [torch.nn.Parameter(values[:12].view(4, 3).clone()), torch.nn.Parameter(values[12:].clone())]
        self._entry = entry
        self._state_of = implementation.state_of
        optimizer_class = find_optimizer_class(entry.name)
        self._optimizer: Any = implementation.standard_optimizer(optimizer_class, self._params, bind_options(options))
        if missing := [name for name in READ if not hasattr(self._optimizer, name)]:
            raise TypeError(f"as an optimizer, it needs {', '.join(missing)}")
        if entry.lr and entry.lr not in self._optimizer.param_groups[0]:
            known = ", ".join(repr(key) for key in self._optimizer.param_groups[0] if key != "params")
            raise ValueError(
                f"its param_groups have no {entry.lr!r}; name its learning rate by `lr`, of {known or 'none'}"
            )
        before = self._values()
        self._step(gradient)
        self.distance = self._values() - before

    def has_state(self) -> bool:
        """Return whether there is a state for the first parameter."""
        return bool(self._optimizer.state.get(self._params[0]))

    def has_plain_state(self) -> bool:
        """Return whether the state for the first parameter holds tensors and numbers alone."""
        state: Any = self._state_of(self._optimizer, self._params[0]) if self.has_state() else {}
        plain = (Tensor, int, float, type(None))
        return isinstance(state, Mapping) and all(isinstance(value, plain) for value in state.values())

    def lr(self) -> float | None:
        """Return the learning rate."""
        value = self._optimizer.param_groups[0].get(self._entry.lr)
        return float(value) if isinstance(value, int | float) else None

    def moves_at_zero(self) -> bool:
        """Return whether a step with gradients of zero moves a parameter."""
        before = self._values()
        self._step(0.0)
        return not torch.equal(before, self._values())

    def _step(self, gradient: float) -> None:
        for param in self._params:
            param.grad = gradient * torch.linspace(0.5, -1, param.numel(), device=param.device).view(param.shape)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)

    def _values(self) -> Tensor:
        return torch.cat([param.detach().flatten() for param in self._params]).double()


def _nearly_equal(a: Tensor, b: Tensor) -> bool:
    # Both are differences of float32 numbers of about one; a class that normalizes gradients is off by its whole step.
    return bool(torch.allclose(a, b, rtol=1e-3, atol=1e-6))
