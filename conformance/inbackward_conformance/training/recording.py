"""Records one event of a run in its trace: the error that it raises, and a snapshot after it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inbackward_conformance.outcome import BrokenPromise, NotOffered, NotRun
from inbackward_conformance.raised_error import is_observation
from inbackward_conformance.training.classify_error import printable_errors
from inbackward_conformance.training.trace import Raised, take_snapshot

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn
    from torch.optim import Optimizer

    from inbackward_conformance.training.in_backward import InBackward
    from inbackward_conformance.training.standard_loop import StandardLoop
    from inbackward_conformance.training.trace import Trace


def record(
    trace: Trace,
    event: str,
    action: Callable[[], object],
    model: Callable[[], nn.Module],
    method: StandardLoop | InBackward,
    *,
    attaching: int = 0,
) -> None:
    """Do `action`, and add a snapshot of the model to `trace`; an error of the action is added too, and ends the run.

    `attaching` is the number of assignments that the event attaches. `model` returns the model, which an event may
    replace.
    """
    try:
        action()
    except (BrokenPromise, NotOffered, NotRun):
        raise
    except BaseException as error:
        if not is_observation(error):
            raise
        trace.raised = Raised.observe(error, event, attaching=attaching)
    with printable_errors():
        listed = _listed(method, model())
        trace.snapshots.append(take_snapshot(event, model(), listed, method.state_of))


def _listed(method: StandardLoop | InBackward, model: nn.Module) -> list[Optimizer] | None:
    try:
        return method.optimizers(model)
    except NotOffered:
        return None
