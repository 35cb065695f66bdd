"""DistributedDataParallel: a parameter steps when its bucket has been averaged over the ranks.

DDP calls the hook registered here for each bucket that is complete on this rank. The hook starts the bucket's
all-reduce and chains the steps to its future, so early buckets are stepped while backward computes and others are on
their way. What cannot be stepped then is left to the end of backward, after DDP has put averaged gradients in place.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from inbackward import _ddp_private, _engine
from inbackward._attachment import attachment_of
from inbackward._ranks import TURNS_OF_DDP, entrust, reduction_of
from inbackward._stale_graph import explain_stale_graph
from inbackward._step import step_together
from inbackward._streams import keep_for_current_stream, wait_for_gloo

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn
    from torch._C._distributed_c10d import GradBucket
    from torch.futures import Future

    from inbackward._attachment import Attachment


def wrap_ddp(module: nn.Module, **ddp_kwargs: Any) -> DistributedDataParallel:
    """Wraps a module in DistributedDataParallel whose parameters step as soon as their gradients are averaged.

    Optimizers are attached before or after, by `apply_optimizer_in_backward` as ever. See `attach_to_ddp`.

    Args:
        module: The module.
        **ddp_kwargs: As for DistributedDataParallel. `gradient_as_bucket_view=True` saves a copy of all gradients.
    """
    return attach_to_ddp(DistributedDataParallel(module, **ddp_kwargs))


def attach_to_ddp(ddp: DistributedDataParallel) -> DistributedDataParallel:
    """Has the parameters of this DDP step as soon as their gradients are averaged; call it once for each.

    The result is, bit for bit, that of plain DDP and the standard loop. Under `no_sync()` gradients accumulate and
    nothing steps. Parameters that DDP was told to ignore step on this rank's own gradients. A parameter whose memory
    the running graph may yet read, and a sparse or complex gradient, are stepped at the end of backward. The DDP takes
    no other communication hook then.

    Returns:
        The same DDP.

    Raises:
        TypeError: `ddp` is no DistributedDataParallel.
        ValueError: It has a communication hook already, mixed precision, or another feature by which gradients go
            another way.
        RuntimeError: Called inside backward.
    """
    given: object = ddp
    if not isinstance(given, DistributedDataParallel):
        msg = f"Expected a DistributedDataParallel, not {given!r}. For a plain module there is inbackward.wrap_ddp."
        raise TypeError(msg)
    _engine.refuse_in_backward("attach to a DistributedDataParallel")
    why = _ddp_private.unsupported(ddp)
    if why:
        msg = f"Optimizers cannot step inside the backward of this DistributedDataParallel: {why}."
        raise ValueError(msg)
    buckets = Buckets(ddp)
    # DDP reads annotations, and not as strings. The reducer owns the hook's state.
    ddp.register_comm_hook(buckets, lambda state, bucket: state.reduce(bucket))
    ddp.register_comm_hook = _refuse_another_hook  # type: ignore[method-assign]  # torch's own words give no remedy
    ddp.register_forward_pre_hook(buckets.note_forward)
    entrust([*buckets.params, *buckets.ignored], buckets)
    return ddp


class Buckets:
    """The gradients of one DDP, on their way.

    Attributes:
        params: The parameters that it manages. It averages the gradients of those that were not frozen at the time.
        ignored: Those that it was told to ignore.
    """

    def __init__(self, ddp: DistributedDataParallel) -> None:
        self._ddp = weakref.ref(ddp)
        named = list(ddp.module.named_parameters(remove_duplicate=False))
        self.params = list({param: None for name, param in named if name not in ddp.parameters_to_ignore})
        managed = set(self.params)
        self.ignored = [param for _, param in named if param not in managed]
        self._local = {id(param) for param in self.ignored}
        self._run: _engine.Pass | None = None
        self._used: dict[int, torch.Tensor] = {}  # those with a gradient that has not been averaged yet
        self._stepped: list[torch.Tensor] = []
        self._errors: list[BaseException] = []
        self._reduced = False
        self._divisor = 0
        self._forward_syncs = True

    def is_local(self, param: torch.Tensor) -> bool:
        """Whether DDP was told to ignore the parameter."""
        return id(param) in self._local

    def note_forward(self, module: nn.Module, _: Any) -> None:
        """Takes note of it whether the backward of this forward averages; `no_sync()` must hold then, not later."""
        if torch.is_grad_enabled():
            self._forward_syncs = bool(module.require_backward_grad_sync)

    def gradient_is_accumulated(self, param: torch.Tensor) -> None:
        """Takes note of it that this rank's part of the gradient is there."""
        _engine.current_node()
        self._join(_engine.current_pass())
        self._used[id(param)] = param

    def reduce(self, bucket: GradBucket) -> Future[torch.Tensor]:
        """Starts the all-reduce of a bucket, with the steps to follow."""
        ddp = self._ddp()
        assert ddp is not None, "the reducer that calls this belongs to it"
        # A rank that has run out of inputs joins in with zeros, outside of any backward.
        active = _engine.in_backward()
        buffer = bucket.buffer()
        if bucket.index() == 0:
            self._divisor = self._count_ranks(ddp, buffer.device, active=active)
        params = bucket.parameters()
        used = self._all_reduce_used(ddp, params, buffer) if ddp.find_unused_parameters or ddp.static_graph else None
        if buffer.is_sparse:
            buffer.div_(self._divisor)  # the reducer divides sparse gradients, and multiplies dense ones
        else:
            buffer.mul_(1.0 / self._divisor)
        work = distributed.all_reduce(buffer, group=ddp.process_group, async_op=True)
        reduced: Future[list[torch.Tensor]] = work.get_future()
        if not active:
            return reduced.then(_value)
        self._join(_engine.current_pass())
        self._reduced = True
        for param in params:
            self._used.pop(id(param), None)
        if buffer.is_sparse or buffer.dtype != params[0].dtype:
            # They are stepped at the end of backward. The bucket has no views of sparse gradients, and wrong ones of
            # complex ones, which are reduced as pairs of real numbers.
            return reduced.then(_value)
        step = self._step_of(ddp, bucket, None if used is None else used[0])
        if used is None:
            return reduced.then(lambda done: self._after(done.value()[0], step))
        return reduced.then(lambda done: self._after_both(done.value()[0], used[1], step))

    def _step_of(
        self, ddp: DistributedDataParallel, bucket: GradBucket, used: torch.Tensor | None
    ) -> Callable[[], None]:
        params, views, device = bucket.parameters(), bucket.gradients(), bucket.buffer().device
        in_place: bool = ddp.gradient_as_bucket_view
        group = ddp.process_group

        def step() -> None:
            wait_for_gloo(group, device)
            counts = [1] * len(params) if used is None else used.tolist()
            averaged = zip(params, views, counts, strict=True)
            put_in_place = [self._put_in_place(param, view, in_place) for param, view, count in averaged if count]
            stepping = [attachment for attachment in put_in_place if attachment is not None]
            for attachment in stepping:
                keep_for_current_stream(attachment.param.grad)
            step_together(stepping)
            wait_for_gloo(group, device)

        return step

    def _after(self, reduced: torch.Tensor, step: Callable[[], None]) -> torch.Tensor:
        # Not in this thread, and not before DDP is through with this backward, is an error of a step to be raised.
        try:
            step()
        except BaseException as error:  # noqa: BLE001
            self._errors.append(error)
        return reduced

    def _after_both(
        self, reduced: torch.Tensor, counted: Future[list[torch.Tensor]], step: Callable[[], None]
    ) -> torch.Tensor:
        # Not by torch.futures.collect_all, whose future makes no stream wait for the collectives. The counts were sent
        # before the bucket.
        counted.wait()
        return self._after(reduced, step)

    def _count_ranks(self, ddp: DistributedDataParallel, device: torch.device, *, active: bool) -> int:
        if not _ddp_private.counts_active_ranks(ddp):
            size: int = ddp.process_group.size()
            return size
        count = torch.tensor([int(active)], dtype=torch.int32, device=device)
        distributed.all_reduce(count, group=ddp.process_group)
        return int(count.item())

    def _all_reduce_used(
        self, ddp: DistributedDataParallel, params: list[torch.Tensor], buffer: torch.Tensor
    ) -> tuple[torch.Tensor, Future[list[torch.Tensor]]]:
        # DDP leaves alone what no rank has used, and knows of it at the end of backward only.
        here = [id(param) in self._used and param.grad is not None for param in params]
        count = torch.tensor(here, dtype=torch.int32, device=buffer.device)
        return count, distributed.all_reduce(count, group=ddp.process_group, async_op=True).get_future()

    def _put_in_place(self, param: torch.Tensor, averaged: torch.Tensor, in_place: bool) -> Attachment | None:
        """Gives the averaged gradient to a parameter that can be stepped with it now."""
        attachment = attachment_of(param)
        if attachment is None or not attachment.hooked or reduction_of(param) is not self:
            return None
        if attachment.is_accumulating or _engine.shares_memory(param):
            return None  # in the second case it is stepped at the end of backward
        if param.grad is None:
            param.grad = averaged if in_place else averaged.clone()
        elif not in_place:
            with torch.no_grad():
                param.grad.copy_(averaged)
        self._stepped.append(param)
        return attachment

    def _join(self, run: _engine.Pass) -> None:
        if self._run is None or not self._run.running:
            self._stepped.clear()
            self._errors.clear()
            self._reduced = False
        self._run = run
        run.turns_to_wait = TURNS_OF_DDP
        run.at_end[self._finish] = None

    def _finish(self, _: _engine.Pass) -> None:
        """Steps what could not be stepped before; DDP has just put averaged gradients in place, of all parameters."""
        if self._reduced:
            self._reduced = False
            for param in self._stepped:
                param.grad = None
            self._stepped.clear()
            if self._errors:
                raise self._errors.pop(0)
        elif self._is_accumulating():
            return
        attachments = [attachment_of(param) for param in self.params if reduction_of(param) is self]
        hooked = [attachment for attachment in attachments if attachment is not None and attachment.hooked]
        if any(id(attachment.param) in self._used for attachment in hooked):
            self._used.clear()
            raise RuntimeError(_NOT_AVERAGED)
        step_together([attachment for attachment in hooked if not attachment.is_accumulating])
        if _engine.keeps_graph():
            explain_stale_graph([attachment.param for attachment in hooked])

    def _is_accumulating(self) -> bool:
        ddp = self._ddp()
        return ddp is not None and not (ddp.require_backward_grad_sync and self._forward_syncs)


def _refuse_another_hook(*_: Any, **__: Any) -> None:
    msg = (
        "Cannot register a communication hook: this DistributedDataParallel takes one, and has that of inbackward, "
        "which steps the optimizers. Do without the other hook, or train with an ordinary optimizer."
    )
    raise RuntimeError(msg)


def _value(done: Future[list[torch.Tensor]]) -> torch.Tensor:
    return done.value()[0]


_NOT_AVERAGED = (
    "Backward is over, and DistributedDataParallel has not averaged the gradients of all the parameters that it "
    "reached: those were not stepped, others may have been stepped already. It averages once for each forward of the "
    "wrapped module, and only a backward of all of it: call the wrapped module, not the one inside, run no second "
    "backward over a graph, and leave out inputs=. A parameter that was frozen when the module was wrapped is not "
    "averaged either."
)
