"""The base of all events."""

from __future__ import annotations

from dataclasses import dataclass

from inbackward_conformance.plan.literals import Printable


@dataclass(frozen=True, repr=False)
class Event(Printable):
    """One step of a run, as plain data.

    A function in `inbackward_conformance.training.execute` runs it, and a function in
    `inbackward_conformance.repro.write` writes it into a script. Both are chosen by the type of the event.
    """
