"""DistributedDataParallel with a communication hook of the user's, and a functional optimizer that steps behind it.

DDP calls the hook for each bucket that is complete on this rank. What it has made of the bucket is there when its
future is done: then the bucket's parameters step, while backward computes and other buckets are on their way. What
cannot be stepped then steps at the end of backward, from the gradients that DDP has put in place.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from torch.nn.parallel import DistributedDataParallel

from inbackward import _ddp_private, _engine
from inbackward._attachment import attachment_of
from inbackward._names import name_of
from inbackward._ranks import entrust
from inbackward._streams import wait_for_gloo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import torch
    from torch._C._distributed_c10d import GradBucket
    from torch.futures import Future

    CommHook = Callable[[Any, GradBucket], Future[torch.Tensor]]

_TURNS_TO_WAIT = 2  # for the end of DDP's own backward, which in the first pass of a static graph is itself put off


def hook_then_optimizer(
    ddp: DistributedDataParallel,
    comm_hook: CommHook,
    state: Any,
    functional_optimizer: Any,
    params: Iterable[torch.Tensor] | None = None,
) -> None:
    """Registers a communication hook on a DDP, and has a functional optimizer step behind it, inside backward.

    The result is, bit for bit, that of the same hook and an ordinary optimizer that steps after backward. `.grad` holds
    the reduced gradient afterwards, for the caller to zero. A backward that DDP does not reduce steps nothing: under
    `no_sync()`, of the module inside it, a second one over a graph. A parameter steps when
    its bucket is reduced; at the end of backward if its gradient is sparse, if the running graph may yet read its
    memory, or if DDP has `find_unused_parameters` or `static_graph`, since only then it knows what no rank has used.

    Args:
        ddp: The DDP.
        comm_hook: As for `ddp.register_comm_hook`.
        state: What the hook is called with.
        functional_optimizer: What has `step_param(param, grad)`, such as `inbackward.functional_optimizer` makes.
        params: The parameters that it steps; None: all that DDP reduces. Others are reduced and left alone.

    Raises:
        TypeError: `ddp` is no DistributedDataParallel, `comm_hook` cannot be called, or the optimizer has no
            `step_param`.
        ValueError: The optimizer does not hold one of the parameters; DDP does not reduce one of them; something steps
            one of them already; DDP has a communication hook already, or another feature by which gradients go another
            way.
        RuntimeError: Called inside backward.
    """
    _check_kinds(ddp, comm_hook, functional_optimizer)
    _engine.refuse_in_backward("register a hook")
    why = _ddp_private.unsupported(ddp)
    if why:
        msg = f"An optimizer cannot step behind a hook of this DistributedDataParallel: {why}."
        raise ValueError(msg)
    named = {
        param: name
        for name, param in ddp.module.named_parameters()
        if param.requires_grad and name not in ddp.parameters_to_ignore
    }
    chosen = list(named) if params is None else list(dict.fromkeys(params))
    for param in chosen:
        _check_param(param, named, functional_optimizer, all_of_ddp=params is None)
    steps = _StepsBehindHook(ddp, comm_hook, functional_optimizer.step_param, chosen)
    # A lambda, since DDP reads annotations, and not as strings.
    ddp.register_comm_hook(state, lambda state, bucket: steps.reduce(state, bucket))  # noqa: PLW0108
    entrust(chosen, steps)


class _StepsBehindHook:
    """The hook, and the steps to follow it; DDP's reducer owns it."""

    def __init__(
        self,
        ddp: DistributedDataParallel,
        comm_hook: CommHook,
        step_param: Callable[[torch.Tensor, torch.Tensor], object],
        params: list[torch.Tensor],
    ) -> None:
        self._ddp = weakref.ref(ddp)
        self._comm_hook = comm_hook
        self._step_param = step_param
        self._params = params
        self._chosen = {id(param) for param in params}
        self._run: _engine.Pass | None = None
        self._stepped: set[int] = set()
        self._errors: list[BaseException] = []

    def is_local(self, param: torch.Tensor) -> bool:
        """Whether the gradient is this rank's alone: never."""
        return False

    def gradient_is_accumulated(self, param: torch.Tensor) -> None:
        """Refuses an optimizer that was attached to the parameter later.

        Raises:
            RuntimeError: Always.
        """
        msg = (
            f"An optimizer was attached to {name_of(param)}, which steps behind a communication hook already. It was "
            f"not stepped. Use one of the two: inbackward.detach takes the attached one off."
        )
        raise RuntimeError(msg)

    def reduce(self, state: Any, bucket: GradBucket) -> Future[torch.Tensor]:
        """Calls the user's hook on a bucket, with the steps to follow."""
        ddp = self._ddp()
        assert ddp is not None, "the reducer that calls this belongs to it"
        future = self._comm_hook(state, bucket)
        # A rank that has run out of inputs joins in with zeros, outside of any backward.
        if not _engine.in_backward():
            return future
        run = _engine.current_pass()
        if self._run is not run:
            self._run = run
            self._stepped.clear()
            self._errors.clear()
        run.turns_to_wait = _TURNS_TO_WAIT
        run.at_end[self._finish] = None
        if ddp.find_unused_parameters or ddp.static_graph or bucket.buffer().is_sparse:
            return future
        group = ddp.process_group
        return future.then(lambda done: self._after(done.value(), bucket, group))

    def _after(self, result: Any, bucket: GradBucket, group: Any) -> torch.Tensor:
        reduced: torch.Tensor = result[0] if isinstance(result, list | tuple) else result
        # Not in this thread, and not before DDP is through with this backward, is an error of a step to be raised.
        try:
            buffer = bucket.buffer()
            wait_for_gloo(group, buffer.device)
            if reduced.data_ptr() != buffer.data_ptr():
                buffer.copy_(reduced.view_as(buffer))
            for param, grad in zip(bucket.parameters(), bucket.gradients(), strict=True):
                if id(param) in self._chosen and not _engine.shares_memory(param):
                    self._stepped.add(id(param))
                    self._step_param(param, grad)
            wait_for_gloo(group, buffer.device)
        except BaseException as error:  # noqa: BLE001
            self._errors.append(error)
        return reduced

    def _finish(self, _: _engine.Pass) -> None:
        """Steps what could not be stepped before; DDP has just put reduced gradients in place."""
        if self._errors:
            raise self._errors.pop(0)
        for param in self._params:
            if id(param) not in self._stepped and param.grad is not None:
                self._step_param(param, param.grad)
        self._stepped.clear()
        self._run = None


def _check_kinds(ddp: object, comm_hook: object, functional_optimizer: object) -> None:
    if not isinstance(ddp, DistributedDataParallel):
        msg = f"Expected a DistributedDataParallel, not {ddp!r}. Wrap the module before."
        raise TypeError(msg)
    if not callable(comm_hook):
        msg = f"comm_hook is {comm_hook!r}, which cannot be called. Give it as to DDP's register_comm_hook."
        raise TypeError(msg)
    if not callable(getattr(functional_optimizer, "step_param", None)):
        msg = (
            f"{type(functional_optimizer).__name__} has no step_param(param, grad), by which a hook steps one "
            f"parameter at a time. Make the optimizer by inbackward.functional_optimizer."
        )
        raise TypeError(msg)


def _check_param(
    param: torch.Tensor, named: dict[torch.Tensor, str], functional_optimizer: Any, *, all_of_ddp: bool
) -> None:
    if param not in named:
        msg = (
            f"This DistributedDataParallel does not reduce the gradient of one of the given parameters, of shape "
            f"{tuple(param.shape)}: the module does not have it, or it is frozen, or DDP was told to ignore it."
        )
        raise ValueError(msg)
    groups = getattr(functional_optimizer, "param_groups", None)
    held = None if groups is None else {id(each) for group in groups for each in group.get("params", ())}
    if held and id(param) not in held:
        remedy = "Give params=, those that it is to step." if all_of_ddp else "Make it with all of them."
        msg = f"The functional optimizer does not hold the parameter {named[param]!r}. {remedy}"
        raise ValueError(msg)
    attachment = attachment_of(param)
    if attachment is not None and attachment.hooked:
        msg = (
            f"An optimizer is attached to the parameter {named[param]!r}, and steps it already. Use one of the two: "
            f"inbackward.detach takes that one off."
        )
        raise ValueError(msg)
