"""The trace of a run: a snapshot after each event, as picklable tensors and text."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from inbackward_conformance.accident import is_accidental
from inbackward_conformance.raised_error import error_in_stage, mentions_steps, message_of
from inbackward_conformance.tensors import copied
from inbackward_conformance.values import flatten

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from torch import Tensor, nn
    from torch.optim import Optimizer

State = dict[str, Any]
"""One optimizer's state for one parameter, flattened: tensors, numbers and texts by path."""

REFUSALS = {"RuntimeError", "TypeError", "ValueError"}
"""Types of errors that may be a refusal."""


@dataclass(frozen=True)
class Snapshot:
    """Copies of all tensors after one event; of a sharded tensor, the shard of this rank.

    Attributes:
        event: the event.
        params: value of each parameter, by its first name.
        buffers: value of each buffer.
        grads: gradient of each parameter, or None.
        states: non-empty optimizer states of each parameter, in order of listing; None if the implementation does not
            list its optimizers.
        attached: number of optimizers of each parameter; None if the implementation does not list them.
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
        attaching: number of assignments of the event.
        text: type and first line of the message.
        accidental: whether it was an accident, rather than raised on purpose.
        mentions_steps: whether the message says that parameters were stepped.
        changed_after: after a refused attachment, names of parameters that a plain backward then changes.
    """

    event: str
    attaching: int
    text: str
    accidental: bool
    mentions_steps: bool = False
    changed_after: tuple[str, ...] = ()

    @property
    def refusal(self) -> str:
        """The message if the error may be a refusal, else empty."""
        error, _, message = self.text.partition(": ")
        return message if error in REFUSALS else ""

    @staticmethod
    def observe(error: BaseException, event: str, *, attaching: int) -> Raised:
        """Return a description of `error`, raised during `event`."""
        error = error_in_stage(error)
        message = message_of(error)
        lines = message.strip().splitlines()
        text = f"{type(error).__name__}: {lines[0] if lines else '(no message)'}"
        return Raised(event, attaching, text, is_accidental(error), mentions_steps(error))


@dataclass
class Trace:
    """All snapshots of a run, and the error that ended it, if any."""

    start: Snapshot
    snapshots: list[Snapshot] = field(default_factory=list)
    raised: Raised | None = None


def optimizer_state(optimizer: Optimizer, param: Tensor) -> Any:
    """Return the state that `optimizer` has for `param`, in the layout of torch's own classes."""
    return optimizer.state[param]


def take_snapshot(
    event: str,
    model: nn.Module,
    optimizers: Iterable[Optimizer] | None,
    state_of: Callable[[Optimizer, Tensor], Any] = optimizer_state,
) -> Snapshot:
    """Return a snapshot of `model` and its `optimizers`, whose states `state_of` returns."""
    named = dict(model.named_parameters())
    params = {name: copied(param) for name, param in named.items()}
    buffers = {name: copied(buffer) for name, buffer in model.named_buffers()}
    grads = {name: None if param.grad is None else copied(param.grad) for name, param in named.items()}
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
            if id(param) in name_of and (state := copy_state(state_of(optimizer, param))):
                states[name_of[id(param)]].append(state)
    return Snapshot(event, params, buffers, grads, states, attached)


def copy_state(state: Any) -> State:
    """Return a copy of one parameter's optimizer state that later steps do not change; empty if there is no state."""
    return {} if state is None else flatten(state)


PLAN_ERRORS = ("AttributeError", "IndexError", "KeyError", "NameError")
"""Types of errors that the standard loop raises if a plan names something that does not exist."""
