"""The four public functions: what they take, list and refuse; a refusal leaves nothing behind."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

import inbackward

apply = inbackward.apply_optimizer_in_backward


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(2, 2), nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.first(x))  # type: ignore[no-any-return]


def model() -> Net:
    return Net()


def assert_plain(module: nn.Module) -> None:
    """Nothing is attached, and backward steps nothing."""
    before = [param.detach().clone() for param in module.parameters()]
    module(torch.ones(1, 2)).sum().backward()
    assert inbackward.get_in_backward_optimizers(module) == []
    for param, value in zip(module.parameters(), before, strict=True):
        assert torch.equal(param, value)
        assert param.grad is not None
        param.grad = None


@pytest.mark.parametrize(
    "given",
    [
        list,
        iter,
        lambda params: [(f"p{index}", param) for index, param in enumerate(params)],
        lambda params: [{"params": params[:2]}, {"params": iter(params[2:]), "lr": 2.0}],
        lambda params: iter([{"params": params[0]}, {"params": params[1:]}]),
    ],
    ids=["list", "generator", "named", "groups", "generator of groups"],
)
def test_takes_what_torch_takes(given: Callable[[list[nn.Parameter]], Any]) -> None:
    module = model()
    apply(torch.optim.SGD, given(list(module.parameters())), {"lr": 1.0})
    optimizers = inbackward.get_in_backward_optimizers(module)
    held = [optimizer.param_groups[0]["params"] for optimizer in optimizers]
    for (param,), expected in zip(held, module.parameters(), strict=True):
        assert param is expected
    module(torch.ones(1, 2)).sum().backward()
    assert all(param.grad is None for param in module.parameters())


def test_names_are_kept() -> None:
    module = model()
    apply(torch.optim.SGD, module.named_parameters(), {"lr": 1.0})
    names = [optimizer.param_groups[0]["param_names"] for optimizer in inbackward.get_in_backward_optimizers(module)]
    assert names == [[name] for name, _ in module.named_parameters()]


class Rejects(torch.optim.SGD):
    """Takes one parameter and rejects the second, as Muon does what has not two dimensions."""

    left: ClassVar[int] = 1

    def __init__(self, params: Any, **options: Any) -> None:
        super().__init__(params, **options)
        if not Rejects.left:
            msg = "no more"
            raise ValueError(msg)
        Rejects.left -= 1


non_leaf = torch.ones(2, requires_grad=True) * 2
non_leaf.retain_grad()


@pytest.mark.parametrize(
    ("optimizer_class", "params", "options", "error", "match"),
    [
        (torch.optim.SGD, [], {}, ValueError, "empty parameter list"),
        (torch.optim.SGD, torch.ones(2), {}, TypeError, "iterable of Tensors"),
        (torch.optim.SGD, [torch.ones(2) for _ in range(2)] + ["w"], {}, TypeError, "only optimize Tensors"),
        (torch.optim.SGD, None, {}, TypeError, "not iterable"),
        (torch.optim.SGD, [non_leaf.clone()], {}, ValueError, "non-leaf"),
        (torch.optim.SGD, [non_leaf], {}, ValueError, "non-leaf"),
        (torch.optim.SGD, [torch.ones(2, dtype=torch.int8)], {}, TypeError, r"torch\.int8 can never have a gradient"),
        (torch.optim.SGD, [torch.ones(2)], {"lr": -1.0}, ValueError, "learning rate"),
        (torch.optim.SGD, [torch.ones(2)], {"speed": 1}, TypeError, "speed"),
        (torch.optim.SGD, [torch.ones(2)], None, TypeError, r"optimizer_kwargs is None.*\{\} for none"),
        (torch.optim.SGD, [torch.ones(2)], 0.1, TypeError, r"optimizer_kwargs is 0\.1"),
        (nn.Linear, [torch.ones(2)], {}, TypeError, r"Linear.*not a subclass of torch\.optim\.Optimizer"),
        (torch.optim.SGD([torch.ones(2)]), [torch.ones(2)], {}, TypeError, "Give the class itself"),
        (torch.optim.LBFGS, [torch.ones(2)], {}, TypeError, r"LBFGS\.step\(\).*closure.*ordinary optimizer"),
        (Rejects, [torch.ones(2)], {}, ValueError, "no more"),
    ],
)
def test_refuses_before_anything_is_attached(
    optimizer_class: Any, params: Any, options: Any, error: type[Exception], match: str
) -> None:
    module = model()
    good = list(module.parameters())
    given = good + list(params) if isinstance(params, list) and params else params
    Rejects.left = 2
    with pytest.raises(error, match=match):
        apply(optimizer_class, given, options)
    assert_plain(module)
    apply(torch.optim.SGD, good, {"lr": 1.0})
    module(torch.ones(1, 2)).sum().backward()
    assert all(param.grad is None for param in good)


def test_one_parameter_in_two_groups_is_refused() -> None:
    module = model()
    groups = [{"params": module.parameters()}, {"params": module.first.parameters()}]
    with pytest.raises(ValueError, match="more than one parameter group"):
        apply(torch.optim.SGD, groups, {})
    assert_plain(module)


def test_a_failure_while_hooking_is_undone() -> None:
    """Torch lets no inference tensor have a hook; optimizers and hooks of earlier calls stay."""
    with torch.inference_mode():
        unhookable = nn.Parameter(torch.ones(2), requires_grad=False)
    first, second = model(), model()
    apply(torch.optim.SGD, second.parameters(), {"lr": 1.0}, register_hook=False)
    earlier = inbackward.get_in_backward_optimizers(second)
    with pytest.raises(RuntimeError, match="inference"):
        apply(torch.optim.SGD, [*first.parameters(), *second.parameters(), unhookable], {"lr": 1.0})
    assert_plain(first)
    assert inbackward.get_in_backward_optimizers(second) == earlier
    before = second.first.weight.detach().clone()
    second(torch.ones(1, 2)).sum().backward()
    assert torch.equal(second.first.weight, before)


def test_options_are_neither_changed_nor_shared() -> None:
    lr, betas = torch.tensor(0.1), [0.9, 0.99]
    options = {"lr": lr, "betas": betas}
    module = model()
    group = {"params": module.parameters(), "eps": torch.tensor(1e-8)}
    apply(torch.optim.Adam, [group], options)
    assert options == {"lr": lr, "betas": betas}
    assert set(group) == {"params", "eps"}
    optimizers = inbackward.get_in_backward_optimizers(module)
    for key in ("lr", "betas", "eps"):
        values = [optimizer.param_groups[0][key] for optimizer in optimizers]
        assert len({id(value) for value in [*values, options.get(key, group.get(key))]}) == len(optimizers) + 1


def test_duplicates_are_warned_of_once() -> None:
    module = model()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        apply(torch.optim.SGD, [*module.parameters(), *module.parameters()], {"lr": 1.0})
    assert len(caught) == 1
    assert len(inbackward.get_in_backward_optimizers(module)) == 4


def test_frozen_parameters_stay_frozen() -> None:
    module = model().requires_grad_(requires_grad=False)
    apply(torch.optim.SGD, module.parameters(), {"lr": 1.0})
    assert not any(param.requires_grad for param in module.parameters())
    assert len(inbackward.get_in_backward_optimizers(module)) == 4


def test_listing_is_in_order_of_parameters_then_of_attachment() -> None:
    module = model()
    module.last.weight = module.first.weight
    apply(torch.optim.SGD, reversed(list(module.parameters())), {"lr": 1.0})
    apply(torch.optim.Adam, [module.last.weight], {}, register_hook=False)
    listed = inbackward.get_in_backward_optimizers(module)
    assert [type(optimizer).__name__ for optimizer in listed] == ["SGD", "Adam", "SGD", "SGD"]
    assert listed[:2] == inbackward.optimizers_of(module.first.weight)
    assert listed == inbackward.get_in_backward_optimizers(module)
    assert inbackward.get_in_backward_optimizers(module.first) == listed[:3]


def test_nothing_is_listed_for_a_plain_model() -> None:
    assert inbackward.get_in_backward_optimizers(model()) == []
    assert inbackward.optimizers_of(torch.ones(2)) == []


@pytest.mark.parametrize(
    "given", [lambda m: m, lambda m: m.parameters(), lambda m: list(m.parameters())], ids=["module", "iterator", "list"]
)
def test_detach_gives_an_ordinary_model_back(given: Callable[[nn.Module], Any]) -> None:
    module = model()
    apply(torch.optim.Adam, module.parameters(), {})
    apply(torch.optim.SGD, [module.first.weight], {})
    inbackward.detach(given(module))
    assert_plain(module)
    inbackward.detach(module)
    apply(torch.optim.SGD, module.parameters(), {"lr": 1.0})
    module(torch.ones(1, 2)).sum().backward()
    assert all(param.grad is None for param in module.parameters())


def test_detach_of_one_parameter_leaves_the_others() -> None:
    module = model()
    apply(torch.optim.SGD, module.parameters(), {"lr": 1.0})
    inbackward.detach(module.first.weight)
    module(torch.ones(1, 2)).sum().backward()
    assert [param.grad is None for param in module.parameters()] == [False, True, True, True]


def test_wrong_arguments_are_named() -> None:
    module = model()
    apply(torch.optim.SGD, module.parameters(), {"lr": 1.0})
    attached = inbackward.get_in_backward_optimizers(module)
    with pytest.raises(TypeError, match=r"Expected a torch Module, not \[\]. For one parameter"):
        inbackward.get_in_backward_optimizers([])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="Expected a torch Tensor, not Net"):
        inbackward.optimizers_of(module)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"Expected a torch Tensor, not 'weight'\. Give detach"):
        inbackward.detach([module.first.weight, "weight"])  # type: ignore[list-item]
    assert inbackward.get_in_backward_optimizers(module) == attached
