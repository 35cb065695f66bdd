"""The base of all events."""

from __future__ import annotations

from dataclasses import dataclass

from inbackward_conformance.plan.literals import Printable


@dataclass(frozen=True, repr=False)
class Event(Printable):
    """Something that happens in a run: plain data.

    What an event does is a function of `inbackward_conformance.training.execute`; how it is written into a script is
    one of `inbackward_conformance.repro.write`. Both are chosen by the type of the event.
    """
