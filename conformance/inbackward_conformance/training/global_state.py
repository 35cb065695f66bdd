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
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Signals = tuple[tuple[signal.Signals, Any], ...]
    Autocast = tuple[tuple[str, bool, torch.dtype], ...]

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGALRM") if hasattr(signal, name))
OF_PYTEST = "PYTEST_CURRENT_TEST"
"""An environment variable that pytest itself changes during a case."""


class Setting(NamedTuple):
    """A global setting: its name, and the functions that read and change it."""

    name: str
    read: Callable[[], Any]
    write: Callable[[Any], object]


def changed_settings(settings: Sequence[Setting], before: Sequence[Any]) -> list[Setting]:
    """Return those of `settings` that have another value than `before`."""
    return [setting for setting, value in zip(settings, before, strict=True) if setting.read() != value]


def read_settings(settings: Sequence[Setting]) -> list[Any]:
    """Return the values of `settings`, in their order."""
    return [setting.read() for setting in settings]


@contextmanager
def restored_settings() -> Iterator[None]:
    """Restore all settings at the end, and the filters of warnings; this takes about 0.15 ms."""
    settings = (*TORCH_SETTINGS, *PROCESS_SETTINGS)
    before = read_settings(settings)
    with warnings.catch_warnings():
        try:
            yield
        finally:
            if changed := changed_settings(settings, before):
                warnings.simplefilter("ignore")  # torch warns of functions that are to change
                for setting in changed:
                    setting.write(before[settings.index(setting)])


def _anomaly_detection() -> tuple[bool, bool]:
    return torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()


def _set_anomaly_detection(modes: tuple[bool, bool]) -> None:
    torch.autograd.set_detect_anomaly(*modes)


def _autocast() -> Autocast:
    return tuple((kind, torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in ("cpu", "cuda"))


def _set_autocast(settings: Autocast) -> None:
    for kind, enabled, dtype in settings:
        torch.set_autocast_enabled(kind, enabled)
        torch.set_autocast_dtype(kind, dtype)


def _set_grad_mode(enabled: bool) -> None:
    torch.set_grad_enabled(enabled)


def _set_default_device(device: torch.device) -> None:
    torch.set_default_device(None if device.type == "cpu" else device)


def _backend_flag(backend: Any, flag: str) -> Setting:
    name = f"{backend.__name__}.{flag}"
    return Setting(name, lambda: getattr(backend, flag), lambda value: setattr(backend, flag, value))


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


def _set_environment(environment: dict[str, str]) -> None:
    for name in _environment().keys() - environment.keys():
        del os.environ[name]
    os.environ.update(environment)


def _signal_handlers() -> Signals:
    return tuple((number, signal.getsignal(number)) for number in SIGNALS)


def _handle_signals(handlers: Signals) -> None:
    if threading.current_thread() is threading.main_thread():  # no other may
        for number, handler in handlers:
            if handler is not None:  # one that is not of Python
                signal.signal(number, handler)


def _collect_garbage(enabled: bool) -> None:
    (gc.enable if enabled else gc.disable)()


TORCH_SETTINGS = (
    Setting("the grad mode", torch.is_grad_enabled, _set_grad_mode),
    Setting("the default dtype", torch.get_default_dtype, torch.set_default_dtype),
    Setting("the default device", torch.get_default_device, _set_default_device),
    Setting("the deterministic mode", torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode),
    Setting("the number of threads", torch.get_num_threads, torch.set_num_threads),
    Setting("anomaly detection", _anomaly_detection, _set_anomaly_detection),
    Setting("autocast", _autocast, _set_autocast),
    Setting("the matmul precision", torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    _backend_flag(torch.backends.cudnn, "enabled"),
    _backend_flag(torch.backends.cudnn, "benchmark"),
    _backend_flag(torch.backends.cudnn, "deterministic"),
    _backend_flag(torch.backends.mkldnn, "enabled"),
)

PROCESS_SETTINGS = (
    Setting("the working directory", _folder, _enter),
    Setting("the environment", _environment, _set_environment),
    Setting("the handlers of signals", _signal_handlers, _handle_signals),
    Setting("the recursion limit", sys.getrecursionlimit, sys.setrecursionlimit),
    Setting("garbage collection", gc.isenabled, _collect_garbage),
)
