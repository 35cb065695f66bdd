"""The probe refuses classes whose step of some parameters is not that of all, and changes nothing."""

from __future__ import annotations

import copy
import random
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import Adam, Optimizer

import inbackward
from impl_support import make, plain


class Plain(Optimizer):
    """SGD; the classes below differ from it in one thing."""

    def __init__(self, params: Any, lr: float = 0.1) -> None:
        super().__init__(params, {"lr": lr})
        self.prepare()

    def prepare(self) -> None: ...

    def before(self) -> None: ...

    def update(self, group: dict[str, Any], grad: torch.Tensor) -> Any:
        return grad * group["lr"]

    def holding(self) -> Iterator[tuple[dict[str, Any], Any]]:
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is not None:
                    yield group, param

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.before()
        for group, param in self.holding():
            param.sub_(self.update(group, param.grad))


class CountsInGroups(Plain):
    def before(self) -> None:
        for group in self.param_groups:
            group["count"] = group.get("count", 0) + 1


class CountsInAttribute(Plain):
    def prepare(self) -> None:
        self.count = 0

    def before(self) -> None:
        self.count += 1


class TotalNorm(Plain):
    def update(self, group: dict[str, Any], grad: torch.Tensor) -> Any:
        total = torch.stack([param.grad.norm() for _, param in self.holding()]).norm()
        return grad / (1 + total)


class NormThreshold(Plain):
    def update(self, group: dict[str, Any], grad: torch.Tensor) -> Any:
        total = torch.stack([param.grad.norm() for _, param in self.holding()]).norm()
        return grad * (50 / total).clamp(max=1)


class PositionInGroup(Plain):
    def update(self, group: dict[str, Any], grad: torch.Tensor) -> Any:
        return grad / len(group["params"])


class DrawsTorch(Plain):
    def update(self, group: dict[str, Any], grad: torch.Tensor) -> Any:
        return grad * torch.rand(())


class DrawsPython(Plain):
    def update(self, group: dict[str, Any], grad: torch.Tensor) -> Any:
        return grad * random.random()  # noqa: S311


class DrawsNumpy(Plain):
    def update(self, group: dict[str, Any], grad: torch.Tensor) -> Any:
        return grad * np.random.rand()  # noqa: NPY002


class NeedsClosure(Plain):
    def step(self, closure: Any) -> None:  # type: ignore[override]
        closure()


class RaisesWithoutClosure(Plain):
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        closure()
        super().step()


class DecaysAll(Plain):
    @torch.no_grad()
    def before(self) -> None:
        for group in self.param_groups:
            for param in group["params"]:
                param.mul_(0.9)


class OwnList(Plain):
    def prepare(self) -> None:
        self.params = [param for group in self.param_groups for param in group["params"]]

    def holding(self) -> Iterator[tuple[dict[str, Any], Any]]:
        return (({"lr": 0.1}, param) for param in self.params if param.grad is not None)


REFUSED = [
    (CountsInGroups, ValueError, "state in its parameter groups, 'count'"),
    (CountsInAttribute, ValueError, "the attribute 'count'"),
    (TotalNorm, ValueError, "mixes its parameters"),
    (NormThreshold, ValueError, "mixes its parameters"),
    (PositionInGroup, ValueError, "mixes its parameters"),
    (DrawsTorch, ValueError, "draws random numbers"),
    (DrawsPython, ValueError, "draws random numbers"),
    (DrawsNumpy, ValueError, "draws random numbers"),
    (NeedsClosure, TypeError, "closure"),
    (RaisesWithoutClosure, TypeError, "closure"),
    (DecaysAll, ValueError, "moves parameters that have no gradient"),
]


def everything(model: nn.Module, *optimizers: Optimizer) -> list[Any]:
    values = [param.detach().clone().tolist() for param in model.parameters()]
    states = [str(copy.deepcopy(optimizer.state_dict())) for optimizer in optimizers]
    state: Any = np.random.get_state()  # noqa: NPY002
    of_random = [torch.get_rng_state().tolist(), random.getstate(), state[1].tolist(), state[2]]
    return [values, states, of_random, [id(param.grad) for param in model.parameters()]]


@pytest.mark.parametrize(
    ("optimizer_class", "error", "match"),
    [*REFUSED, (OwnList, ValueError, "OwnList")],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_a_refusal_names_cause_and_remedy_and_changes_nothing(
    optimizer_class: Any, error: type[Exception], match: str
) -> None:
    model = make()
    params = [*model.parameters()]
    params[0].grad = torch.ones_like(params[0])
    optimizer = optimizer_class([{"params": params[:4]}, {"params": params[4:], "lr": 0.2}])
    before = everything(model, optimizer)
    with pytest.raises(error, match=match) as caught:
        inbackward.step_in_backward(optimizer)
    assert optimizer_class.__name__ in str(caught.value)
    assert "ordinary optimizer" in str(caught.value)
    assert everything(model, optimizer) == before
    assert inbackward.get_in_backward_optimizers(model) == []


@pytest.mark.parametrize(("optimizer_class", "error", "match"), REFUSED, ids=lambda each: getattr(each, "__name__", ""))
def test_apply_optimizer_in_backward_refuses_the_same(optimizer_class: Any, error: type[Exception], match: str) -> None:
    model = make()
    before = everything(model)
    with pytest.raises(error, match=match):
        inbackward.apply_optimizer_in_backward(optimizer_class, model.parameters(), {})
    assert everything(model) == before
    assert inbackward.get_in_backward_optimizers(model) == []


class HoldsLock(Plain):
    def prepare(self) -> None:
        self.lock = threading.Lock()
        self.function = lambda: 0

    def before(self) -> None:
        with self.lock:
            pass


class OwnMomentum(Plain):
    def prepare(self) -> None:
        self.momentum = {param: torch.zeros_like(param) for group in self.param_groups for param in group["params"]}

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for _, param in self.holding():
            param.sub_(self.momentum[param].mul_(0.9).add_(param.grad, alpha=0.01))


class Required(Plain):
    def __init__(self, params: Any, *, lr: float, factor: float) -> None:
        super().__init__(params, lr)
        self.factor = factor

    def update(self, group: dict[str, Any], grad: torch.Tensor) -> Any:
        return grad * self.factor


@pytest.mark.parametrize(
    ("optimizer_class", "options"),
    [(Plain, {}), (HoldsLock, {}), (OwnMomentum, {}), (Required, {"lr": 0.1, "factor": 0.01}), (Adam, {"fused": True})],
)
def test_harmless_classes_are_taken_before_and_after_steps(optimizer_class: Any, options: dict[str, Any]) -> None:
    standard, ours = make(), make()
    expected, handed = (optimizer_class(model.parameters(), **options) for model in (standard, ours))
    for step in range(4):
        if step in {0, 2}:
            before = everything(ours, handed)
            handle = inbackward.step_in_backward(handed, 64)
            assert everything(ours, handed) == before
        plain(standard, step)
        expected.step()
        expected.zero_grad()
        plain(ours, step)
        if step == 1:
            handle.remove()
    assert all(map(torch.equal, ours.parameters(), standard.parameters()))


@pytest.mark.parametrize(
    "param",
    [
        torch.empty(5, 4, device="meta"),
        torch.ones(5, dtype=torch.bfloat16),
        torch.ones(5, dtype=torch.float16),
        torch.ones(5, dtype=torch.complex64),
        torch.tensor(1.0),
        torch.empty(0, 3),
    ],
    ids=lambda param: f"{param.device}-{param.dtype}-{param.dim()}",
)
def test_any_kind_of_parameter_is_probed(param: torch.Tensor) -> None:
    for optimizer_class in (Adam, torch.optim.SGD):
        inbackward.step_in_backward(optimizer_class([nn.Parameter(param)])).remove()
    with pytest.raises(ValueError, match="count"):
        inbackward.step_in_backward(CountsInGroups([nn.Parameter(param), nn.Parameter(param)]))


def test_a_class_that_takes_the_rate_of_the_first_group_for_all_is_refused() -> None:
    class RateOfTheFirst(Plain):
        def update(self, group: dict[str, Any], grad: torch.Tensor) -> Any:
            return grad * self.param_groups[0]["lr"]

    weight, bias = nn.Linear(2, 2).parameters()
    with pytest.raises(ValueError, match="it mixes its parameters"):
        inbackward.step_in_backward(RateOfTheFirst([{"params": [weight]}, {"params": [bias]}]))
