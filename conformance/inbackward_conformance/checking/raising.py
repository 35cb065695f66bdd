"""What has to raise a clear error, and what must not raise one."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from inbackward_conformance.outcome import BrokenPromise, Finding, NotOffered, NotRun, Outcome
from inbackward_conformance.raised_error import is_observation
from inbackward_conformance.training.classify_error import printable_errors
from inbackward_conformance.training.compare import difference
from inbackward_conformance.training.trace import Raised, take_snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import nn

    from inbackward_conformance.adapters.implementation import Implementation


@contextmanager
def rejection(
    implementation: Implementation, model: nn.Module, what: str, as_in: Callable[[], object] | None
) -> Iterator[None]:
    """Require that the body of the with statement raises a clear error; see `Check.rejected`."""
    of_torch = _error_of(as_in)
    if as_in and of_torch is None and implementation.declared.own_optimizers:
        raise NotOffered(f"its own optimizer class accepts {what}")
    before = take_snapshot(what, model, None)
    listed = _optimizer_ids(implementation, model)
    try:
        yield
    except BaseException as error:
        if not _is_of_body(error):
            raise
        raised = Raised.observe(error, what, attaching=1)
        if raised.accidental and raised.text != of_torch:
            raise _failure(f"an accident, not a clear error, for {what}: {raised.text}") from error
    else:
        raise _failure(f"{what} is accepted")
    if changed := difference(before, take_snapshot(what, model, None)):
        raise BrokenPromise(changed)
    if _optimizer_ids(implementation, model) != listed:
        raise _failure(f"{what} is rejected, but something is attached")


@contextmanager
def must_not_raise(what: str) -> Iterator[None]:
    """Require that the body of the with statement raises nothing; `what` describes it.

    For code that an attachment can break without a call of the implementation, such as a copy or a plain backward.

    Raises:
        BrokenPromise: the body raised an error.
    """
    try:
        yield
    except BaseException as error:
        if not _is_of_body(error):
            raise
        raise _failure(f"{what} raises {Raised.observe(error, what, attaching=0).text}") from error


def _is_of_body(error: BaseException) -> bool:
    """Return whether `error` is of the code under test, and not one that ends the case."""
    return is_observation(error) and not isinstance(error, BrokenPromise | NotOffered | NotRun)


def _error_of(call: Callable[[], object] | None) -> str | None:
    """Return the error of a call; None if it raises none."""
    try:
        if call:
            call()
    except Exception as error:  # noqa: BLE001 (torch may raise any error)
        return Raised.observe(error, "", attaching=1).text
    return None


def _optimizer_ids(implementation: Implementation, model: nn.Module) -> list[int] | None:
    try:
        with printable_errors():
            return [id(optimizer) for optimizer in implementation.optimizers(model)]
    except NotOffered:
        return None


def _failure(detail: str) -> BrokenPromise:
    return BrokenPromise(Finding(Outcome.FAILS, detail, passed=False))
