"""`check_training`: is optimizer in backward exact on a model of one's own?"""

from __future__ import annotations

import itertools
import random
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from expecttest import assert_expected_inline
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import inbackward_conformance
from inbackward_conformance import OwnOptimizer, UnusableModel, check_training
from inbackward_conformance.adapters.find import UnusableImplementation
from inbackward_conformance.outcome import NotOffered
from inbackward_conformance.own_model.result import TrainingResult
from inbackward_conformance.own_model.standard import OF_BUILD, OF_TRAINING
from inbackward_conformance.own_model.unusable import NotDeterministic
from mutants.naive import Naive
from mutants.of_hazards import FrozenRefused, HooksKeptByRefusal

if TYPE_CHECKING:
    from torch.optim import Optimizer

BATCHES = torch.linspace(-1, 1, 5 * 4 * 8).view(5, 4, 8)
SOUND = ["reference", "reference-handed", Naive]


def layers() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 8))


def square(model: nn.Module, step: int) -> Tensor:
    return model(BATCHES[step]).square().mean()  # type: ignore[no-any-return]


def check(
    build_model: Callable[[], nn.Module] = layers,
    compute_loss: Callable[[nn.Module, int], Any] = square,
    implementation: Any = Naive,
    **keywords: Any,
) -> TrainingResult:
    return check_training(
        build_model, compute_loss, torch.optim.AdamW, {"lr": 0.01}, implementation=implementation, **keywords
    )


class Everything(nn.Module):
    """A tied weight, a frozen one, an unused layer, a buffer of integers, dropout, a branch, and two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(8, 8)
        self.head = nn.Linear(8, 8)
        self.head.weight = self.words.weight
        self.norm = nn.BatchNorm1d(8)
        self.frozen = nn.Linear(8, 8).requires_grad_(False)
        self.branches = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))
        self.calls: Tensor
        self.register_buffer("calls", torch.zeros((), dtype=torch.int16))

    def forward(self, words: Tensor) -> tuple[Tensor, Tensor]:
        self.calls += 1
        hidden = nn.functional.dropout(self.norm(self.frozen(self.words(words))), 0.3)
        hidden = self.branches[0 if hidden.sum() > 0 else 1](hidden) * (random.random() + np.random.rand())  # noqa: NPY002, S311
        return self.head(hidden), hidden


def two_losses(model: nn.Module, step: int) -> Tensor:
    words = torch.arange(6) + step % 3
    scores, hidden = model(words)
    loss: Tensor = nn.functional.cross_entropy(scores, words) + hidden.square().mean()
    return loss


@pytest.mark.parametrize("implementation", SOUND)
def test_a_sound_implementation_is_equal(implementation: Any) -> None:
    """Dropout and branches that depend on data are no obstacle."""
    assert check(Everything, two_losses, implementation, params=trained).equal


@pytest.mark.parametrize("implementation", SOUND[:2])
def test_frozen_parameters_may_be_passed_to_the_optimizer(implementation: str) -> None:
    assert check(Everything, two_losses, implementation).equal


def last_layer_frozen() -> nn.Module:
    model = layers()
    model.get_submodule("2").requires_grad_(False)
    return model


@pytest.mark.parametrize(
    ("implementation", "outcome", "detail"),
    [
        (FrozenRefused, "refuses", "attaching AdamW(lr=0.01) raises ValueError: frozen parameters"),
        (HooksKeptByRefusal, "fails", "refused, but the next backward changes 0.weight, 0.bias: attaching AdamW("),
    ],
)
def test_a_refused_attachment_leaves_nothing(implementation: type[Naive], outcome: str, detail: str) -> None:
    result = check(last_layer_frozen, implementation=implementation)
    assert result.outcome == outcome
    assert result.detail.startswith(detail)


def trained(model: nn.Module) -> list[nn.Parameter]:
    return [param for param in model.parameters() if param.requires_grad]


def test_parameter_groups() -> None:
    def groups(model: nn.Module) -> list[dict[str, Any]]:
        return [
            {"params": [param for param in model.parameters() if param.dim() > 1], "weight_decay": 0.5},
            {"params": [param for param in model.parameters() if param.dim() == 1], "weight_decay": 0.0},
        ]

    assert check(implementation="reference-handed", params=groups).equal


def test_sparse_gradients() -> None:
    def embedding() -> nn.Module:
        return nn.Embedding(8, 4, sparse=True)

    def loss(model: nn.Module, step: int) -> Tensor:
        return model(torch.tensor([step, 1, 1])).square().sum()  # type: ignore[no-any-return]

    result = check_training(embedding, loss, torch.optim.SGD, implementation=Naive)
    assert (result.equal, result.gradient_bytes) == (True, 3 * 8 + 3 * 4 * 4)


def test_the_result_says_what_was_compared_and_counted() -> None:
    assert_expected_inline(
        str(check()),
        """\
Naive: conforms: equal to the standard loop, bit by bit, after each of 5 steps
    gradients: at most 576 bytes at a time, 0.51 of the standard loop's 1,120""",
    )


class NoBiases(Naive):
    def step(self, optimizer: Optimizer, param: Tensor) -> None:
        if param.dim() > 1:
            super().step(optimizer, param)


class ForgetsStates(Naive):
    """Its parameters are those of SGD with momentum in the first two steps, and its states are not."""

    def step(self, optimizer: Optimizer, param: Tensor) -> None:
        super().step(optimizer, param)
        optimizer.state[param]["exp_avg"].mul_(2)


class ChangesBuffers(Naive):
    def backward(self, loss: Tensor, module: nn.Module) -> None:
        loss.backward()
        for buffer in module.buffers():
            buffer.add_(1)


class StepsLate(Naive):
    """Its first steps are right."""

    def __init__(self) -> None:
        self.steps = 0

    def step(self, optimizer: Optimizer, param: Tensor) -> None:
        self.steps += 1
        if self.steps <= 4:
            super().step(optimizer, param)


class KeepsGradients(Naive):
    def on_gradient(self, param: Tensor) -> None:
        self.step_all(param)


def test_the_first_tensor_that_differs_is_named() -> None:
    details = [
        check(implementation=NoBiases).detail,
        check(implementation=ForgetsStates).detail,
        check(Everything, two_losses, ChangesBuffers, params=trained).detail,
        check(implementation=StepsLate).detail,
        check(implementation=KeepsGradients).detail,
    ]
    assert_expected_inline(
        "\n".join(details),
        """\
parameter '0.bias' differs from the standard loop after step 0: largest difference 0.01
optimizer state of '0.weight' differs from the standard loop after step 0: 'exp_avg': largest difference 0.00433
buffer 'calls' differs from the standard loop after step 0: largest difference 1
parameter '0.weight' differs from the standard loop after step 1: largest difference 0.00973
0.weight.grad is left over after step 0; expected None""",
    )
    assert check(implementation=NoBiases).outcome == "diverges"
    assert check(implementation=KeepsGradients).outcome == "fails"


class CheckpointedTwice(nn.Module):
    """A layer that reentrant checkpointing runs twice has its gradient in two parts."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, values: Tensor) -> Tensor:
        for _ in range(2):
            values = checkpoint(self.layer, values, use_reentrant=True)
        return values


def square_of_tracked(model: nn.Module, step: int) -> Tensor:
    return model(BATCHES[step].clone().requires_grad_()).square().mean()  # type: ignore[no-any-return]


def test_a_hazard_that_only_the_graph_shows() -> None:
    """One implementation trains something else, the other refuses late, and says that it does."""
    results = [check(CheckpointedTwice, square_of_tracked, name) for name in ("torch", "reference-handed")]
    assert [result.outcome for result in results] == ["diverges", "refuses"]
    assert "parameter 'layer.weight' differs from the standard loop after step 0" in results[0].detail
    assert "the parameter was already stepped with the first part" in results[1].detail


class TakesNoAdamW(Naive):
    def apply(self, optimizer_class: Any, params: Any, optimizer_kwargs: Any, register_hook: bool = True) -> None:
        raise ValueError(f"{optimizer_class.__name__} is not supported: take SGD")


class TakesNoDropout(Naive):
    def backward(self, loss: Tensor, module: nn.Module) -> None:
        raise RuntimeError("a graph with dropout is not supported")


class RaisesAfterAStep(Naive):
    def on_gradient(self, param: Tensor) -> None:
        super().on_gradient(param)
        raise RuntimeError("enough")


class LacksAnAttribute(Naive):
    def step(self, optimizer: Optimizer, param: Tensor) -> None:
        param.no_such  # type: ignore[attr-defined]  # noqa: B018


class CannotBeMade(Naive):
    def __init__(self) -> None:
        raise RuntimeError("no licence")


class OffersNothing(Naive):
    def apply(self, optimizer_class: Any, params: Any, optimizer_kwargs: Any, register_hook: bool = True) -> None:
        raise NotOffered("only on Tuesdays")


def wrapped(texts: list[str]) -> str:
    """Return texts without the numbers of lines, and with those numbers left out that kernels of torch decide."""
    shortened = (re.sub(r"(\.py:|difference )[\d.e-]+", r"\1N", text) for text in texts)
    return "\n".join(textwrap.fill(text, 110, subsequent_indent="    ") for text in shortened)


def test_an_implementation_that_raises_alone() -> None:
    named = (TakesNoAdamW, TakesNoDropout, RaisesAfterAStep, LacksAnAttribute, CannotBeMade, OffersNothing)
    results = [str(check(implementation=each)) for each in named]
    assert_expected_inline(
        wrapped(results),
        """\
TakesNoAdamW: refuses: attaching AdamW(lr=0.01) raises ValueError: AdamW is not supported: take SGD
TakesNoDropout: refuses: step 0 raises RuntimeError: a graph with dropout is not supported (in backward or a
    step of the optimizer, test_check_training.py:N)
RaisesAfterAStep: fails: torn update: step 0 raises RuntimeError: enough (in backward or a step of the
    optimizer, test_check_training.py:N), without a word of the parameters already stepped: 2.bias, the state
    of 2.bias
LacksAnAttribute: fails: an accident, not a refusal: step 0 raises AttributeError: 'Parameter' object has no
    attribute 'no_such' (in backward or a step of the optimizer, test_check_training.py:N)
CannotBeMade: fails: its constructor raises RuntimeError: no licence
OffersNothing: not offered: only on Tuesdays""",
    )


class Counts(nn.Module):
    """Its forward raises where the first step has not changed a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)
        self.before = self.layer.bias.detach().clone()

    def forward(self, values: Tensor) -> Tensor:
        if self.layer.bias.equal(self.before) and values[0, 0] > BATCHES[0, 0, 0]:
            raise ValueError("nothing was trained")
        return self.layer(values)  # type: ignore[no-any-return]


class StepsNothing(Naive):
    def step(self, optimizer: Optimizer, param: Tensor) -> None:
        pass


def test_a_difference_counts_before_an_error_that_follows_from_it() -> None:
    assert check(Counts, implementation=StepsNothing).outcome == "diverges"


class AcceptsAnything(Naive):
    """It makes an optimizer of options that its class rejects."""

    def build(self, optimizer_class: type[Optimizer], params: list[Any], kwargs: dict[str, Any]) -> Optimizer:
        return optimizer_class(params, **{key: abs(value) for key, value in kwargs.items()})


def test_an_error_of_the_standard_loop_alone() -> None:
    result = check_training(layers, square, torch.optim.AdamW, {"lr": -1.0}, implementation=AcceptsAnything)
    assert_expected_inline(
        wrapped([str(result)]),
        """\
AcceptsAnything: diverges: attaching AdamW(lr=-1.0) goes through, where the standard loop raises ValueError:
    Invalid learning rate: -1.0""",
    )


def no_way_back(_: Tensor) -> Tensor:
    raise ArithmeticError("there is no way back")


def without_a_way_back(model: nn.Module, step: int) -> Tensor:
    loss = square(model, step)
    loss.register_hook(no_way_back)
    return loss


def backward_and_loss(model: nn.Module, step: int) -> Tensor:
    square(model, step).backward()
    return square(model, step)


def raises(*_: Any) -> Any:
    raise FileNotFoundError("no data here\nnor there")


class HasOwnState(nn.Module):
    """The state is in the class: one model changes another."""

    calls = 0

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, values: Tensor) -> Tensor:
        HasOwnState.calls += 1
        return self.layer(values) * HasOwnState.calls  # type: ignore[no-any-return]


def one_model(model: nn.Module) -> Callable[[], nn.Module]:
    return lambda: model


def drawn_by(generator: torch.Generator) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        model = nn.Linear(8, 8)
        nn.init.normal_(model.weight, generator=generator)
        return model

    return build


def next_of(batches: Iterator[Tensor]) -> Callable[[nn.Module, int], Tensor]:
    return lambda model, _: model(next(batches)).square().mean()


def lazy() -> nn.Module:
    return nn.LazyLinear(8)


OTHER = layers()
UNUSABLE: dict[str, dict[str, Any]] = {
    "build raises": {"build_model": raises},
    "build returns no model": {"build_model": lambda: {"model": 1}},
    "build returns its model again": {"build_model": one_model(layers())},
    "build leaves a lazy layer": {"build_model": lazy},
    "build draws from a generator of its own": {"build_model": drawn_by(torch.Generator().manual_seed(0))},
    "the loss is no function": {"compute_loss": torch.ones(1)},
    "the loss takes other arguments": {"compute_loss": lambda model: model(BATCHES[0]).sum()},
    "the loss is a number": {"compute_loss": lambda model, step: square(model, step).item()},
    "the loss is not one number": {"compute_loss": lambda model, step: model(BATCHES[step])},
    "the loss has no graph": {"compute_loss": lambda model, step: square(model, step).detach()},
    "the loss is of another model": {"compute_loss": lambda _, step: square(OTHER, step)},
    "the loss is None": {"compute_loss": lambda *_: None},
    "the loss runs backward": {"compute_loss": backward_and_loss},
    "the loss raises": {"compute_loss": raises},
    "the loss raises later": {"compute_loss": lambda model, step: model(BATCHES[step * 4]).sum()},
    "backward raises": {"compute_loss": without_a_way_back},
    "batches go on": {"compute_loss": next_of(itertools.cycle(BATCHES[:4]))},
    "batches end": {"compute_loss": next_of(iter(BATCHES))},
    "the class counts": {"build_model": HasOwnState},
}


def test_a_model_that_cannot_be_checked() -> None:
    """Each message says what is wrong with the model, and none blames the implementation."""
    told = []
    for what, keywords in UNUSABLE.items():
        with pytest.raises(UnusableModel) as raised:
            check(**keywords)
        told.append(f"{what}: {raised.value}".replace(OF_BUILD, "[OF_BUILD]").replace(OF_TRAINING, "[OF_TRAINING]"))
    assert_expected_inline(
        wrapped(told),
        """\
build raises: build raises FileNotFoundError: no data here (test_check_training.py:N); nothing was compared
build returns no model: build returned a dict of 1 as the model: expected a torch.nn.Module
build returns its model again: build returned parameter '0.weight' for a second time: make a new model on each
    call
build leaves a lazy layer: parameter 'weight' is not initialized yet: have `build` run the model once
build draws from a generator of its own: the model is not deterministic, so nothing can be compared. In two
    runs of the standard loop with the same seed, parameter 'weight' differs after build: largest difference N
    [OF_BUILD]
the loss is no function: build returned a Tensor as compute_loss: expected a function of (model, step)
the loss takes other arguments: compute_loss cannot be called as compute_loss(model, step): too many
    positional arguments
the loss is a number: compute_loss returned a float in step 0: expected a loss, a tensor of one number
the loss is not one number: compute_loss returned a tensor of shape (4, 8) in step 0: expected a loss, a
    tensor of one number
the loss has no graph: compute_loss returned a loss without a graph in step 0: compute it with the model that
    is passed, without torch.no_grad() or detach()
the loss is of another model: no parameter has a gradient: compute the loss with the model that compute_loss
    is passed
the loss is None: compute_loss returned None in step 0: expected a loss, a tensor of one number
the loss runs backward: compute_loss runs backward in step 0: return the loss, for several batches the sum of
    theirs, and leave backward to the check
the loss raises: the standard loop itself raises, so nothing can be compared: step 0 raises FileNotFoundError:
    no data here (in compute_loss, test_check_training.py:N)
the loss raises later: the standard loop itself raises, so nothing can be compared: step 2 raises IndexError:
    index 8 is out of bounds for dimension 0 with size 5 (in compute_loss, test_check_training.py:N)
backward raises: the standard loop itself raises, so nothing can be compared: step 0 raises ArithmeticError:
    there is no way back (in backward or a step of the optimizer, test_check_training.py:N)
batches go on: the model is not deterministic, so nothing can be compared. In two runs of the standard loop
    with the same seed, parameter '0.weight' differs after step 0: largest difference N [OF_TRAINING]
batches end: the model is not deterministic, so nothing can be compared. In two runs of the standard loop with
    the same seed, one of them alone raises in step 0: StopIteration: (no message) (in compute_loss,
    test_check_training.py:N). [OF_TRAINING]
the class counts: the model is not deterministic, so nothing can be compared. In two runs of the standard loop
    with the same seed, parameter 'layer.weight' differs after step 0: largest difference N [OF_TRAINING]""",
    )


def test_nothing_is_trained() -> None:
    with pytest.raises(UnusableModel) as raised:
        check_training(layers, square, torch.optim.SGD, {"lr": 0.0}, implementation=Naive)
    assert_expected_inline(
        str(raised.value),
        """no parameter changes in 5 steps of the standard loop, so nothing can differ: check the learning rate""",
    )


def test_an_unknown_device() -> None:
    with pytest.raises(UnusableModel, match="moving the model to nowhere raises RuntimeError: Expected one of cpu, "):
        check(device="nowhere")


def test_the_error_of_the_model_is_the_cause() -> None:
    for keywords in ({"build_model": raises}, {"compute_loss": raises}):
        with pytest.raises(UnusableModel) as raised:
            check(**keywords)
        assert isinstance(raised.value.__cause__, FileNotFoundError)


class RarelyDifferent(nn.Module):
    """Its third training differs from the others, as that by a kernel on an accelerator may."""

    trainings = 0

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)
        RarelyDifferent.trainings += 1
        self.factor = 2 if RarelyDifferent.trainings > 3 else 1  # the third counts bytes

    def forward(self, values: Tensor) -> Tensor:
        return self.layer(values) * self.factor  # type: ignore[no-any-return]


def test_an_implementation_is_not_blamed_for_what_the_standard_loop_does_too() -> None:
    with pytest.raises(NotDeterministic):
        check(RarelyDifferent)


@pytest.mark.parametrize(
    ("keywords", "error", "message"),
    [
        ({"implementation": "no-such"}, UnusableImplementation, "unknown implementation 'no-such'; registered here: "),
        ({"implementation": nn}, UnusableImplementation, "implementation 'torch.nn' has no `apply`. Give it apply("),
        ({"build_model": "layers"}, TypeError, "build_model='layers': expected a function that returns a new model"),
        ({"steps": 0}, ValueError, "steps=0: expected a number of at least 1"),
        ({"seed": -1}, ValueError, "seed=-1: expected a number from 0 to 4294967295"),
    ],
)
def test_wrong_arguments(keywords: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        check(**keywords)


def test_wrong_optimizers() -> None:
    with pytest.raises(TypeError, match=r"optimizer_class='AdamW': expected a class, as torch\.optim\.AdamW"):
        check_training(layers, square, "AdamW", implementation=Naive)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"options=0\.1: expected keyword arguments of the optimizer"):
        check_training(layers, square, torch.optim.AdamW, 0.1, implementation=Naive)  # type: ignore[arg-type]


class OnlyItsOwn(Naive):
    own_optimizers = (OwnOptimizer("torch.optim:Adagrad"), OwnOptimizer("torch.optim:SGD"))


def test_an_optimizer_class_that_a_library_does_not_bring() -> None:
    assert str(check(implementation=OnlyItsOwn)) == (
        "OnlyItsOwn: not offered: it steps optimizer classes of its own: torch.optim:Adagrad, torch.optim:SGD"
    )
    assert check_training(layers, square, torch.optim.SGD, implementation=OnlyItsOwn).equal


class Rounds(Naive):
    rounding = (1e-3, "it sums in another order")

    def step(self, optimizer: Optimizer, param: Tensor) -> None:
        super().step(optimizer, param)
        param.data.mul_(1 + 1e-6)


def test_declared_rounding_is_told() -> None:
    assert check(implementation=Rounds).detail == (
        "equal to the standard loop, up to 0.001, as it declares (it sums in another order), after each of 5 steps"
    )


def test_random_numbers_go_on_where_the_caller_left_them() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state(), random.getstate(), repr(np.random.get_state())  # noqa: NPY002
    check(Everything, two_losses, params=trained)
    with pytest.raises(UnusableModel):
        check(compute_loss=raises)
    torch_state, *others = torch.get_rng_state(), random.getstate(), repr(np.random.get_state())  # noqa: NPY002
    assert torch_state.equal(before[0])
    assert others == list(before[1:])


def test_no_hooks_but_those_of_the_implementation_where_parameters_are_compared() -> None:
    """Bytes are counted in a training of their own: hooks there must not decide what is equal."""

    class DislikesHooks(Naive):
        def on_gradient(self, param: Tensor) -> None:
            if param._backward_hooks:
                raise RuntimeError("somebody else's hook")
            super().on_gradient(param)

    result = check(implementation=DislikesHooks)
    assert (result.equal, result.gradient_bytes) == (True, None)


def test_importing_the_package_loads_no_torch() -> None:
    code = "import sys, inbackward_conformance as it; assert 'torch' not in sys.modules; print(it.check_training)"
    assert "check_training" in subprocess.check_output([sys.executable, "-c", code], text=True)
    assert "check_training" in inbackward_conformance.__all__
