"""Functional optimizers: what they take and refuse, as far as the chapter functional does not show it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import inbackward


def params() -> list[nn.Parameter]:
    return [nn.Parameter(torch.ones(2, 3)), nn.Parameter(torch.ones(3))]


def groups(held: list[nn.Parameter]) -> list[dict[str, Any]]:
    return [{"params": held[:1]}, {"params": held[1:], "lr": 0.5}]


def grads() -> list[torch.Tensor]:
    return [torch.full((2, 3), 0.5), torch.full((3,), 0.25)]


def test_parameter_groups_keep_their_own_options() -> None:
    mine, standard = params(), params()
    functional = inbackward.functional_optimizer(torch.optim.SGD, groups(mine), lr=0.1)
    ordinary = torch.optim.SGD(groups(standard), lr=0.1)
    for param, grad in zip(standard, grads(), strict=True):
        param.grad = grad
    functional.step(grads())
    ordinary.step()
    for param, other in zip(mine, standard, strict=True):
        assert torch.equal(param, other)


def test_names_of_parameters_are_kept() -> None:
    model = nn.Linear(3, 2)
    functional = inbackward.functional_optimizer(torch.optim.AdamW, model.named_parameters())
    functional.step([*grads()[:1], torch.ones(2)])
    assert functional.param_groups[0]["param_names"] == ["weight", "bias"]


def test_a_step_ignores_an_option_that_was_added_to_a_group() -> None:
    """A scheduler adds `initial_lr`, for one."""
    functional = inbackward.functional_optimizer(torch.optim.SGD, params())
    functional.param_groups[0]["initial_lr"] = 1.0
    functional.step(grads())


@pytest.mark.parametrize(
    ("bad", "error", "match"),
    [
        (torch.ones(3, 2), ValueError, r"gradient of shape \(3, 2\).*parameter of shape \(2, 3\)"),
        (torch.ones(3), ValueError, r"shape \(3,\)"),
        (torch.ones(2, 3, dtype=torch.float64), ValueError, r"torch\.float64 does not fit .*torch\.float32"),
        (torch.ones(2, 3).to_sparse(), RuntimeError, r"Adam takes no sparse gradient.*to_dense\(\)"),
    ],
    ids=["transposed", "broadcast", "dtype", "sparse"],
)
def test_a_gradient_that_does_not_fit_is_refused_before_anything_changes(
    bad: torch.Tensor, error: type[Exception], match: str
) -> None:
    held = params()[::-1]
    functional = inbackward.functional_optimizer(torch.optim.Adam, held)
    with pytest.raises(error, match=match):
        functional.step([torch.ones(3), bad])
    with pytest.raises(error, match=match):
        functional.step_param(held[1], bad)
    assert not functional.state
    assert all(torch.equal(param, torch.ones_like(param)) for param in held)


def test_a_parameter_that_it_does_not_hold_is_refused() -> None:
    functional = inbackward.functional_optimizer(torch.optim.SGD, params())
    with pytest.raises(ValueError, match=r"functional SGD does not hold the given parameter of shape \(4,\)"):
        functional.step_param(nn.Parameter(torch.ones(4)), torch.ones(4))


def test_fused_is_refused_where_the_class_refuses_it() -> None:
    """The function of `torch.optim` would not ask, and step or end the process."""
    held = nn.Parameter(torch.ones(3, dtype=torch.complex64))
    functional = inbackward.functional_optimizer(torch.optim.SGD, [held], fused=True)
    with pytest.raises(RuntimeError, match="`fused=True` requires all the params to be floating point"):
        functional.step_param(held, torch.ones(3, dtype=torch.complex64))
    assert torch.equal(held, torch.ones(3, dtype=torch.complex64))


def test_a_parameter_with_new_data_is_stepped() -> None:
    held = params()
    functional = inbackward.functional_optimizer(torch.optim.SGD, held, lr=1.0)
    held[1].data = torch.zeros(3)
    functional.step_param(held[1], torch.ones(3))
    assert torch.equal(held[1], -torch.ones(3))


def test_a_step_leaves_grad_mode_as_it_was() -> None:
    """Also one that raises."""
    held = params()
    functional = inbackward.functional_optimizer(torch.optim.SGD, held)
    functional.step(grads())
    assert torch.is_grad_enabled()
    with pytest.raises(RuntimeError, match="leaf"):
        inbackward.functional_optimizer(torch.optim.SGD, held, differentiable=True).step(grads())
    assert torch.is_grad_enabled()


def test_a_class_without_a_functional_form_is_refused() -> None:
    with pytest.raises(ValueError, match=r"LBFGS.*only of SGD, Adam, .*register_functional_optimizer"):
        inbackward.functional_optimizer(torch.optim.LBFGS, params())


def test_options_that_the_class_rejects_are_rejected() -> None:
    with pytest.raises(ValueError, match="Invalid learning rate"):
        inbackward.functional_optimizer(torch.optim.Adam, params(), lr=-1.0)


def test_a_registered_class_is_made_and_listed() -> None:
    class Sign:
        def __init__(self, params: Any, lr: float) -> None:
            self.params, self.lr = list(params), lr

    class SignOptimizer:
        pass

    inbackward.register_functional_optimizer(SignOptimizer, Sign)
    made = inbackward.functional_optimizer(SignOptimizer, params(), lr=0.5)  # type: ignore[arg-type]
    assert isinstance(made, Sign)
    assert made.lr == 0.5
    with pytest.raises(ValueError, match="SignOptimizer"):
        inbackward.functional_optimizer(torch.optim.LBFGS, params())
    for taken in (SignOptimizer, torch.optim.SGD):
        with pytest.raises(ValueError, match="already"):
            inbackward.register_functional_optimizer(taken, Sign)
    with pytest.raises(TypeError, match="Expected a class"):
        inbackward.register_functional_optimizer("SGD", Sign)  # type: ignore[arg-type]
