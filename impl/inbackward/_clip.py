"""Clipping by the norm of all gradients, and GradScaler: what has to be known of all gradients before the first step.

Backward runs twice. The first time measures: each gradient is freed as soon as its norm is known. The second time
changes each gradient as the standard loop does, and steps.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch.optim import Optimizer

from inbackward import _engine
from inbackward._attachment import Attachment, attachment_of
from inbackward._callers import is_scaled
from inbackward._handed_over import HandedOver, expect_handed_over
from inbackward._measurement import Measurement
from inbackward._names import name_of
from inbackward._params import can_have_gradient, listed_params
from inbackward._random_states import random_states_kept

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


def backward(
    loss: torch.Tensor,
    optimizer: Optimizer | Iterable[Optimizer],
    *,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    scaler: torch.amp.GradScaler | None = None,
    params: Iterable[torch.Tensor] | None = None,
) -> torch.Tensor | None:
    """Runs backward so that gradients are clipped by their total norm, or unscaled, before the first step.

    It stands for these lines of the standard loop, of which the last four are left out without a scaler, and gives the
    same result, bit for bit:

        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        total_norm = torch.nn.utils.clip_grad_norm_(params, max_norm, norm_type, error_if_nonfinite)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()

    `params` are those of the optimizers, in the order of their groups; another order may round the norm otherwise.
    Gradients from `Handle.accumulate` are part of it; scale the losses there by `scaler.scale`. An optimizer of which a
    gradient is not finite skips its step, as with `scaler.step`: nothing but the scale changes.

    Backward runs twice: it costs a second one, and the activations are kept until the second. Of the memory of
    gradients, no more is needed than without clipping. User's hooks run in both, and draw the same random numbers.
    Without `max_norm` and scaler, backward runs once.

    Args:
        loss: A scalar, not scaled.
        optimizer: The optimizer, or several, each handed over by `step_in_backward`.
        max_norm: The largest total norm; None clips nothing.
        norm_type: Which norm, as in `torch.nn.utils.clip_grad_norm_`.
        error_if_nonfinite: Whether a total norm that is infinite or NaN is an error.
        params: The same parameters in the order in which their norms are added up, such as `model.parameters()`; None:
            that of the optimizers' groups.
        scaler: A GradScaler, which this calls `scale`, `step` and `update` of.

    Returns:
        The total norm before clipping; None without `max_norm`.

    Raises:
        TypeError: `loss` is no tensor, or `optimizer` is none.
        ValueError: An optimizer was not handed over; `loss` is scaled; `max_norm` is negative; `params` are others; the
            gradients of a parameter are averaged by DistributedDataParallel or FSDP, which run a graph once; with a
            scaler, optimizers have a parameter in common, or, as in torch, a gradient is of dtype float16.
        RuntimeError: Called inside backward; the graph has reentrant activation checkpointing; or with
            `error_if_nonfinite`, the total norm is not finite. Nothing has been stepped then.
    """
    _engine.refuse_in_backward("call inbackward.backward")
    handed = _handed(loss, optimizer, max_norm)
    listed = _in_order(handed, params)
    if scaler is not None and not scaler.is_enabled():
        scaler = None
    if max_norm is None and scaler is None:
        loss.backward()
        return None
    attachments = _attachments_of(handed, listed)
    if is_scaled([loss]):
        msg = "The loss was scaled by a GradScaler already. Give the loss itself, and the scaler as scaler=."
        raise ValueError(msg)
    if scaler is not None:
        _refuse_in_common(handed)
    _refuse_reentrant_checkpoints(loss)
    scaled = loss if scaler is None else scaler.scale(loss)
    measurement = Measurement(norm_type, scaler, with_norms=max_norm is not None)
    with random_states_kept(listed):  # hooks that draw random numbers draw the same again
        measurement.run(scaled, handed, attachments)
    total_norm = None if max_norm is None else measurement.total_norm(error_if_nonfinite=error_if_nonfinite)

    changed: set[int] = set()  # a parameter of two optimizers comes by twice

    def change(params: list[torch.Tensor]) -> None:
        params = [param for param in params if id(param) not in changed]
        measurement.expect(params)
        changed.update(map(id, params))
        measurement.unscale(params)
        if max_norm is not None and total_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(params, max_norm, total_norm)

    finite = [each for each in handed if measurement.is_finite(listed_params(each.optimizer))]
    with _transforming(handed, change, skipped=[each for each in handed if each not in finite]):
        scaled.backward()
    if scaler is not None:
        for each in handed:
            _note(scaler, each.optimizer, is_finite=each in finite)
        scaler.update()
    return total_norm


def _handed(loss: object, optimizer: object, max_norm: object) -> list[HandedOver]:
    if not isinstance(loss, torch.Tensor):
        msg = f"loss is {loss!r}, not a tensor. Give the loss itself: inbackward.backward(loss, optimizer, max_norm=1)."
        raise TypeError(msg)
    if max_norm is not None and not (isinstance(max_norm, int | float) and max_norm >= 0):
        msg = f"max_norm is {max_norm!r}. Give a number that is not negative, or None to clip nothing."
        raise ValueError(msg)
    given: Any = [optimizer] if isinstance(optimizer, Optimizer) else optimizer
    try:
        optimizers = [*given]
    except TypeError:
        optimizers = [given]
    found = []
    for each in optimizers:
        if not isinstance(each, Optimizer):
            msg = f"Expected a torch.optim.Optimizer, or several, not {each!r}. Give what was handed over."
            raise TypeError(msg)
        if (one := expect_handed_over(each)) not in found:
            found.append(one)
    if not found:
        msg = "No optimizer was given. Give that, or those, whose parameters' gradients are to be clipped together."
        raise ValueError(msg)
    return found


def _in_order(handed: list[HandedOver], given: Iterable[torch.Tensor] | None) -> list[torch.Tensor]:
    """Gives the optimizers' parameters, once each, in the order of their groups or in that which was given.

    Raises:
        TypeError: Something else than tensors was given.
        ValueError: Others were given, or not all of them.
    """
    listed = {id(param): param for each in handed for param in listed_params(each.optimizer)}
    if given is None:
        return [*listed.values()]
    ordered: dict[int, torch.Tensor] = {}
    for param in given:
        tensor: object = param
        if not isinstance(tensor, torch.Tensor):
            msg = f"params holds {tensor!r}, which is no tensor. Give parameters, such as model.parameters()."
            raise TypeError(msg)
        if param.requires_grad or id(param) in listed:
            ordered[id(param)] = param
    missing, foreign = listed.keys() - ordered.keys(), ordered.keys() - listed.keys()
    if missing or foreign:
        msg = (
            f"params lacks {len(missing)} parameters of the optimizers, and has {len(foreign)} that none of them has. "
            f"Give those of the optimizers, in another order, or leave params out."
        )
        raise ValueError(msg)
    return [*ordered.values()]


def _refuse_in_common(handed: list[HandedOver]) -> None:
    """Refuses a scaler for optimizers that have a parameter in common: each would unscale its gradient.

    Raises:
        ValueError: There are such optimizers.
    """
    seen: set[int] = set()
    for each in handed:
        params = set(map(id, listed_params(each.optimizer)))
        if not seen.isdisjoint(params):
            msg = "Two of the optimizers have a parameter in common, which a GradScaler would unscale for each of them."
            raise ValueError(msg)
        seen |= params


def _refuse_reentrant_checkpoints(loss: torch.Tensor) -> None:
    """Refuses a graph with reentrant activation checkpointing, where gradients come in a backward of its own.

    Raises:
        RuntimeError: It is one.
    """
    if any(node.name() == "CheckpointFunctionBackward" for node in _engine.nodes_of([loss])):
        msg = (
            "The graph has reentrant activation checkpointing, in which gradients cannot be measured before they are "
            "stepped. Nothing was stepped. Pass use_reentrant=False to torch.utils.checkpoint.checkpoint."
        )
        raise RuntimeError(msg)


def _attachments_of(handed: list[HandedOver], params: list[torch.Tensor]) -> list[Attachment]:
    """Gives what is attached to the optimizers' parameters.

    Raises:
        RuntimeError: An optimizer accumulates.
        ValueError: One cannot run backward twice, or steps by an optimizer that was not given.
    """
    if any(each.accumulating for each in handed):
        msg = "An optimizer accumulates, so nothing would be clipped or stepped. In accumulate(), call loss.backward()."
        raise RuntimeError(msg)
    found = [attachment for param in params if (attachment := attachment_of(param)) is not None]
    for attachment in found:
        if attachment.is_reduced or attachment.is_sharded:
            msg = (
                "DistributedDataParallel and FSDP bring gradients together once for each forward, so backward cannot "
                "run twice, to measure and to step. Clip each parameter by itself (Handle.clip), or use an ordinary "
                "optimizer."
            )
            raise ValueError(msg)
        others = [each for each in attachment.optimizers if each.hooked and each not in handed]
        if others:
            msg = (
                f"Another optimizer steps {name_of(attachment.param, attachment.optimizers.values())} inside backward. "
                f"Give both: inbackward.backward(loss, [first, second], ...)."
            )
            raise ValueError(msg)
    return found


@contextmanager
def _transforming(
    handed: list[HandedOver], change: Callable[[list[torch.Tensor]], object], skipped: list[HandedOver]
) -> Iterator[None]:
    """Has gradients changed before every step, and the steps of some optimizers skipped."""
    for each in handed:
        each.transform, each.skips = change, each in skipped
    try:
        yield
    finally:
        for each in handed:
            each.transform, each.skips = None, False


def _note(scaler: torch.amp.GradScaler, optimizer: Optimizer, *, is_finite: bool) -> None:
    """Has a scaler find what was found, so that `update` changes the scale accordingly."""
    params = [param for param in listed_params(optimizer) if param.dtype != torch.float16]
    param = min(filter(can_have_gradient, params), key=torch.Tensor.numel)
    param.grad = torch.full_like(param, 0.0 if is_finite else float("inf"), memory_format=torch.preserve_format)
    try:
        scaler.unscale_(optimizer)
    finally:
        param.grad = None
    scaler.step(optimizer)
