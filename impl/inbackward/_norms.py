"""The total norm of gradients from the norm of each, to the bit as `torch.nn.utils.clip_grad_norm_` computes it.

It takes the norm of all gradients at once, so the public functions cannot be called on one gradient after the other:
the norm of one norm is another number by rounding. The order and the kernels that torch chooses by device have no
public name; no other module touches them.
"""

# ruff: noqa: SLF001 -- this is the module that may
from __future__ import annotations

import torch
from torch.utils._foreach_utils import _group_tensors_by_device_and_dtype, _has_foreach_support


def norm_of(grad: torch.Tensor, norm_type: float) -> torch.Tensor:
    """The norm of one gradient."""
    if _has_foreach_support([grad], grad.device):
        return torch._foreach_norm([grad], norm_type)[0]
    norm: torch.Tensor = torch.linalg.vector_norm(grad, norm_type)
    return norm


def norm_of_norms(
    norms: list[torch.Tensor],
    kinds: list[tuple[torch.device, torch.dtype]],
    norm_type: float,
    *,
    error_if_nonfinite: bool,
) -> torch.Tensor:
    """The norm of all gradients together.

    Args:
        norms: The norm of each gradient.
        kinds: Device and dtype of each gradient.
        norm_type: Which norm.
        error_if_nonfinite: Whether a norm that is infinite or NaN is an error.

    Raises:
        RuntimeError: It is one.
    """
    if not norms:
        return torch.tensor(0.0)
    empty = [torch.empty(0, device=device, dtype=dtype) for device, dtype in kinds]
    grouped = _group_tensors_by_device_and_dtype([empty], with_indices=True)  # type: ignore[list-item]
    device = norms[0].device
    ordered = [norms[number] for _, numbers in grouped.values() for number in numbers]
    total: torch.Tensor = torch.linalg.vector_norm(torch.stack([norm.to(device) for norm in ordered]), norm_type)
    if error_if_nonfinite and not bool(torch.isfinite(total)):
        msg = (
            f"The total norm of order {norm_type} of the gradients is {float(total)}, so they cannot be clipped. "
            f"Nothing was stepped. To clip by it all the same, leave out error_if_nonfinite."
        )
        raise RuntimeError(msg)
    return total
