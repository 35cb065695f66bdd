"""Streams of an accelerator: gradients that are read on another stream than the one that their memory belongs to.

DDP's futures call back on a stream of their own, and FSDP2 calls hooks on that of its last collective. A step there is
only queued when the gradient is freed, and the memory goes back to the stream that it was allocated on, which
overwrites it without waiting. See `torch.Tensor.record_stream`.
"""

from __future__ import annotations

from typing import Any

import torch

from inbackward._ranks import is_sharded


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
