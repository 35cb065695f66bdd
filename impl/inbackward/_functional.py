"""Functional optimizers: an optimizer that is handed gradients, and reads no `.grad`.

Options, parameter groups, state and its file format are those of an ordinary optimizer of torch, which is made and
never stepped. The step itself is the function of `torch.optim` that the class calls, `torch.optim.sgd.sgd` for SGD.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch.optim import Optimizer

    Group = dict[str, Any]
    State = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Entry:
    """One entry of a parameter's state.

    Attributes:
        key: Its name in the state.
        initial: Makes it from the parameter and its group; None where the function does, in the first step.
        only_with: The option without which there is no such entry; empty: there always is.
    """

    key: str
    initial: Callable[[torch.Tensor, Group], torch.Tensor] | None
    only_with: str = ""


@dataclass(frozen=True)
class Form:
    """How a class of `torch.optim` calls its function.

    Attributes:
        function: It takes lists of parameters, of gradients and of each entry, and options by name.
        entries: In the order of the function's lists.
        pairs: Options that the function takes as two, with the names of both.
    """

    function: Callable[..., None]
    entries: tuple[Entry, ...]
    pairs: Mapping[str, tuple[str, str]] = field(default_factory=dict)


class _Held:
    """A parameter that the optimizer holds, with what a step passes on of its group.

    Attributes:
        group: Its group.
        seen: A copy of the group, from when `keywords` were made.
        keywords: What the function takes by name.
    """

    __slots__ = ("group", "keywords", "seen")

    def __init__(self, group: Group) -> None:
        self.group = group
        self.seen: Group = {}
        self.keywords: dict[str, Any] = {}


class FunctionalOptimizer:
    """An optimizer that is handed gradients; equal, bit by bit, to the class of `torch.optim` that it is made from.

    `torch.compile(fullgraph=True)` takes `step` and `step_param`; the latter is compiled for each parameter, of which
    `torch._dynamo.config.recompile_limit` allows eight.

    Attributes:
        param_groups: As in `torch.optim`: parameters and options. To change lr is to set `param_groups[0]["lr"]`.
        state: As in `torch.optim`: what is kept of each parameter from step to step.
        function: The function of `torch.optim` that computes a step; that of SGD is one for `torch.jit.script`.
    """

    param_groups: list[Group]
    state: dict[torch.Tensor, State]

    def __init__(self, form: Form, optimizer: Optimizer) -> None:
        self.function = form.function
        self._form = form
        self._name = type(optimizer).__name__
        self._fused_for: set[tuple[torch.device, torch.dtype]] = set()
        self._optimizer = optimizer
        self._keys = tuple((entry.key, (None,) if entry.initial is None else ()) for entry in form.entries)
        self._initial = tuple((entry.key, entry.initial, entry.only_with) for entry in form.entries if entry.initial)
        self._made = tuple((index, entry.key) for index, entry in enumerate(form.entries) if entry.initial is None)
        takes = inspect.signature(form.function).parameters.keys() - {"params", *form.pairs}
        takes -= {key for entry in form.entries for key in (entry.key, f"{entry.key}s")}
        self._options = tuple(key for key in optimizer.defaults if key in takes)
        self._takes_sparse = "has_sparse_grad" in takes
        self._takes_complex = "has_complex" in takes
        self._share()

    def step(self, gradients: Sequence[torch.Tensor | None]) -> None:
        """Steps every parameter that is handed a gradient; for one that is handed None, nothing changes.

        Args:
            gradients: One for each parameter, in the order of the parameter groups.

        Raises:
            ValueError: There are more gradients than parameters or fewer, or one does not fit its parameter.
            RuntimeError: A gradient is sparse, and the class takes none. Nothing has been stepped then.
        """
        params = [param for group in self.param_groups for param in group["params"]]
        if len(params) != len(gradients):
            msg = (
                f"{len(gradients)} gradients were given for {len(params)} parameters. Give one for each parameter, in "
                f"order, and None for a parameter that is not to be stepped."
            )
            raise ValueError(msg)
        for param, grad in zip(params, gradients, strict=True):
            if grad is not None and not self._fits(param, grad):
                self._refuse(param, grad)
        for param, grad in zip(params, gradients, strict=True):
            self.step_param(param, grad)

    def step_param(self, param: torch.Tensor, grad: torch.Tensor | None) -> None:
        """Steps one parameter; if the gradient is None, nothing changes.

        Raises:
            ValueError: The parameter is none of this optimizer's, or the gradient does not fit it.
            RuntimeError: The gradient is sparse, and the class takes none.
        """
        held = self._held.get(param) or self._refuse_unknown(param)
        if grad is None:
            return
        # What follows is spelled out, without calls where that can be: with small parameters it is half of the time.
        if grad.shape != param.shape or grad.dtype is not param.dtype or (not self._takes_sparse and grad.is_sparse):
            self._refuse(param, grad)
        compiling = torch.compiler.is_compiling()
        group = held.group
        keywords = held.keywords
        if compiling:
            keywords = self._keywords(param, group)
        elif held.seen != group:
            self._refuse_fused(param, group)
            held.seen = group.copy()
            held.keywords = keywords = self._keywords(param, group)
        if self._takes_sparse:
            keywords["has_sparse_grad"] = grad.is_sparse
        with torch.set_grad_enabled(group["differentiable"]):  # as around a step of torch.optim
            state = self.state.get(param)
            if not state:
                state = self._start(param, group)
            lists = [[state[key]] if key in state else [*absent] for key, absent in self._keys]
            if compiling and "step" in state:
                self._call_compiled(state["step"], param, grad, lists, keywords)
            else:
                self.function([param], [grad], *lists, **keywords)
            for index, key in self._made:
                if lists[index][0] is not None:
                    self.state[param][key] = lists[index][0]

    def state_dict(self) -> dict[str, Any]:
        """Returns what the class of `torch.optim` would, which can load it."""
        return self._optimizer.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Loads what `state_dict` returned, of this or of the class of `torch.optim`.

        Raises:
            ValueError: It is of other parameter groups.
        """
        self._optimizer.load_state_dict(state_dict)
        self._share()

    def _share(self) -> None:
        # A step must not touch the optimizer itself: torch.compile makes every one that it meets capturable.
        self.param_groups = self._optimizer.param_groups
        self.state = self._optimizer.state
        self._held = {param: _Held(group) for group in self.param_groups for param in group["params"]}

    def _refuse_unknown(self, param: torch.Tensor) -> NoReturn:
        msg = (
            f"This functional {self._name} does not hold the given parameter of shape {tuple(param.shape)}. Make it "
            f"with all the parameters that it is to step."
        )
        raise ValueError(msg)

    def _fits(self, param: torch.Tensor, grad: torch.Tensor) -> bool:
        return grad.shape == param.shape and grad.dtype is param.dtype and (self._takes_sparse or not grad.is_sparse)

    def _refuse(self, param: torch.Tensor, grad: torch.Tensor) -> NoReturn:
        if grad.shape == param.shape and grad.dtype is param.dtype:
            msg = f"{self._name} takes no sparse gradient. Use an optimizer that does, such as SGD, or grad.to_dense()."
            raise RuntimeError(msg)
        msg = (
            f"A gradient of shape {tuple(grad.shape)} and {grad.dtype} does not fit its parameter of shape "
            f"{tuple(param.shape)} and {param.dtype}."
        )
        raise ValueError(msg)

    def _refuse_fused(self, param: torch.Tensor, group: Group) -> None:
        """Refuses `fused=True` where the class does, which asks in its step what the function would not.

        Raises:
            RuntimeError: The class has no fused step on the device of this parameter, or in its dtype.
        """
        kind = (param.device, param.dtype)
        if group.get("fused") and kind not in self._fused_for:
            tiny = torch.zeros((), device=param.device, dtype=param.dtype, requires_grad=True)
            tiny.grad = torch.zeros_like(tiny)
            optimizer_class: Any = type(self._optimizer)
            optimizer_class([tiny], fused=True).step()
            self._fused_for.add(kind)

    def _keywords(self, param: torch.Tensor, group: Group) -> dict[str, Any]:
        keywords = {key: group[key] for key in self._options}
        for option, (one, other) in self._form.pairs.items():
            keywords[one], keywords[other] = group[option]
        if keywords["foreach"] is None and param.is_cpu:
            keywords["foreach"] = False  # what torch finds out anew in each step
        if self._takes_complex:
            keywords["has_complex"] = param.is_complex()
        return keywords

    def _start(self, param: torch.Tensor, group: Group) -> State:
        state: State = {}
        for key, initial, only_with in self._initial:
            if not only_with or group[only_with]:
                state[key] = initial(param, group)
        if state:
            self.state[param] = state
        return state

    def _call_compiled(
        self,
        count: torch.Tensor,
        param: torch.Tensor,
        grad: torch.Tensor,
        lists: list[list[torch.Tensor]],
        keywords: dict[str, Any],
    ) -> None:
        # Where the function would compute with the count as a Python float, compiled it computes with the tensor, and
        # in float32. In float64 the bits are the same.
        exact = count
        if not keywords.get("fused") and not keywords.get("capturable"):
            exact = lists[-1][0] = count.double()
        self.function([param], [grad], *lists, **keywords)
        if exact is not count:
            count.copy_(exact)
