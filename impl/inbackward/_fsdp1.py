"""FSDP1: the private door by which FullyShardedDataParallel steps optimizers in backward; nothing else touches it.

FSDP1 calls no post-accumulate-grad hook of the original parameters. What it does call, once a gradient is reduced and
sharded, is `step()` and `zero_grad()` of what an attribute of theirs lists, `_in_backward_optimizers`. Attributes of a
parameter are saved and copied with it. So this one is there from a forward to the end of its backward only, and leaves
nothing of what it holds in a file.
"""

# ruff: noqa: SLF001 -- this is the module that may
from __future__ import annotations

import weakref
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import torch

from inbackward import _engine
from inbackward._attachment import attachment_of
from inbackward._names import name_of
from inbackward._ranks import entrust, is_flattened
from inbackward._step import step_together

if TYPE_CHECKING:
    from torch import nn
    from torch.distributed.fsdp import FullyShardedDataParallel

_DOOR = "_in_backward_optimizers"


def wrap_fsdp(module: nn.Module, **kwargs: Any) -> FullyShardedDataParallel:
    """Wraps a module in FullyShardedDataParallel (FSDP1) whose parameters step as soon as their gradients are reduced.

    Optimizers are attached before or after, by `apply_optimizer_in_backward` as ever. A module that is attached to and
    then wrapped by torch's own call is not trained, and nothing can be seen of it: wrap it by this function. One that
    torch's call has wrapped is refused when optimizers are attached.

    Args:
        module: The module.
        **kwargs: As for FullyShardedDataParallel; `use_orig_params` is True unless given.

    Raises:
        ValueError: With `use_orig_params=False`; nothing is wrapped then.
    """
    from torch.distributed.fsdp import FullyShardedDataParallel  # noqa: PLC0415 -- slow, and not for everybody

    if not kwargs.setdefault("use_orig_params", True):
        msg = (
            "With use_orig_params=False, FSDP1 replaces the parameters by flat ones, which no optimizer can be stepped "
            "for inside backward. Leave use_orig_params out, or use inbackward.fully_shard (FSDP2)."
        )
        raise ValueError(msg)
    wrapped = FullyShardedDataParallel(module, **kwargs)
    params: list[torch.Tensor] = [*wrapped.parameters()]
    flat = [param for param in params if is_flattened(param)]
    ignored = [param for param in params if not is_flattened(param)]
    shards = Shards(flat, ignored)
    entrust([*flat, *ignored], shards)
    wrapped.register_forward_pre_hook(shards.open)
    return wrapped


class Shards:
    """The parameters of one FSDP1 module, and of those inside it."""

    def __init__(self, params: list[torch.Tensor], ignored: list[torch.Tensor]) -> None:
        self._params = params
        self._ignored = ignored
        self._local = {id(param) for param in ignored}

    def is_local(self, param: torch.Tensor) -> bool:
        """Whether FSDP was told to ignore the parameter."""
        return id(param) in self._local

    def gradient_is_accumulated(self, param: torch.Tensor) -> None:
        """Refuses a gradient that has not come through FSDP.

        Raises:
            RuntimeError: Always.
        """
        msg = (
            f"FSDP1 manages {name_of(param)}, which got a gradient past it. It was not stepped. Use the parameter in "
            f"the forward of its module only."
        )
        raise RuntimeError(msg)

    def open(self, module: nn.Module, _: Any) -> None:
        """Opens the door, before a forward."""
        if not torch.is_grad_enabled():
            return
        for each in module.modules():
            handle = getattr(each, "_handle", None)
            if handle is not None:
                handle._has_optim_in_backward = True  # FSDP looks once, perhaps before the door was open
        for param in self._params:
            setattr(param, _DOOR, (_Step(param, self),))

    def close(self, _: _engine.Pass) -> None:
        """Closes the door, after a backward."""
        for param in self._params:
            if hasattr(param, _DOOR):
                delattr(param, _DOOR)


class _Step:
    """What FSDP1 takes for an optimizer."""

    def __init__(self, param: torch.Tensor, shards: Shards) -> None:
        self._param = weakref.ref(param)
        self._shards = weakref.ref(shards)

    def __reduce__(self) -> tuple[type, tuple[()]]:
        """Leaves nothing of itself in a copy or a file."""
        return OrderedDict, ()

    def step(self) -> None:
        """Steps what is attached, and frees the gradient."""
        param, shards = self._param(), self._shards()
        if param is None or shards is None:
            return
        run = _engine.current_pass()
        run.turns_to_wait = 1  # FSDP1 has its own end of backward
        run.at_end[shards.close] = None
        attachment = attachment_of(param)
        if attachment is not None and attachment.hooked and not attachment.is_accumulating:
            step_together([attachment])

    def zero_grad(self, *, set_to_none: bool) -> None:
        """Nothing: what was stepped has no gradient, and what was not keeps it."""
