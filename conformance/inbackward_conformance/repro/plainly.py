"""What requirements call of the suite, in the few plain lines that a script has room for.

Where the source of a requirement goes into a script, these take the place of their namesakes: they demand the same, and
tell less of it.
"""

from __future__ import annotations

import tempfile
import traceback
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from torch import Tensor, nn
    from torch.optim import Optimizer

BrokenPromise = AssertionError


@contextmanager
def rejected(
    model: nn.Module, listed: Callable[[nn.Module], list[Any]], what: str, as_in: Callable[[], object] | None = None
) -> Iterator[None]:
    """The body raises an error that somebody wrote, or the one that torch raises, and attaches nothing."""
    before = list(map(id, listed(model)))
    try:
        yield
    except Exception as error:
        if is_accidental(error) and str(error) != _error_of(as_in):
            raise
        print(f"{what} is rejected: {type(error).__name__}: {error}")
    else:
        raise AssertionError(f"{what} is accepted")
    assert list(map(id, listed(model))) == before, f"{what} is rejected, but something is attached"


def _error_of(call: Callable[[], object] | None) -> str:
    try:
        if call:
            call()
    except Exception as error:  # noqa: BLE001 (torch raises what it likes)
        return str(error)
    return ""


def is_accidental(error: Exception) -> bool:
    """An error that no `raise` statement made, or that nobody raises on purpose."""
    accidents = (ArithmeticError, AssertionError, AttributeError, LookupError, NameError)
    line = traceback.extract_tb(error.__traceback__)[-1].line or ""
    return isinstance(error, accidents) or not line.startswith("raise")


@contextmanager
def going_through(_what: str) -> Iterator[None]:
    """The body raises nothing."""
    yield


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are equal."""
    return a.dtype == b.dtype and torch.allclose(a, b, rtol=0, atol=0, equal_nan=True)


def describe_difference(expected: Tensor, actual: Tensor) -> str:
    """The largest difference of two tensors."""
    return f"largest difference {(actual - expected).abs().max().item():.3g}"


def take_snapshot(event: str, model: nn.Module, optimizers: Iterable[Optimizer]) -> dict[str, Any]:
    """Parameters and optimizer states, by name."""
    taken: dict[str, Any] = {"event": event}
    for name, param in model.named_parameters():
        taken[f"parameter {name!r}"] = param.detach().clone()
        states = [optimizer.state[param] for optimizer in optimizers if param in optimizer.state]
        for number, state in enumerate(states):
            taken |= {f"{key} {number} of {name!r}": torch.as_tensor(value).clone() for key, value in state.items()}
    return taken


def difference(expected: dict[str, Any], actual: dict[str, Any]) -> str:
    """What two snapshots differ in; empty: nothing."""
    if expected.keys() != actual.keys():
        return f"there are {list(actual)}, expected {list(expected)}"
    for name in expected.keys() - {"event"}:
        if not same_bits(expected[name], actual[name]):
            return f"{name} differs after {actual['event']}: {describe_difference(expected[name], actual[name])}"
    return ""


def on_ranks(world_size: int, body: Callable[..., None], *arguments: Any) -> None:
    """Call `body` on so many ranks."""
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(  # type: ignore[attr-defined,no-untyped-call]
            _on_rank, (world_size, folder, body, *arguments), nprocs=world_size
        )


def _on_rank(number: int, world_size: int, folder: str, body: Callable[..., None], *arguments: Any) -> None:
    store = f"file://{folder}/rendezvous"
    dist.init_process_group("gloo", init_method=store, rank=number, world_size=world_size)
    body(SimpleNamespace(number=number, world_size=world_size, device="cpu"), *arguments)
