"""Handing over the ordinary optimizer, which then steps inside backward."""

from __future__ import annotations

import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch.optim import Optimizer

from inbackward import _engine
from inbackward._attachment import attachment_of
from inbackward._build import refuse_closure
from inbackward._handed_over import HandedOver, expect_handed_over
from inbackward._params import listed_params
from inbackward._probe import probe
from inbackward._ranks import refuse_flattened

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from typing_extensions import Self


BUCKET_BYTES = 4 << 20


def step_in_backward(optimizer: Optimizer, bucket_bytes: int = BUCKET_BYTES) -> Handle:
    """Makes every `backward()` step this optimizer and free the gradients.

    The optimizer stays an ordinary one: schedulers, `state_dict()` and `load_state_dict()` work as ever, and parameter
    groups added later are followed. A call of its `step()` or `zero_grad()` after backward finds nothing
    to do. Gradients wait until `bucket_bytes` of them are there; then one call of `step()` steps their parameters, and
    the rest is stepped at the end of backward. The result is, bit for bit, that of the standard loop.

    The optimizer steps inside backward until it is taken back, also if neither it nor the handle is kept.

    At most `bucket_bytes` and the largest gradient are alive at a time. A parameter whose memory something else still
    uses is stepped at the end of backward, see `apply_optimizer_in_backward`. Step hooks run, and see the parameters
    in `param_groups`, once for each call of `step()`.

    Two optimizers may have a parameter in common: they step it in the order in which they were handed over, when a
    bucket of the first is full.

    What code inside backward sees of a parameter is as in `apply_optimizer_in_backward`.

    Args:
        optimizer: An optimizer of `torch.optim`, or of a class whose step of several parameters is that of each alone.
        bucket_bytes: How many bytes of gradients may wait for one call of `step()`; 0 steps each parameter at once.

    Returns:
        A handle, which accumulates, clips, and takes this back. It need not be kept.

    Raises:
        TypeError: `optimizer` is no optimizer, wraps another one, or cannot step without a closure; `bucket_bytes` is
            no int.
        ValueError: `bucket_bytes` is negative; the optimizer was handed over already; a small copy of it shows that
            stepping a part of its parameters at a time gives another result; a parameter belongs to an FSDP1 module
            that `wrap_fsdp` has not made.
        RuntimeError: Called inside backward.
    """
    _check(optimizer, bucket_bytes)
    for param in listed_params(optimizer):
        refuse_flattened(param)
        attachment = attachment_of(param)
        if attachment is not None and any(each is optimizer for each in attachment.optimizers.values()):
            msg = (
                f"This {type(optimizer).__name__} steps inside backward already. Take it back before, by remove() of "
                f"its handle or by inbackward.detach."
            )
            raise ValueError(msg)
    probe(optimizer)
    handed = HandedOver(optimizer, bucket_bytes)
    handed.follow()
    handed.follow_groups_added_later()
    return Handle(handed)


def handle_of(optimizer: Optimizer) -> Handle:
    """The handle of an optimizer that was handed over, where that which `step_in_backward` returned is out of reach.

    Raises:
        ValueError: The optimizer was not handed over, or was taken back.
    """
    return Handle(expect_handed_over(optimizer))


class Handle:
    """What `step_in_backward` returns. It keeps neither the optimizer nor its parameters alive.

    `remove()` gives the ordinary optimizer back, as does leaving a `with` block of the handle.
    """

    def __init__(self, handed: HandedOver) -> None:
        self._handed = weakref.ref(handed)

    @contextmanager
    def accumulate(self) -> Iterator[None]:
        """Has gradients add up, in a `with` block around every micro-batch but the last; nothing steps there.

        The next backward outside of the block that reaches a parameter of the optimizer steps everything that holds
        a gradient. To step at once, call `optimizer.step()` and `optimizer.zero_grad()`. Under
        DistributedDataParallel, use it together with `no_sync()`.

        A schedule of `torch.distributed.pipelining` accumulates as a whole, the last micro-batch too::

            with handle.accumulate():
                schedule.step(batch)
            optimizer.step()
            optimizer.zero_grad()

        Raises:
            RuntimeError: Called inside backward, or the optimizer was taken back. In the block, a backward that
                reaches a parameter of two optimizers, of which one does not accumulate.
        """
        _engine.refuse_in_backward("begin to accumulate")
        handed = self._get()
        handed.accumulating += 1
        try:
            yield
        finally:
            handed.accumulating -= 1

    def clip(self, *, value: float | None = None, norm: float | None = None, norm_type: float = 2.0) -> None:
        """Clips gradients before every step inside backward, each parameter's by itself; without arguments, none.

        The result is that of `torch.nn.utils.clip_grad_value_(params, value)`, or of
        `torch.nn.utils.clip_grad_norm_(param, norm)` for each parameter alone, before `optimizer.step()`. To clip by
        the norm of all gradients together, call `inbackward.backward`.

        Args:
            value: The largest absolute value of an element.
            norm: The largest norm of one parameter's gradient.
            norm_type: Which norm.

        Raises:
            ValueError: Both are given, or one is negative or no number.
            RuntimeError: Called inside backward, or the optimizer was taken back.
        """
        _engine.refuse_in_backward("change how gradients are clipped")
        handed = self._get()
        if value is not None and norm is not None:
            msg = "Both value and norm were given. Give one, or none to clip no more."
            raise ValueError(msg)
        limits: tuple[tuple[str, object], ...] = (("value", value), ("norm", norm))
        for name, given in limits:
            if given is not None and not (isinstance(given, int | float) and given >= 0):
                msg = f"{name} is {given!r}. Give a number that is not negative, or None."
                raise ValueError(msg)
        handed.clip = None
        if value is not None:
            handed.clip = lambda params: torch.nn.utils.clip_grad_value_(params, value)
        elif norm is not None:
            handed.clip = lambda params: _clip_each(params, norm, norm_type)

    def remove(self) -> None:
        """Gives the ordinary optimizer back; gradients and state stay as they are. Calling it again changes nothing.

        Raises:
            RuntimeError: Called inside backward.
        """
        _engine.refuse_in_backward("take an optimizer back")
        handed = self._handed()
        if handed is not None:
            for attachment in handed.attachments:
                attachment.remove(handed)
            handed.let_go()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.remove()

    def _get(self) -> HandedOver:
        handed = self._handed()
        if handed is None or handed.is_taken_back:
            msg = "The optimizer of this handle was taken back. Hand it over again, by inbackward.step_in_backward."
            raise RuntimeError(msg)
        return handed


def _check(optimizer: object, bucket_bytes: object) -> None:
    if not isinstance(optimizer, Optimizer):
        msg = (
            f"optimizer is {optimizer!r}, not a torch.optim.Optimizer. Give the optimizer itself, like "
            f"torch.optim.AdamW(model.parameters()); for a class and options there is "
            f"inbackward.apply_optimizer_in_backward."
        )
        raise TypeError(msg)
    if not isinstance(bucket_bytes, int) or isinstance(bucket_bytes, bool):
        msg = f"bucket_bytes is {bucket_bytes!r}, not an int. Give a number of bytes, 0 to step each parameter at once."
        raise TypeError(msg)
    if bucket_bytes < 0:
        msg = f"bucket_bytes is {bucket_bytes}. Give a number of bytes, 0 to step each parameter at once."
        raise ValueError(msg)
    for name, value in vars(optimizer).items():
        if isinstance(value, Optimizer):
            msg = (
                f"{type(optimizer).__name__} wraps another optimizer, its attribute {name!r}. Hand over that one: "
                f"inbackward.step_in_backward(optimizer.{name})."
            )
            raise TypeError(msg)
    _engine.refuse_in_backward("hand over an optimizer")
    refuse_closure(type(optimizer))


def _clip_each(params: list[torch.Tensor], norm: float, norm_type: float) -> None:
    for param in params:
        torch.nn.utils.clip_grad_norm_(param, norm, norm_type)
