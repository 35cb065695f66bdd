"""Streams of an accelerator: gradients that are read on another stream than the one that their memory belongs to.

DDP's futures call back on a stream of their own, and FSDP2 calls hooks on that of its last collective. A step there is
only queued when the gradient is freed, and the memory goes back to the stream that it was allocated on, which
overwrites it without waiting. See `torch.Tensor.record_stream`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import distributed

from inbackward._ranks import is_sharded

if TYPE_CHECKING:
    from collections.abc import Iterable


def keep_for_current_stream(grad: Any) -> None:
    """Has the memory of a gradient stay as it is, once it is freed, until the current stream is done with it."""
    if grad is not None and not grad.is_cpu:
        local: torch.Tensor = grad.to_local() if is_sharded(grad) else grad
        local.record_stream(torch.accelerator.current_stream(local.device))


def wait_for_offload(param: Any) -> None:
    """Waits until the gradient of a sharded parameter is there that FSDP2 offloads to the CPU.

    With pinned memory, `CPUOffloadPolicy` only queues the copy, on the stream on which FSDP2 calls hooks.
    """
    if param.is_cpu and param.device_mesh.device_type != "cpu":
        torch.accelerator.current_stream().synchronize()


def stream_of(grad: Any) -> torch.Stream | None:
    """The stream on which a gradient has become complete: the current one; None for a gradient on the CPU."""
    return None if grad is None or grad.is_cpu else torch.accelerator.current_stream(grad.device)


def gather(grads: Iterable[Any], streams: Iterable[torch.Stream]) -> None:
    """Has the current stream wait until gradients are there that have become complete on these streams."""
    for stream in streams:
        current = torch.accelerator.current_stream(stream.device)
        if stream != current:
            current.wait_stream(stream)
    for grad in grads:
        keep_for_current_stream(grad)


def wait_for_gloo(group: Any, device: torch.device) -> None:
    """Waits until a result of Gloo is on its accelerator, or until a step there is done, for whoever waits for Gloo.

    Gloo copies results on streams of its own, and not every version of torch has its futures wait for them.
    """
    if device.type != "cpu" and f"{device.type}:gloo" in distributed.get_backend_config(group).split(","):
        torch.accelerator.synchronize(device)
