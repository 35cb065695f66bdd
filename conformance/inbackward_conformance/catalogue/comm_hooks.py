"""Torch's communication hooks, by name."""

from __future__ import annotations

from typing import Any

from torch.distributed.algorithms.ddp_comm_hooks import default_hooks

from inbackward_conformance.outcome import NotRun

POWER_SGD: dict[str, Any] = {"matrix_approximation_rank": 1, "start_powerSGD_iter": 2, "min_compression_rate": 0.5}


def find_comm_hook(name: str) -> tuple[Any, Any]:
    """Return a communication hook, and the state to register it with.

    Raises:
        NotRun: this torch cannot import the hook.
    """
    if name == "bf16_compress":
        return _bf16_compress, None
    if name != "powerSGD":
        return getattr(default_hooks, f"{name}_hook"), None
    try:
        from torch.distributed.algorithms.ddp_comm_hooks import powerSGD_hook as power_sgd  # noqa: PLC0415
    except ImportError as error:
        raise NotRun(f"torch's PowerSGD cannot be imported here: {error}") from error
    return power_sgd.powerSGD_hook, power_sgd.PowerSGDState(None, **POWER_SGD)


def _bf16_compress(state, bucket):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202 (DDP reads annotations)
    # DDP accepts the original on NCCL only, by its name; gloo reduces bfloat16 as well.
    return default_hooks.bf16_compress_hook(state, bucket)
