"""Functional optimizers of the reference implementation: what they take and refuse, and what a further one costs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.nadam import nadam

import inbackward
from inbackward import _functional_forms
from inbackward._functional import Entry, Form


def params() -> list[nn.Parameter]:
    return [nn.Parameter(torch.ones(2, 3)), nn.Parameter(torch.ones(3))]


def groups(held: list[nn.Parameter]) -> list[dict[str, Any]]:
    return [{"params": held[:1]}, {"params": held[1:], "lr": 0.5}]


def grads() -> list[torch.Tensor]:
    return [torch.full((2, 3), 0.5), torch.full((3,), 0.25)]


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_functional_forms, "_registered", {})


def test_groups_keep_their_own_options() -> None:
    mine, standard = params(), params()
    functional = inbackward.functional_optimizer(torch.optim.SGD, groups(mine), lr=0.1)
    ordinary = torch.optim.SGD(groups(standard), lr=0.1)
    for param, grad in zip(standard, grads(), strict=True):
        param.grad = grad
    functional.step(grads())
    ordinary.step()
    for param, other in zip(mine, standard, strict=True):
        assert torch.equal(param, other)


def test_named_parameters_are_taken() -> None:
    model = nn.Linear(3, 2)
    functional = inbackward.functional_optimizer(torch.optim.AdamW, model.named_parameters())
    functional.step([*grads()[:1], torch.ones(2)])
    assert functional.param_groups[0]["param_names"] == ["weight", "bias"]


def test_an_option_that_the_user_adds_to_a_group_is_no_business_of_the_step() -> None:
    """A scheduler writes `initial_lr`, for one."""
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


def test_another_parameter_is_refused() -> None:
    functional = inbackward.functional_optimizer(torch.optim.SGD, params())
    with pytest.raises(ValueError, match=r"functional SGD does not hold the given parameter of shape \(4,\)"):
        functional.step_param(nn.Parameter(torch.ones(4)), torch.ones(4))


def test_a_parameter_that_got_new_data_goes_on() -> None:
    held = params()
    functional = inbackward.functional_optimizer(torch.optim.SGD, held, lr=1.0)
    held[1].data = torch.zeros(3)
    functional.step_param(held[1], torch.ones(3))
    assert torch.equal(held[1], -torch.ones(3))


def test_without_momentum_there_is_no_state() -> None:
    functional = inbackward.functional_optimizer(torch.optim.SGD, params())
    functional.step(grads())
    assert functional.state_dict()["state"] == {}


def test_grad_mode_is_as_before() -> None:
    held = params()
    functional = inbackward.functional_optimizer(torch.optim.SGD, held)
    functional.step(grads())
    assert torch.is_grad_enabled()
    with pytest.raises(RuntimeError, match="leaf"):
        inbackward.functional_optimizer(torch.optim.SGD, held, differentiable=True).step(grads())
    assert torch.is_grad_enabled()


def test_what_has_no_functional_form_is_refused() -> None:
    with pytest.raises(ValueError, match=r"LBFGS.*only of SGD, Adam, .*register_functional_optimizer"):
        inbackward.functional_optimizer(torch.optim.LBFGS, params())


def test_options_are_those_of_the_class() -> None:
    with pytest.raises(ValueError, match="Invalid learning rate"):
        inbackward.functional_optimizer(torch.optim.Adam, params(), lr=-1.0)
    with pytest.raises(ValueError, match="empty parameter list"):
        inbackward.functional_optimizer(torch.optim.Adam, [])


@pytest.mark.usefixtures("registry")
def test_registered_classes_are_made_and_listed() -> None:
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


def test_the_ninth_costs_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    zeros, count, betas = _functional_forms._zeros, _functional_forms._COUNT, _functional_forms._BETAS
    ones = Entry("mu_product", lambda *_: torch.ones(()))
    row = Form(nadam, (Entry("exp_avg", zeros), Entry("exp_avg_sq", zeros), ones, count), betas)
    monkeypatch.setitem(_functional_forms.FORMS, torch.optim.NAdam, row)
    mine, standard = params(), params()
    functional = inbackward.functional_optimizer(torch.optim.NAdam, mine, weight_decay=0.1)
    ordinary = torch.optim.NAdam(standard, weight_decay=0.1)
    for _ in range(3):
        functional.step(grads())
        for param, grad in zip(standard, grads(), strict=True):
            param.grad = grad
        ordinary.step()
    for param, other in zip(mine, standard, strict=True):
        assert torch.equal(param, other)
