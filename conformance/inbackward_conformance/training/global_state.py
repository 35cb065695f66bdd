"""Global settings that an implementation may change: read, compared, and restored after each case.

Two are left alone: `sys.path`, since a library that has extended it may import from there later, and the number of
interop threads, which torch lets nobody change twice.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import warnings
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from inbackward_conformance import accelerator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGALRM") if hasattr(signal, name))
AUTOCAST = (accelerator.CPU, accelerator.kind_for_autocast())
"""The kinds of device that autocast is switched on for, each on its own."""

OF_PYTEST = "PYTEST_CURRENT_TEST"
"""An environment variable that pytest itself changes during a case."""


def torch_settings() -> dict[str, Any]:
    """Return the global settings of torch by name."""
    return {
        "the grad mode": torch.is_grad_enabled(),
        "the default dtype": torch.get_default_dtype(),
        "the default device": torch.get_default_device(),
        "the deterministic mode": torch.get_deterministic_debug_mode(),
        "the number of threads": torch.get_num_threads(),
        "anomaly detection": (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()),
        "autocast": [(torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in AUTOCAST],
        "the matmul precision": torch.get_float32_matmul_precision(),
        "cudnn.enabled": torch.backends.cudnn.enabled,
        "cudnn.benchmark": torch.backends.cudnn.benchmark,
        "cudnn.deterministic": torch.backends.cudnn.deterministic,
        "mkldnn.enabled": torch.backends.mkldnn.enabled,
    }


def process_settings() -> dict[str, Any]:
    """Return the global settings of the process by name."""
    return {
        "the working directory": _folder(),
        "the environment": _environment(),
        "the handlers of signals": [signal.getsignal(number) for number in SIGNALS],
        "the recursion limit": sys.getrecursionlimit(),
        "garbage collection": gc.isenabled(),
    }


@contextmanager
def restored_settings() -> Iterator[None]:
    """Restore all settings at the end, and the filters of warnings; this takes about 0.15 ms."""
    before = torch_settings() | process_settings()
    with warnings.catch_warnings():
        try:
            yield
        finally:
            now = torch_settings() | process_settings()
            if changed := [name for name, value in before.items() if value != now[name]]:
                warnings.simplefilter("ignore")  # torch warns of functions that are to change
                for name in changed:
                    _SETTERS[name](before[name])


def _set_default_device(device: torch.device) -> None:
    torch.set_default_device(None if device.type == "cpu" else device)


def _set_anomaly_detection(modes: tuple[bool, bool]) -> None:
    torch.autograd.set_detect_anomaly(*modes)


def _set_autocast(settings: list[tuple[bool, torch.dtype]]) -> None:
    for kind, (enabled, dtype) in zip(AUTOCAST, settings, strict=True):
        torch.set_autocast_enabled(kind, enabled)
        torch.set_autocast_dtype(kind, dtype)


def _folder() -> str:
    try:
        return os.getcwd()  # noqa: PTH109 (a path takes longer)
    except FileNotFoundError:  # removed meanwhile
        return ""


def _enter(folder: str) -> None:
    with suppress(OSError):
        os.chdir(folder)


def _environment() -> dict[str, str]:
    environment = dict(os.environ)
    environment.pop(OF_PYTEST, None)
    return environment


def _set_environment(environment: Mapping[str, str]) -> None:
    for name in _environment().keys() - environment.keys():
        del os.environ[name]
    os.environ.update(environment)


def _handle_signals(handlers: list[Any]) -> None:
    if threading.current_thread() is threading.main_thread():  # no other may
        for number, handler in zip(SIGNALS, handlers, strict=True):
            if handler is not None:  # one that is not of Python
                signal.signal(number, handler)


def _collect_garbage(enabled: bool) -> None:
    (gc.enable if enabled else gc.disable)()


_SETTERS: dict[str, Callable[[Any], object]] = {
    "the grad mode": torch.set_grad_enabled,
    "the default dtype": torch.set_default_dtype,
    "the default device": _set_default_device,
    "the deterministic mode": torch.set_deterministic_debug_mode,
    "the number of threads": torch.set_num_threads,
    "anomaly detection": _set_anomaly_detection,
    "autocast": _set_autocast,
    "the matmul precision": torch.set_float32_matmul_precision,
    "cudnn.enabled": partial(setattr, torch.backends.cudnn, "enabled"),
    "cudnn.benchmark": partial(setattr, torch.backends.cudnn, "benchmark"),
    "cudnn.deterministic": partial(setattr, torch.backends.cudnn, "deterministic"),
    "mkldnn.enabled": partial(setattr, torch.backends.mkldnn, "enabled"),
    "the working directory": _enter,
    "the environment": _set_environment,
    "the handlers of signals": _handle_signals,
    "the recursion limit": sys.setrecursionlimit,
    "garbage collection": _collect_garbage,
}
