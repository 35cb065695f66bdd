"""Events that accumulate gradients by the implementation's own call."""

from __future__ import annotations

from dataclasses import dataclass

from inbackward_conformance.plan.events.event import Event


@dataclass(frozen=True, repr=False)
class MicroBatch(Event):
    """Run forward and backward on a micro-batch that is not the last one: gradients add up, and nothing steps.

    The next `Backward` is the last micro-batch: its step takes the sum.

    Attributes:
        skip: branches that this forward leaves out.
        error_in: a parameter whose hook raises in this backward; the error is caught. Empty for none.
        unsynchronised: whether this runs under `no_sync()` of DDP as well.
    """

    skip: tuple[str, ...] = ()
    error_in: str = ""
    unsynchronised: bool = False
