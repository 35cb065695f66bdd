"""The first of two backward passes: it measures every gradient, and keeps none."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import torch

from inbackward._names import name_of
from inbackward._norms import norm_of, norm_of_norms

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from torch.utils.hooks import RemovableHandle

    from inbackward._attachment import Attachment
    from inbackward._handed_over import HandedOver


class Measurement:
    """The norms of all gradients of one backward, none of which it keeps."""

    def __init__(self, norm_type: float, scaler: torch.amp.GradScaler | None, *, with_norms: bool) -> None:
        self._norm_type = float(norm_type)
        self._with_norms = with_norms
        self._inverse_scale = None if scaler is None else _inverse_scale(scaler)
        # By id of the parameter: of all that were measured, and what was asked for of their gradients.
        self._kinds: dict[int, tuple[torch.device, torch.dtype]] = {}
        self._norms: dict[int, torch.Tensor] = {}
        self._finite: dict[int, torch.Tensor] = {}  # a scaler alone asks for it
        self._order: list[int] = []
        self._before: dict[int, torch.Tensor | None] = {}

    def run(self, loss: torch.Tensor, handed: list[HandedOver], attachments: list[Attachment]) -> None:
        """Runs backward, and leaves every gradient as it was before."""
        self._order = [id(attachment.param) for attachment in attachments]
        self._before = {id(attachment.param): attachment.param.grad for attachment in attachments}
        params = [attachment.param for attachment in attachments if attachment.param.requires_grad]
        try:
            with ExitStack() as stack:
                for attachment in attachments:
                    stack.callback(_have_added_to_copy(attachment.param))
                for each in handed:
                    each.intercept = self._take
                    stack.callback(setattr, each, "intercept", None)
                loss.backward(retain_graph=True, inputs=params)
            for attachment in attachments:
                before = self._before[id(attachment.param)]
                if before is not None and id(attachment.param) not in self._kinds:
                    self._measure(attachment.param, before.clone())
        finally:
            for attachment in attachments:
                attachment.param.grad = self._before[id(attachment.param)]
            self._before = {}

    def total_norm(self, *, error_if_nonfinite: bool) -> torch.Tensor:
        """The norm of all gradients together, as `clip_grad_norm_` gives it."""
        measured = [key for key in self._order if key in self._norms]
        return norm_of_norms(
            [self._norms[key] for key in measured],
            [self._kinds[key] for key in measured],
            self._norm_type,
            error_if_nonfinite=error_if_nonfinite,
        )

    def expect(self, params: Iterable[torch.Tensor]) -> None:
        """Refuses gradients that the first backward has not shown.

        Raises:
            RuntimeError: There is one.
        """
        for param in params:
            if param.grad is not None and id(param) not in self._kinds:
                msg = (
                    f"The gradient of {name_of(param)} came in the second backward alone, so "
                    f"it is no part of the norm. It was not stepped, others may have been stepped already. A custom "
                    f"autograd Function that runs backward itself does this: use an ordinary optimizer."
                )
                raise RuntimeError(msg)

    def is_finite(self, params: Iterable[torch.Tensor]) -> bool:
        """Whether a scaler has these parameters stepped."""
        asked = [self._finite[id(param)] for param in params if id(param) in self._finite]
        return not asked or bool(torch.stack([finite.to(asked[0].device) for finite in asked]).all())

    def unscale(self, params: Iterable[torch.Tensor]) -> None:
        """Divides gradients by the scale, as `GradScaler.unscale_` does."""
        if self._inverse_scale is not None:
            for param in params:
                if param.grad is not None:
                    _multiply(param.grad, self._inverse_scale)

    def _take(self, attachment: Attachment) -> None:
        param = attachment.param
        if id(param) in self._kinds:
            msg = (
                f"The gradient of {name_of(param)} came twice in one backward, so its norm "
                f"is not known before the second part. Nothing was stepped. Pass use_reentrant=False to "
                f"torch.utils.checkpoint.checkpoint."
            )
            raise RuntimeError(msg)

        def measure() -> None:
            grad, param.grad = param.grad, None
            if grad is not None:
                self._measure(param, grad)

        attachment.after_hooks(measure)

    def _measure(self, param: torch.Tensor, grad: torch.Tensor) -> None:
        with torch.no_grad():
            if self._inverse_scale is not None:
                if grad.dtype == torch.float16:
                    msg = (
                        "A gradient to be unscaled is of dtype float16, which GradScaler does not unscale. Keep "
                        "parameters in float32, and run the forward under torch.autocast."
                    )
                    raise ValueError(msg)
                values = grad.coalesce().values() if grad.is_sparse else grad
                self._finite[id(param)] = torch.isfinite(values).all()
                _multiply(grad, self._inverse_scale)
            if self._with_norms:
                self._norms[id(param)] = norm_of(grad, self._norm_type)
            self._kinds[id(param)] = (grad.device, grad.dtype)


def _have_added_to_copy(param: torch.Tensor) -> Callable[[], None]:
    """Has the gradient that comes next added to a copy of the present one, so that user's hooks see the sum."""
    before, param.grad = param.grad, None
    if before is None or not param.requires_grad:
        return lambda: None
    param.grad = before

    def copy(_: torch.Tensor) -> None:
        param.grad = before.clone()

    handle: RemovableHandle = param.register_hook(copy)
    return handle.remove


def _inverse_scale(scaler: torch.amp.GradScaler) -> torch.Tensor:
    """What GradScaler multiplies by, computed as there."""
    return torch.tensor(scaler.get_scale(), dtype=torch.float64, device="cpu").reciprocal().float()


def _multiply(grad: torch.Tensor, factor: torch.Tensor) -> None:
    values = grad._values() if grad.is_sparse else grad  # noqa: SLF001 -- torch has no public name for it
    values.mul_(factor.to(values.device))
