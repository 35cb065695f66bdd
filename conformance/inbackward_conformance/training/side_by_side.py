"""Compares a functional optimizer with the ordinary optimizer of its class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from inbackward_conformance.catalogue.build import build_model
from inbackward_conformance.catalogue.optimizer_configurations import MODEL_FOR
from inbackward_conformance.catalogue.optimizers import bind_options, find_optimizer_class
from inbackward_conformance.outcome import BrokenPromise, Finding, NotOffered, NotRun, Outcome
from inbackward_conformance.plan import ALL, Plan
from inbackward_conformance.tensors import close, describe_difference
from inbackward_conformance.training.compare import describe_states, incomparable, same_states
from inbackward_conformance.training.random_numbers import seed_random_numbers
from inbackward_conformance.training.trace import copy_state

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor
    from torch.optim import Optimizer

    from inbackward_conformance.adapters.functional import Functional
    from inbackward_conformance.adapters.implementation import Implementation
    from inbackward_conformance.training.trace import State

    Gradients = Sequence[Tensor | None]


class SideBySide:
    """A functional and an ordinary optimizer for equal parameters, which step with the same gradients.

    Attributes:
        expected: the parameters of the ordinary optimizer.
        params: the parameters of the functional optimizer.
    """

    def __init__(
        self, implementation: Implementation, optimizer: str, options: dict[str, Any], device: str, model: str = ""
    ) -> None:
        """Make both optimizers; `model` names a model other than the one that the class is usually tested on."""
        if optimizer not in implementation.functional_optimizers:
            raise NotOffered(f"no functional {optimizer}")
        self._implementation = implementation
        self._optimizer = optimizer
        self._options = options
        self._generator = torch.Generator().manual_seed(0)
        self.expected = self._make_params(device, model)
        self.params = self._make_params(device, model)
        self.functional = self.make_functional(self.params)
        self.standard = self.make_standard(self.expected)

    def make_functional(self, params: Sequence[Tensor]) -> Functional:
        """Make a functional optimizer."""
        optimizer_class = find_optimizer_class(self._optimizer)
        return self._implementation.functional_optimizer(optimizer_class, list(params), **bind_options(self._options))

    def make_standard(self, params: Sequence[Tensor]) -> Optimizer:
        """Make an ordinary optimizer."""
        optimizer_class = find_optimizer_class(self._optimizer)
        return self._implementation.standard_optimizer(optimizer_class, list(params), bind_options(self._options))

    def draw(self, *, sparse: bool = False) -> list[Tensor]:
        """Return the next gradient of each parameter; in a sparse one, some rows are missing."""
        drawn = [torch.randn(param.shape, generator=self._generator, dtype=param.dtype) for param in self.params]
        if sparse:
            drawn = [(grad * (torch.arange(len(grad)) % 3 > 0).unsqueeze(1)).to_sparse(1) for grad in drawn]
        return [grad.to(param.device) for grad, param in zip(drawn, self.params, strict=True)]

    def feed(self, gradients: Gradients, *, one_by_one: bool = False) -> None:
        """Step both, and compare parameters and states.

        Raises:
            BrokenPromise: they differ.
        """
        self.step_standard(gradients)
        self.step_functional(gradients, one_by_one=one_by_one)
        self.compare()

    def step_standard(self, gradients: Gradients) -> None:
        """Step the ordinary optimizer: set the gradients, step, free the gradients."""
        for param, grad in zip(self.expected, gradients, strict=True):
            param.grad = None if grad is None else grad.clone()
        self.standard.step()
        self.standard.zero_grad()

    def step_functional(self, gradients: Gradients, *, one_by_one: bool) -> None:
        """Step the functional optimizer with all gradients at once, or one by one."""
        copies = [None if grad is None else grad.clone() for grad in gradients]
        if one_by_one:
            for param, grad in zip(self.params, copies, strict=True):
                self.functional.step_param(param, grad)
        else:
            self.functional.step(copies)

    def compare(self, tolerance: float = 0.0) -> None:
        """Compare parameters, and states if the functional optimizer has a `state`.

        `tolerance` is the largest difference that passes, relative to the largest value of a tensor; 0 means bitwise
        equal. If the adapter declares more rounding, that much passes.

        Raises:
            BrokenPromise: they differ.
            NotRun: they do not, but a state cannot be compared.
        """
        tolerance = max(tolerance, self._implementation.declared.rounding.size)
        not_compared = ""
        for number, (expected, param) in enumerate(zip(self.expected, self.params, strict=True)):
            if not close(expected, param, tolerance):
                how = describe_difference(expected, param)
                raise _diverges(f"parameter {number} differs from that of the ordinary optimizer: {how}")
            expected_state, state = self._states(number)
            if not same_states(expected_state, state, tolerance):
                how = describe_states(expected_state, state, tolerance)
                raise _diverges(f"the state of parameter {number} differs from the ordinary optimizer's: {how}")
            if what := incomparable(state):
                not_compared = not_compared or f"the state of parameter {number}: {what}"
        if not_compared:
            raise NotRun(not_compared)

    def _states(self, number: int) -> tuple[list[State], list[State]]:
        try:
            observed = self.functional.offered("state").get(self.params[number])
        except NotOffered:
            return [], []
        expected = self.standard.state.get(self.expected[number])
        expected_state, state = map(copy_state, (expected, observed))
        return [expected_state] * bool(expected_state), [state] * bool(state)

    def _make_params(self, device: str, model: str) -> list[Tensor]:
        name, names = (model, ALL) if model else MODEL_FOR.get(self._optimizer, ("MLP", ALL))
        with torch.random.fork_rng():
            seed_random_numbers(0, device)
            module = build_model(Plan(name, (), ()), torch.device(device))
        return [param for name, param in module.named_parameters() if names == ALL or name in names]


def _diverges(detail: str) -> BrokenPromise:
    return BrokenPromise(Finding(Outcome.DIVERGES, detail, passed=False))
