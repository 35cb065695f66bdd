"""Functional optimizers, which are handed gradients: what the class of `torch.optim` of their name gives.

`step(gradients)` steps all parameters, `step_param(param, grad)` one. An adapter names the classes that it has a
functional form of; each is held to every requirement here. Equal means to the bit, parameters and states, unless a
requirement says otherwise.
"""

from __future__ import annotations

import copy
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor

from inbackward_conformance.adapters.find import find_implementation
from inbackward_conformance.adapters.implementation import FUNCTIONAL_OPTIMIZERS, Implementation
from inbackward_conformance.catalogue.optimizer_configurations import Configuration, configurations
from inbackward_conformance.checking.raising import must_not_raise
from inbackward_conformance.outcome import NotRun
from inbackward_conformance.training.side_by_side import SideBySide

both_ways = pytest.mark.parametrize("one_by_one", [False, True], ids=["step", "step_param"])

FUSED_MULTIPLY_ADD = 1e-6
"""What inductor may differ by: it fuses multiplications and additions, and rounds once where two operations do twice;
a few roundings of float32, relative to the largest value, in eight steps."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make cases of the classes that the tested implementations name."""
    names: dict[str, None] = {}
    for name in metafunc.config.getoption("implementation"):
        names |= dict.fromkeys(getattr(find_implementation(name), "functional_optimizers", FUNCTIONAL_OPTIMIZERS))
    if "configuration" in metafunc.fixturenames:
        metafunc.parametrize("configuration", list(configurations(names)), ids=str)
    if "optimizer" in metafunc.fixturenames:
        metafunc.parametrize("optimizer", list(names))


@pytest.mark.must
@pytest.mark.needs("functional_optimizer")
@both_ways
def test_every_configuration(
    implementation: Implementation, device: str, configuration: Configuration, one_by_one: bool
) -> None:
    """Every functional optimizer, in every configuration that its class offers, steps as the class does, six times.

    Where the class itself cannot step a configuration (differentiable on leaf parameters, capturable on CPU), the
    functional form raises as well.
    """
    both = SideBySide(implementation, configuration.optimizer, configuration.options, device)
    sparse = configuration.model == "SparseEmbedding"
    for _ in range(6):
        gradients = both.draw(sparse=sparse)
        try:
            both.step_standard(gradients)
        except Exception as error:
            if not configuration.standard_may_raise:
                raise RuntimeError("the case proves nothing, torch.optim itself raises") from error
            _raises(both, gradients, one_by_one)
            return
        both.step_functional(gradients, one_by_one=one_by_one)
        both.compare()


@pytest.mark.must
@pytest.mark.needs("functional_optimizer")
@both_ways
def test_default_options(implementation: Implementation, device: str, optimizer: str, one_by_one: bool) -> None:
    """Made without options, it has those that its class has by default."""
    both = SideBySide(implementation, optimizer, {}, device)
    for _ in range(3):
        both.feed(both.draw(), one_by_one=one_by_one)


@pytest.mark.must
@pytest.mark.needs("functional_optimizer")
@both_ways
@pytest.mark.parametrize("first", [True, False], ids=["first-step", "later-step"])
def test_no_gradient(
    implementation: Implementation, device: str, optimizer: str, first: bool, one_by_one: bool
) -> None:
    """Handed None for a parameter, it leaves that parameter and its state alone, and steps the others."""
    both = _stateful(implementation, optimizer, device)
    if not first:
        both.feed(both.draw(), one_by_one=one_by_one)
    gradients: list[Tensor | None] = [*both.draw()]
    gradients[0] = gradients[2] = None
    both.feed(gradients, one_by_one=one_by_one)
    for _ in range(2):
        both.feed(both.draw(), one_by_one=one_by_one)


@pytest.mark.must
@pytest.mark.needs("functional_optimizer")
@both_ways
def test_no_gradients(implementation: Implementation, device: str, optimizer: str, one_by_one: bool) -> None:
    """Handed None for every parameter, it changes nothing."""
    both = _stateful(implementation, optimizer, device)
    for gradients in ([None] * len(both.params), both.draw(), [None] * len(both.params), both.draw()):
        both.feed(gradients, one_by_one=one_by_one)


@pytest.mark.must
@pytest.mark.needs("functional_optimizer")
@both_ways
def test_sparse_gradient(implementation: Implementation, device: str, optimizer: str, one_by_one: bool) -> None:
    """It takes sparse gradients if its class does; if not, it raises, and changes nothing."""
    both = SideBySide(implementation, optimizer, {"lr": 0.05}, device, model="SparseEmbedding")
    for _ in range(3):
        gradients = both.draw(sparse=True)
        try:
            both.step_standard(gradients)
        except Exception:  # noqa: BLE001 (torch raises what it likes)
            before = [param.detach().clone() for param in both.params]
            _raises(both, gradients, one_by_one)
            for param, value in zip(both.params, before, strict=True):
                assert torch.equal(param, value), "a sparse gradient is rejected, but a parameter has changed"
            return
        both.step_functional(gradients, one_by_one=one_by_one)
        both.compare()


@pytest.mark.must
@pytest.mark.needs("functional_optimizer")
@pytest.mark.parametrize("change", [-1, 1], ids=["one-less", "one-more"])
def test_other_length(implementation: Implementation, device: str, optimizer: str, change: int) -> None:
    """Gradients fewer or more than its parameters are a ValueError, and nothing has changed."""
    both = _stateful(implementation, optimizer, device)
    gradients = both.draw()
    before = [param.detach().clone() for param in both.params]
    with _rejecting(f"{len(gradients) + change} gradients for {len(both.params)} parameters"):
        both.functional.step(gradients[:-1] if change < 0 else [*gradients, gradients[0]])
    for param, value in zip(both.params, before, strict=True):
        assert torch.equal(param, value), "the gradients are rejected, but a parameter has changed"
    both.feed(gradients)


@pytest.mark.must
@pytest.mark.needs("functional_optimizer")
def test_no_parameters(implementation: Implementation, device: str, optimizer: str) -> None:
    """An empty list of parameters is a ValueError, as in `torch.optim`."""
    both = _stateful(implementation, optimizer, device)
    with _rejecting("an empty list of parameters"):
        both.make_functional([])


@pytest.mark.must
@pytest.mark.needs("functional_optimizer")
@both_ways
def test_gradient_fields(implementation: Implementation, device: str, optimizer: str, one_by_one: bool) -> None:
    """The `.grad` of a parameter is neither read nor written, and a gradient that is handed over stays as it is."""
    both = _stateful(implementation, optimizer, device)
    fields = [torch.full_like(param, float("nan")) for param in both.params]
    for param, grad in zip(both.params, fields, strict=True):
        param.grad = grad
    for _ in range(2):
        gradients = both.draw()
        handed = [grad.clone() for grad in gradients]
        both.step_standard(gradients)
        if one_by_one:
            for param, grad in zip(both.params, handed, strict=True):
                both.functional.step_param(param, grad)
        else:
            both.functional.step(handed)
        both.compare()
        for param, kept in zip(both.params, fields, strict=True):
            assert param.grad is kept, "the .grad of a parameter is another tensor after the step"
            assert kept.isnan().all(), "the .grad of a parameter has other values after the step"
        for grad, given in zip(gradients, handed, strict=True):
            assert torch.equal(grad, given), "a gradient that was handed over has other values after the step"


@pytest.mark.must
@pytest.mark.needs("functional_optimizer")
def test_independent_states(implementation: Implementation, device: str, optimizer: str) -> None:
    """The state of a parameter depends on its own steps alone, however those of others come in between."""
    both = _stateful(implementation, optimizer, device)
    for number in (0, 0, 1, 0, 2, 1, 1, 0):
        drawn = both.draw()
        gradients = [grad if place == number else None for place, grad in enumerate(drawn)]
        both.step_standard(gradients)
        both.functional.step_param(both.params[number], drawn[number].clone())
        both.compare()


@pytest.mark.must
@pytest.mark.needs("functional_optimizer")
@both_ways
def test_changed_lr(implementation: Implementation, device: str, optimizer: str, one_by_one: bool) -> None:
    """A learning rate that is changed between steps, in `param_groups` as in `torch.optim`, holds from the next on."""
    both = _stateful(implementation, optimizer, device)
    for lr in (0.05, 0.01, 0.3):
        both.functional.set_lr(lr)
        for group in both.standard.param_groups:
            group["lr"] = lr
        both.feed(both.draw(), one_by_one=one_by_one)
        both.feed(both.draw(), one_by_one=one_by_one)


@pytest.mark.must
@pytest.mark.needs("functional_optimizer")
@pytest.mark.parametrize(
    ("source", "target"), [("functional", "functional"), ("functional", "class"), ("class", "functional")]
)
def test_state_dict(implementation: Implementation, device: str, optimizer: str, source: str, target: str) -> None:
    """A state that was saved goes on where it was: in a functional optimizer and in one of the class, from either."""
    both = _stateful(implementation, optimizer, device)
    both.functional.set_lr(0.03)
    both.standard.param_groups[0]["lr"] = 0.03
    for _ in range(2):
        both.feed(both.draw())
    saved = copy.deepcopy(both.functional.state_dict() if source == "functional" else both.standard.state_dict())
    if target == "functional":
        both.functional = both.make_functional(both.params)
        both.functional.load_state_dict(saved)
    else:
        both.standard = both.make_standard(both.expected)
        with must_not_raise("loading the state into the class of torch.optim"):
            both.standard.load_state_dict(saved)
    for _ in range(2):
        both.feed(both.draw())


@pytest.mark.should
@pytest.mark.needs("functional_optimizer")
@both_ways
def test_compile(implementation: Implementation, device: str, optimizer: str, one_by_one: bool) -> None:
    """Compiled by `torch.compile(fullgraph=True)` for the backend `aot_eager`, steps are the same to the bit.

    The backend `eager` ends after the first of the stages that `aot_eager` has.

    `torch._dynamo.config.enable_dynamo_decompositions` is off: it rewrites `addcdiv_` into other operations, for the
    sake of inductor, and "can affect numerics for non-inductor backends".
    """
    config: Any = torch._dynamo.config  # noqa: SLF001 (it has no other name)
    rewrites = hasattr(config, "enable_dynamo_decompositions")  # since torch 2.11
    with config.patch(enable_dynamo_decompositions=False) if rewrites else nullcontext():
        _compiled(implementation, optimizer, device, "aot_eager", 0.0, one_by_one=one_by_one)


@pytest.mark.should
@pytest.mark.needs("functional_optimizer")
def test_compile_by_inductor(implementation: Implementation, device: str, optimizer: str) -> None:
    """Compiled by `torch.compile(fullgraph=True)` as it is, steps differ by roundings.

    Generated code fuses multiplications and additions, which rounds once instead of twice: 1e-6 of the largest value.
    """
    if device == "cpu" and not any(map(shutil.which, ("g++", "clang++"))):
        raise NotRun("no C++ compiler here, which inductor needs")
    _compiled(implementation, optimizer, device, "inductor", FUSED_MULTIPLY_ADD, one_by_one=False)


@pytest.mark.should
@pytest.mark.needs("functional_optimizer")
@pytest.mark.parametrize("nesterov", [False, True], ids=["plain", "nesterov"])
def test_script(implementation: Implementation, device: str, nesterov: bool) -> None:
    """`function` of a functional SGD, compiled by `torch.jit.script`, steps as the class does.

    It takes parameters, gradients and momentum buffers as lists, and options by name. (TorchScript is deprecated, and
    goes when torch removes it.)
    """
    options = {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.1, "nesterov": nesterov}
    both = SideBySide(implementation, "SGD", options, device)
    function = both.functional.offered("function")
    if not hasattr(torch.jit, "script"):
        raise NotRun("this torch has no torch.jit.script")
    with warnings.catch_warnings(), must_not_raise("torch.jit.script of SGD's function"):
        warnings.simplefilter("ignore")
        scripted = torch.jit.script(function)
    both.feed(both.draw())  # TorchScript copies lists, so that buffers of a first step would not come back
    buffers = [both.standard.state[param]["momentum_buffer"].clone() for param in both.expected]
    for _ in range(3):
        gradients = both.draw()
        both.step_standard(gradients)
        with torch.no_grad(), must_not_raise("a step of the scripted function"):
            scripted(both.params, gradients, buffers, dampening=0.0, maximize=False, **options)
        for expected, param in zip(both.expected, both.params, strict=True):
            assert torch.equal(expected, param), "a step of the scripted function gives another result"


def _stateful(implementation: Implementation, optimizer: str, device: str, model: str = "") -> SideBySide:
    return SideBySide(implementation, optimizer, _stateful_options(optimizer), device, model)


def _stateful_options(optimizer: str) -> dict[str, Any]:
    """Return options that give a state to SGD as well."""
    return {"lr": 0.05, "momentum": 0.9} if optimizer == "SGD" else {"lr": 0.05}


@contextmanager
def _rejecting(what: str) -> Iterator[None]:
    """Demand a ValueError that says something."""
    try:
        yield
    except ValueError as error:
        if str(error).strip():
            return
    raise AssertionError(f"{what}: there is no ValueError with a message")


def _raises(both: SideBySide, gradients: list[Tensor], one_by_one: bool) -> None:
    try:
        both.step_functional(gradients, one_by_one=one_by_one)
    except Exception:  # noqa: BLE001 (whatever it raises: torch.optim does as well)
        return
    raise AssertionError("a step goes through where the class of torch.optim raises")


def _compiled(
    implementation: Implementation, optimizer: str, device: str, backend: str, tolerance: float, *, one_by_one: bool
) -> None:
    # One parameter: step_param is compiled for each, and torch.compile stops at recompile_limit.
    both = _stateful(implementation, optimizer, device, model="DenseEmbedding")
    torch.compiler.reset()
    compiled: Any = torch.compile(both.functional.offered(_name(one_by_one)), fullgraph=True, backend=backend)
    for number in range(8):
        gradients = both.draw()
        if number == 4:
            both.functional.set_lr(0.02)
            both.standard.param_groups[0]["lr"] = 0.02
        both.step_standard(gradients)
        with must_not_raise(f"the compiled {_name(one_by_one)}"):
            if one_by_one:
                for param, grad in zip(both.params, gradients, strict=True):
                    compiled(param, grad)
            else:
                compiled(gradients)
        both.compare(tolerance)


def _name(one_by_one: bool) -> str:
    return "step_param" if one_by_one else "step"
