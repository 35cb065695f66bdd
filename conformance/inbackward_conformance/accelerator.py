"""What the suite asks of torch about accelerators; no other module names a kind of them.

A device is given as on the command line, `cpu`, `cuda` or `cuda:1`; its kind is the part before the colon.
"""

from __future__ import annotations

import os
import sys

import torch
import torch.distributed as dist

CPU = "cpu"


def kind_of(device: str) -> str:
    """Return the kind of a device."""
    return device.partition(":")[0]


def is_accelerator(device: str) -> bool:
    """Return whether a device is an accelerator."""
    return kind_of(device) != CPU


def kind_for_autocast() -> str:
    """Return the kind of the accelerator of this machine; `cuda` on a machine without one."""
    found = torch.accelerator.current_accelerator()
    return found.type if found else "cuda"


def why_unusable(device: str) -> str | None:
    """Return why torch cannot use an accelerator here, in one line; None if it can."""
    try:
        torch.get_device_module(kind_of(device))
        torch.zeros((), device=device)
    except (AssertionError, AttributeError, ImportError, RuntimeError) as error:
        return _first_line(error)
    return None


def make_repeatable(device: str) -> None:
    """Choose kernels that give the same bits each time, before a case or a job; on a CPU all do.

    Some kernels of accelerators add in any order. Those without another form only warn. A cuBLAS workspace of fixed
    size is chosen by `set_up_process`. See `torch.use_deterministic_algorithms`.
    """
    if is_accelerator(device):
        torch.use_deterministic_algorithms(mode=True, warn_only=True)


def set_up_process(device: str) -> None:
    """Set what `make_repeatable` needs, once, before the device is used; processes that start later inherit it."""
    if is_accelerator(device):
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def why_lost(device: str) -> str | None:
    """Wait for a device, and return the error after which no process can use it any more, in one line; else None.

    An illegal memory access, for example, is reported by every call from then on.
    """
    if not is_accelerator(device):
        return None
    try:
        torch.accelerator.synchronize(device)
    except RuntimeError as error:
        return _first_line(error)
    return None


def exit_if_lost(device: str) -> None:
    """End this process if its device is lost: whoever started it starts another."""
    if why := why_lost(device):
        print(why, file=sys.stderr, flush=True)
        os._exit(1)


def backend_of(device: str, world_size: int) -> str:
    """Return the backend of a process group: the accelerator's own needs a device for each rank, Gloo does not."""
    if not is_accelerator(device) or shares_devices(device, world_size):
        return dist.Backend.GLOO
    kind = kind_of(device)
    return f"{CPU}:{dist.Backend.GLOO},{kind}:{dist.get_default_backend_for_device(kind)}"


def shares_devices(device: str, world_size: int) -> bool:
    """Return whether ranks on this machine share an accelerator; torchrun says how many of them are here."""
    if not is_accelerator(device):
        return False
    here = min(world_size, int(os.environ.get("LOCAL_WORLD_SIZE", world_size)))
    return (1 if ":" in device else torch.accelerator.device_count()) < here


def device_of_rank(device: str, number: int) -> str:
    """Make the device of a rank the current one, and return it; a device with an index, and a CPU, are for all."""
    if not is_accelerator(device) or ":" in device:
        return device
    index = number % torch.accelerator.device_count()
    torch.accelerator.set_device_index(index)
    return f"{device}:{index}"


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
