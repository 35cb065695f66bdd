"""The public functions: what they take, list and refuse; a refusal leaves nothing behind."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import nn

import inbackward
from impl_support import make, plain

apply = inbackward.apply_optimizer_in_backward


def assert_plain(model: nn.Module) -> None:
    """Demands that nothing is attached, and that backward steps nothing."""
    before = [param.detach().clone() for param in model.parameters()]
    plain(model)
    assert inbackward.get_in_backward_optimizers(model) == []
    for param, value in zip(model.parameters(), before, strict=True):
        assert torch.equal(param, value)
        assert param.grad is not None


@pytest.mark.parametrize(
    "given",
    [
        lambda params: [{"params": params[:2]}, {"params": iter(params[2:]), "lr": 2.0}],
        lambda params: iter([{"params": params[0]}, {"params": params[1:]}]),
    ],
    ids=["a generator in a group", "a generator of groups, one of a single parameter"],
)
def test_parameter_groups_are_given_as_to_torch(given: Callable[[list[nn.Parameter]], Any]) -> None:
    model = make()
    params = list(model.parameters())
    apply(torch.optim.SGD, given(params), {"lr": 1.0})
    held = [optimizer.param_groups[0]["params"] for optimizer in inbackward.get_in_backward_optimizers(model)]
    assert [id(param) for (param,) in held] == [id(param) for param in params]
    plain(model)
    assert all(param.grad is None for param in params)


def test_names_of_parameters_are_kept() -> None:
    model = make()
    apply(torch.optim.SGD, model.named_parameters(), {"lr": 1.0})
    names = [optimizer.param_groups[0]["param_names"] for optimizer in inbackward.get_in_backward_optimizers(model)]
    assert names == [[name] for name, _ in model.named_parameters()]


non_leaf = torch.ones(2, requires_grad=True) * 2
non_leaf.retain_grad()  # so that torch.optim takes it


@pytest.mark.parametrize(
    ("optimizer_class", "more", "options", "error", "match"),
    [
        (torch.optim.SGD, [non_leaf], {}, ValueError, "non-leaf.*Attach to the tensors"),
        (torch.optim.SGD, [], None, TypeError, r"optimizer_kwargs is None.*\{\} for none"),
        (torch.optim.SGD, [], 0.1, TypeError, r"optimizer_kwargs is 0\.1"),
        (nn.Linear, [], {}, TypeError, r"Linear.*not a subclass of torch\.optim\.Optimizer"),
        (torch.optim.SGD([torch.ones(2)]), [], {}, TypeError, "Give the class itself"),
        (torch.optim.LBFGS, [], {}, TypeError, r"LBFGS\.step\(\).*closure.*ordinary optimizer"),
    ],
)
def test_a_refusal_names_the_remedy_and_attaches_nothing(
    optimizer_class: Any, more: list[torch.Tensor], options: Any, error: type[Exception], match: str
) -> None:
    model = make()
    with pytest.raises(error, match=match):
        apply(optimizer_class, [*model.parameters(), *more], options)
    assert_plain(model)


def test_none_in_place_of_parameters_is_refused() -> None:
    with pytest.raises(TypeError, match="not iterable"):
        apply(torch.optim.SGD, None, {})  # type: ignore[arg-type]


def test_a_failure_while_hooks_are_registered_is_undone() -> None:
    """Torch lets no inference tensor have a hook; optimizers and hooks of earlier calls stay."""
    with torch.inference_mode():
        unhookable = nn.Parameter(torch.ones(2), requires_grad=False)
    first, second = make(), make()
    apply(torch.optim.SGD, second.parameters(), {"lr": 1.0}, register_hook=False)
    earlier = inbackward.get_in_backward_optimizers(second)
    with pytest.raises(RuntimeError, match="inference"):
        apply(torch.optim.SGD, [*first.parameters(), *second.parameters(), unhookable], {"lr": 1.0})
    assert_plain(first)
    assert inbackward.get_in_backward_optimizers(second) == earlier
    before = second.first.weight.detach().clone()
    plain(second)
    assert torch.equal(second.first.weight, before)


def test_options_are_neither_changed_nor_shared() -> None:
    lr, betas = torch.tensor(0.1), [0.9, 0.99]
    options = {"lr": lr, "betas": betas}
    model = make()
    group = {"params": model.parameters(), "eps": torch.tensor(1e-8)}
    apply(torch.optim.Adam, [group], options)
    assert options == {"lr": lr, "betas": betas}
    assert set(group) == {"params", "eps"}
    optimizers = inbackward.get_in_backward_optimizers(model)
    for key in ("lr", "betas", "eps"):
        values = [optimizer.param_groups[0][key] for optimizer in optimizers]
        assert len({id(value) for value in [*values, options.get(key, group.get(key))]}) == len(optimizers) + 1


def test_torch_warns_once_of_parameters_that_are_listed_twice() -> None:
    model = make()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        apply(torch.optim.SGD, [*model.parameters(), *model.parameters()], {"lr": 1.0})
    assert len(caught) == 1


def test_optimizers_of_lists_those_of_one_parameter_in_order_of_attachment() -> None:
    model = make()
    assert inbackward.optimizers_of(model.first.weight) == []
    apply(torch.optim.SGD, model.parameters(), {"lr": 1.0})
    apply(torch.optim.Adam, [model.first.weight], {}, register_hook=False)
    listed = inbackward.optimizers_of(model.first.weight)
    assert [type(optimizer) for optimizer in listed] == [torch.optim.SGD, torch.optim.Adam]
    assert inbackward.get_in_backward_optimizers(model)[:2] == listed


@pytest.mark.parametrize("kind", [iter, list])
def test_detach_takes_an_iterable_of_parameters_attached_or_not(kind: Callable[[Iterable[Any]], Any]) -> None:
    model = make()
    inbackward.detach(kind(model.parameters()))
    apply(torch.optim.Adam, model.parameters(), {})
    apply(torch.optim.SGD, [model.first.weight], {})
    inbackward.detach(kind(model.parameters()))
    assert_plain(model)


def test_detach_of_one_parameter_leaves_the_others_attached() -> None:
    model = make()
    apply(torch.optim.SGD, model.parameters(), {"lr": 1.0})
    inbackward.detach(model.first.weight)
    plain(model)
    assert [name for name, param in model.named_parameters() if param.grad is not None] == ["first.weight"]


def test_wrong_arguments_are_named() -> None:
    model = make()
    apply(torch.optim.SGD, model.parameters(), {"lr": 1.0})
    listed = inbackward.get_in_backward_optimizers(model)
    with pytest.raises(TypeError, match=r"Expected a torch Module, not \[\]\. For one parameter"):
        inbackward.get_in_backward_optimizers([])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="Expected a torch Tensor, not Net"):
        inbackward.optimizers_of(model)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"Expected a torch Tensor, not 'weight'\. Give detach"):
        inbackward.detach([model.first.weight, "weight"])  # type: ignore[list-item]
    assert inbackward.get_in_backward_optimizers(model) == listed
