"""What a plan needs of an optimizer, whatever its class."""

from __future__ import annotations

from dataclasses import dataclass

from inbackward_conformance.compatibility import StrEnum
from inbackward_conformance.plan.literals import Printable


class Relation(StrEnum):
    """How an optimizer relates to those that the plan names before it."""

    ANY = ""
    SAME_CLASS = "of the same class, with other options"
    ANOTHER_CLASS = "of another class"


@dataclass(frozen=True, repr=False)
class Need(Printable):
    """What a plan needs of an optimizer.

    Attributes:
        keeps_state: whether it has to keep a state for a parameter (True), must keep none (False), or either (None).
        moves_at_zero: whether it has to move a parameter whose gradient is zero, as momentum and weight decay do.
        proportional: whether twice the gradient has to move a parameter twice as far, so that a rounding error of a
            gradient remains one.
        relation: how it relates to the optimizers that the plan names before it.
        exactly: whether only the class that the plan names will do.
        may_raise: whether its step may raise, so that it need not support what the model asks for.
        scheduled: whether a scheduler of torch has to be able to set its learning rate.
        compared: whether what it trains is compared with the standard loop.
        number: which of the possible optimizers to take, for plans that are drawn; None for the one that meets most.
    """

    keeps_state: bool | None = None
    moves_at_zero: bool = False
    proportional: bool = False
    may_raise: bool = False
    scheduled: bool = False
    relation: Relation = Relation.ANY
    exactly: bool = False
    compared: bool = True
    number: int | None = None


ANY = Need()
STATE = Need(keeps_state=True)
NO_STATE = Need(keeps_state=False)
MOVES_AT_ZERO = Need(moves_at_zero=True)
MAY_RAISE = Need(may_raise=True)
SCHEDULED = Need(scheduled=True)
EXACTLY = Need(exactly=True)
NOT_COMPARED = Need(compared=False)
SAME_CLASS = Need(relation=Relation.SAME_CLASS)
ANOTHER_CLASS = Need(relation=Relation.ANOTHER_CLASS)
