"""The base of the optimizers here: a step is a loop over parameters, so one parameter can be stepped alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class OneByOne(Optimizer):
    """`step()` steps all parameters, as after an ordinary backward; `step_parameter` steps one of them."""

    def update(self, param: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        """Change one parameter, and its state."""
        raise NotImplementedError

    def start(self) -> None:
        """Do what a step does first, before any parameter is updated."""

    def finish(self) -> None:
        """Do what a step does last, when all parameters have been updated."""

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        with torch.enable_grad():
            loss = closure() if closure else None
        self.start()
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is not None:
                    self.update(param, param.grad, group)
        self.finish()
        return loss

    @torch.no_grad()
    def step_parameter(self, param: Tensor) -> None:
        """Step one parameter, as often as it is listed."""
        for group in self.param_groups:
            for listed in group["params"]:
                if listed is param and param.grad is not None:
                    self.update(param, param.grad, group)


def step_and_free(param: Tensor, optimizers: Iterable[OneByOne]) -> None:
    """Step a parameter by those that hold it, in order, and free its gradient."""
    with torch.inference_mode(mode=False), torch.no_grad():  # state made in inference mode could not be changed later
        for optimizer in optimizers:
            optimizer.step_parameter(param)
    param.grad = None


def parameters_of(optimizers: Iterable[Optimizer]) -> list[Tensor]:
    """Return the parameters of all groups, each once."""
    params = (param for optimizer in optimizers for group in optimizer.param_groups for param in group["params"])
    return list({id(param): param for param in params}.values())


def may_be_read(param: Tensor) -> bool:
    """Return whether a tensor of the running graph may share the parameter's memory, such as `param.detach()`."""
    given: Any = param
    if is_traceable_wrapper_subclass(given):
        return True
    try:
        return _users(param) > _ONE_USER
    except (NotImplementedError, RuntimeError):  # a nested tensor, for example, has no storage to ask
        return True


def twice_in_one_backward(param: Tensor) -> RuntimeError:
    return RuntimeError(
        f"A second part of the gradient of a parameter of shape {tuple(param.shape)} came after it was already stepped "
        f"with the first, as in reentrant checkpointing of a shared layer. Use checkpoint(…, use_reentrant=False)."
    )


def _users(tensor: Tensor) -> int:
    users: int = torch._C._storage_Use_Count(tensor.untyped_storage()._cdata)
    return users


_ONE_USER = _users(torch.empty(1))
