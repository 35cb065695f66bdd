"""What is trained: a model of one's own, by one optimizer, for a few steps."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.nn.parameter import UninitializedParameter

from inbackward_conformance.own_model.place import described
from inbackward_conformance.own_model.unusable import UnusableModel
from inbackward_conformance.raised_error import is_observation

if TYPE_CHECKING:
    import torch
    from torch.optim import Optimizer

    ComputeLoss = Callable[[nn.Module, int], torch.Tensor]
    """Returns the loss of a step of a model; steps are counted from 0."""

EXPECTED = "expected (model, compute_loss), or (model, compute_loss, parameters or groups for the optimizer)"

MAX_SEED = 2**32
"""NumPy takes no larger one."""


@dataclass(frozen=True)
class Made:
    """What one call of `build` has returned.

    Attributes:
        params: the parameters or groups for the optimizer; None for `model.parameters()`.
    """

    model: nn.Module
    compute_loss: ComputeLoss
    params: Any = None


@dataclass(frozen=True)
class Task:
    """A training that both methods do.

    Attributes:
        build: returns a new model and the function that computes the loss of a step, and as a third value, if it likes,
            the parameters or groups for the optimizer.
        optimizer_class: the class of the optimizer.
        options: its keyword arguments.
        steps: the number of steps.
        seed: the seed of the random numbers, which are the same in each run.
        device: where to move the model; empty to leave it where it was built.
    """

    build: Callable[[], Any]
    optimizer_class: type[Optimizer]
    options: Mapping[str, Any] = field(default_factory=dict)
    steps: int = 5
    seed: int = 0
    device: str = ""

    def __post_init__(self) -> None:
        """Reject what cannot be used."""
        given: dict[str, Any] = vars(self)
        if not callable(given["optimizer_class"]):
            raise TypeError(f"optimizer_class={self.optimizer_class!r}: expected a class, as torch.optim.AdamW")
        if not isinstance(given["options"], Mapping):
            raise TypeError(f"options={self.options!r}: expected keyword arguments of the optimizer, as {{'lr': 0.01}}")
        if not isinstance(given["steps"], int) or self.steps < 1:
            raise ValueError(f"steps={self.steps!r}: expected a number of at least 1")
        if not isinstance(given["seed"], int) or not 0 <= self.seed < MAX_SEED:
            raise ValueError(f"seed={self.seed!r}: expected a number from 0 to {MAX_SEED - 1}")

    @property
    def optimizer(self) -> str:
        """The optimizer, as it is written."""
        options = ", ".join(f"{key}={value!r}" for key, value in self.options.items())
        return f"{getattr(self.optimizer_class, '__name__', self.optimizer_class)}({options})"

    @property
    def attaching(self) -> str:
        """What happens before the first step, in words."""
        return f"attaching {self.optimizer}"

    def make(self) -> Made:
        """Call `build`, and move the model to the device.

        Raises:
            UnusableModel: `build` raises, or returns something else.
        """
        made = _made(_call("build", self.build))
        if self.device:
            _call(f"moving the model to {self.device}", lambda: made.model.to(self.device))
        return made

    def assignment(self, made: Made) -> tuple[type[Optimizer], Any, dict[str, Any], bool]:
        """Return the arguments to attach the optimizer with."""
        params = made.model.parameters() if made.params is None else made.params
        return self.optimizer_class, params, copy.deepcopy(dict(self.options)), True


def _call(what: str, function: Callable[[], Any]) -> Any:
    try:
        return function()
    except BaseException as error:
        if not is_observation(error):
            raise
        raise UnusableModel(f"{what} raises {described(error)}; nothing was compared") from error


def _made(returned: Any) -> Made:
    if not isinstance(returned, tuple | list) or not 2 <= len(returned) <= 3:  # noqa: PLR2004
        raise UnusableModel(f"build returned {kind_of(returned)}: {EXPECTED}")
    made = Made(*returned)
    if not isinstance(returned[0], nn.Module):
        raise UnusableModel(f"build returned {kind_of(returned[0])} as the model: expected a torch.nn.Module")
    if not callable(returned[1]):
        raise UnusableModel(
            f"build returned {kind_of(returned[1])} as compute_loss: expected a function of (model, step)"
        )
    try:
        inspect.signature(made.compute_loss).bind(made.model, 0)
    except TypeError as error:
        raise UnusableModel(f"compute_loss cannot be called as compute_loss(model, step): {error}") from error
    except ValueError:  # it shows no signature
        pass
    if lazy := [name for name, param in made.model.named_parameters() if isinstance(param, UninitializedParameter)]:
        raise UnusableModel(f"parameter {lazy[0]!r} is not initialized yet: have `build` run the model once")
    return made


def kind_of(value: Any) -> str:
    """Return what `value` is, as `a Linear` or `a tuple of 4`."""
    number = f" of {len(value)}" if isinstance(value, tuple | list | dict) else ""
    return "None" if value is None else f"a {type(value).__name__}{number}"
