"""Mutants of functional optimizers: what goes wrong between a list of gradients and a step."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

import inbackward
from inbackward import FunctionalOptimizer
from mutants.naive import Naive
from mutants.registry import base, fails


class Wrapped:
    """What the others are made from: the reference's own, each method in its place."""

    def __init__(self, functional: FunctionalOptimizer) -> None:
        self.functional = functional
        self.function = functional.function

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return self.functional.param_groups

    @property
    def state(self) -> dict[Tensor, Any]:
        return self.functional.state

    @property
    def params(self) -> list[Tensor]:
        return [param for group in self.param_groups for param in group["params"]]

    def step(self, gradients: Sequence[Tensor | None]) -> None:
        if len(gradients) != len(self.params):
            raise ValueError("a gradient for each parameter")
        for param, grad in zip(self.params, gradients, strict=True):
            self.step_param(param, grad)

    def step_param(self, param: Tensor, grad: Tensor | None) -> None:
        self.functional.step_param(param, grad)

    def state_dict(self) -> dict[str, Any]:
        return self.functional.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.functional.load_state_dict(state)


@base
class OffersFunctional(Naive):
    """Sound; a mutant replaces what it hands out."""

    Kind: type[Wrapped] = Wrapped

    def functional_optimizer(self, optimizer_class: Any, params: Iterable[Any], **options: Any) -> Any:
        return self.Kind(inbackward.functional_optimizer(optimizer_class, params, **options))


@fails("functional/every_configuration")
class AveragesTwice(OffersFunctional):
    class Kind(Wrapped):
        def step_param(self, param: Tensor, grad: Tensor | None) -> None:
            super().step_param(param, None if grad is None else grad / len(self.params))


@fails("functional/default_options")
class OneDefaultForAll(OffersFunctional):
    def functional_optimizer(self, optimizer_class: Any, params: Iterable[Any], **options: Any) -> Any:
        return super().functional_optimizer(optimizer_class, params, **{"lr": 1e-2, **options})


@fails("functional/no_gradient", "SGD-later-step-step")
@fails("functional/no_gradients", "SGD-step")
class TakesNoneForZeros(OffersFunctional):
    """Momentum moves what has no gradient."""

    class Kind(Wrapped):
        def step_param(self, param: Tensor, grad: Tensor | None) -> None:
            super().step_param(param, torch.zeros_like(param) if grad is None else grad)


@fails("functional/sparse_gradient", "Adam-step")
class Densifies(OffersFunctional):
    class Kind(Wrapped):
        def step_param(self, param: Tensor, grad: Tensor | None) -> None:
            super().step_param(param, None if grad is None else grad.to_dense())


@fails("functional/other_length")
class StopsAtTheShorter(OffersFunctional):
    class Kind(Wrapped):
        def step(self, gradients: Sequence[Tensor | None]) -> None:
            for param, grad in zip(self.params, gradients, strict=False):
                self.step_param(param, grad)


@fails("functional/no_parameters")
class TakesNothing(OffersFunctional):
    def functional_optimizer(self, optimizer_class: Any, params: Iterable[Any], **options: Any) -> Any:
        given = list(params)
        return super().functional_optimizer(optimizer_class, given, **options) if given else object()


@fails("functional/gradient_fields")
class PutsGradientsOnParameters(OffersFunctional):
    class Kind(Wrapped):
        def step_param(self, param: Tensor, grad: Tensor | None) -> None:
            param.grad = grad
            super().step_param(param, param.grad)


@fails("functional/independent_states")
class StepsTheOthersToo(OffersFunctional):
    class Kind(Wrapped):
        def step_param(self, param: Tensor, grad: Tensor | None) -> None:
            for other in self.params:
                super().step_param(other, grad if other is param else torch.zeros_like(other))


@fails("functional/changed_lr")
class ShowsCopiesOfGroups(OffersFunctional):
    class Kind(Wrapped):
        @property
        def param_groups(self) -> list[dict[str, Any]]:
            return [dict(group) for group in self.functional.param_groups]


@fails("functional/state_dict")
class SavesOptionsAlone(OffersFunctional):
    class Kind(Wrapped):
        def state_dict(self) -> dict[str, Any]:
            return {**super().state_dict(), "state": {}}


@fails("functional/compile")
@fails("functional/compile_by_inductor")
class Prints(OffersFunctional):
    """Says what it does, which breaks the graph."""

    class Kind(Wrapped):
        def step_param(self, param: Tensor, grad: Tensor | None) -> None:
            torch._dynamo.graph_break()
            super().step_param(param, grad)


@fails("functional/script")
class HasAPartialFunction(OffersFunctional):
    """TorchScript knows no partial functions."""

    class Kind(Wrapped):
        def __init__(self, functional: FunctionalOptimizer) -> None:
            super().__init__(functional)
            self.function = partial(functional.function, foreach=False)
