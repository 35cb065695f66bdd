"""What a run of a plan left behind, event by event; plain tensors and text, picklable."""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from inbackward_conformance.accident import is_accidental

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from torch import Tensor, nn
    from torch.optim import Optimizer

State = dict[str, Any]

REFUSALS = {"RuntimeError", "TypeError", "ValueError"}
"""What a refusal is raised as, where the implementation has no class of its own for it."""

_TELLS_OF_STEPS = re.compile(r"\b(already|been|was|were) (stepped|updated)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Snapshot:
    """What there was after one event; of a tensor that is sharded over ranks, the part that this rank holds.

    Attributes:
        event: which one.
        params: value of each parameter, under its first name.
        buffers: value of each buffer.
        grads: gradient of each parameter, None where there is none.
        states: for each parameter the non-empty states that optimizers hold for it, in order of listing; None where
            the optimizers are not to be had.
        attached: how many optimizers each parameter has; None where they are not to be had.
    """

    event: str
    params: dict[str, Tensor]
    buffers: dict[str, Tensor]
    grads: dict[str, Tensor | None]
    states: dict[str, list[State]] | None = None
    attached: dict[str, int] | None = None


@dataclass(frozen=True)
class Raised:
    """An error that ended a run.

    Attributes:
        event: the event that raised it, with its number.
        attaching: how many assignments the event was making; 0 where it made none.
        text: type and message, on one line.
        accidental: whether it was an accident rather than a refusal that somebody wrote.
        tells_of_steps: whether the message says that parameters were stepped.
    """

    event: str
    attaching: int
    text: str
    accidental: bool
    tells_of_steps: bool = False

    @property
    def refusal(self) -> str:
        """The message, of an error that may be a refusal; empty: it is none of those."""
        error, _, message = self.text.partition(": ")
        return message if error in REFUSALS else ""

    @staticmethod
    def observe(error: Exception, event: str, *, attaching: int) -> Raised:
        """Describe `error`, raised during `event`."""
        lines = str(error).strip().splitlines()
        text = f"{type(error).__name__}: {lines[0] if lines else '(no message)'}"
        return Raised(event, attaching, text, is_accidental(error), bool(_TELLS_OF_STEPS.search(str(error))))


@dataclass
class Trace:
    """All snapshots of a run, and the error that ended it, if one did."""

    start: Snapshot
    snapshots: list[Snapshot] = field(default_factory=list)
    raised: Raised | None = None


def state_in(optimizer: Optimizer, param: Tensor) -> State:
    """Return the state that `optimizer` holds for `param`, where torch's own classes have it."""
    state: State = optimizer.state[param]
    return state


def take_snapshot(
    event: str,
    model: nn.Module,
    optimizers: Iterable[Optimizer] | None,
    state_of: Callable[[Optimizer, Tensor], State] = state_in,
) -> Snapshot:
    """Copy what an observer can see of `model` and of its `optimizers`, whose states `state_of` returns."""
    named = dict(model.named_parameters())
    params = {name: _copy(param) for name, param in named.items()}
    buffers = {name: _copy(buffer) for name, buffer in model.named_buffers()}
    grads = {name: None if param.grad is None else _copy(param.grad) for name, param in named.items()}
    if optimizers is None:
        return Snapshot(event, params, buffers, grads)
    states: dict[str, list[State]] = {name: [] for name in named}
    attached = dict.fromkeys(named, 0)
    name_of = {id(param): name for name, param in named.items()}
    for optimizer in optimizers:
        for param in (param for group in optimizer.param_groups for param in group["params"]):
            if id(param) in name_of:
                attached[name_of[id(param)]] += 1
        for param in list(optimizer.state):
            if id(param) in name_of and (state := state_of(optimizer, param)):
                states[name_of[id(param)]].append(copy_state(state))
    return Snapshot(event, params, buffers, grads, states, attached)


def copy_state(state: State) -> State:
    """Return a copy of one parameter's optimizer state that later steps leave alone."""
    return {
        key: _copy(value) if isinstance(value, torch.Tensor) else copy.deepcopy(value) for key, value in state.items()
    }


def _copy(tensor: Tensor) -> Tensor:
    # The ragged shapes of two nested tensors are never equal, and few functions take them: the values tell enough.
    values = tensor.values() if tensor.is_nested else tensor
    if hasattr(values, "to_local"):
        values = values.to_local()
    return values.detach().clone()


MISTAKES_OF_A_PLAN = ("AttributeError", "IndexError", "KeyError", "NameError")
"""What the standard loop raises where a plan names something that is not there."""
