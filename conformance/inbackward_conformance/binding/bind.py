"""Binds the needs of a plan to optimizer classes.

An implementation that takes any class gets those that the plan names. One with classes of its own gets one of these for
each need; if none meets it, the plan is not offered.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from inbackward_conformance.adapters.declarations import FEATURES, OwnOptimizer
from inbackward_conformance.binding.facts import Facts, facts_of
from inbackward_conformance.binding.features import features_of
from inbackward_conformance.catalogue.optimizers import bind_options, find_optimizer_class
from inbackward_conformance.outcome import NotOffered, NotRun
from inbackward_conformance.plan import Assignment, Group, Plan, TensorOption, events
from inbackward_conformance.plan.need import ANY, Relation

if TYPE_CHECKING:
    from collections.abc import Callable

    from inbackward_conformance.adapters.implementation import Implementation
    from inbackward_conformance.plan.events import Event


def bind_plan(plan: Plan, implementation: Implementation) -> Plan:
    """Return the plan with a class for each need.

    Raises:
        NotOffered: no class of the implementation meets a need.
        NotRun: only classes that draw random numbers do.
        RuntimeError: a class that its adapter declares cannot be used.
    """
    binder = _Binder(implementation, plan)
    before = tuple(map(binder.event, plan.before))
    assignments = tuple(map(binder.assignment, plan.assignments))
    return replace(plan, before=before, assignments=assignments, events=tuple(map(binder.event, plan.events)))


def bind_event(event: Event, plan: Plan, implementation: Implementation) -> Event:
    """Return a further event of a bound plan; raises the same errors as `bind_plan`."""
    binder = _Binder(implementation, plan)
    binder.bound = list(plan.assignments)
    return binder.event(event)


def bind(implementation: Implementation, assignment: Assignment) -> tuple[Any, dict[str, Any]]:
    """Return the class for an assignment and its keyword arguments; raises the same errors as `bind_plan`."""
    bound = bound_assignment(implementation, assignment)
    return find_optimizer_class(bound.optimizer), bind_options(bound.options)


def bound_assignment(implementation: Implementation, assignment: Assignment) -> Assignment:
    """Return an assignment that stands alone with a class for its need; raises the same errors as `bind_plan`."""
    return _Binder(implementation).assignment(assignment)


@dataclass(frozen=True)
class _Candidate:
    """A declared class with one set of options."""

    entry: OwnOptimizer
    options: dict[str, Any]
    facts: Facts


class _Binder:
    """Binds the assignments of one plan, in order.

    Attributes:
        bound: the assignments that are bound already.
    """

    def __init__(self, implementation: Implementation, plan: Plan | None = None) -> None:
        self.bound: list[Assignment] = []
        self._implementation = implementation
        self._plan = plan
        self._own = {entry.name: entry for entry in implementation.declared.own_optimizers}

    def event(self, event: Event) -> Event:
        """Bind the assignment, or the name of the learning rate, in an event."""
        match event:
            case events.AttachMore() | events.FailToAttach():
                return replace(event, assignment=self.assignment(event.assignment))
            case events.PerRank():
                return replace(event, events=tuple(map(self.event, event.events)))
            case events.SetOption(option="lr") if self._own:
                return replace(event, option=self._lr_option())
            case events.StartSchedule() if self._own and (lr := self._lr_option()) != "lr":
                raise NotOffered(f"torch's schedulers know no learning rate of the name {lr!r}")
        return event

    def assignment(self, assignment: Assignment) -> Assignment:
        """Bind an assignment."""
        if not self._own:
            return assignment if assignment.need is ANY else replace(assignment, need=ANY)
        chosen = self._choose(assignment)
        options = dict(chosen.options)
        if isinstance(assignment.options.get("lr"), TensorOption):
            if chosen.facts.lr is None:
                raise NotOffered(f"{chosen.entry.label} has no learning rate that could be a tensor")
            options[chosen.entry.lr] = TensorOption(chosen.facts.lr)
        bound = replace(assignment, optimizer=chosen.entry.name, options=options, need=ANY)
        if _has_groups(assignment):
            bound = replace(bound, params=tuple(_group(group, chosen.entry) for group in assignment.params))
        self.bound.append(bound)
        return bound

    def _choose(self, assignment: Assignment) -> _Candidate:
        need = assignment.need
        left = self._candidates(assignment)
        asked = _features_of_assignment(assignment) | (set() if need.may_raise else self._features)
        for lacking, words in FEATURES.items():
            if lacking in asked:
                left = _only(left, partial(_supports, lacking), f"supports {words}")
        if need.keeps_state is not None:
            what = "keeps a state" if need.keeps_state else "keeps no state"
            left = _only(left, lambda each: each.facts.keeps_state is need.keeps_state, what)
        if need.moves_at_zero:
            left = _only(left, lambda each: each.facts.moves_at_zero, "moves a parameter whose gradient is zero")
        if need.proportional:
            left = _only(left, lambda each: each.facts.proportional, "moves a parameter in proportion to its gradient")
        if need.scheduled:
            left = _only(left, lambda each: each.entry.lr == "lr", "has a learning rate that torch's schedulers know")
        left = self._related(left, need.relation)
        if need.compared:
            left = _only_repeatable(left)
        if need.number is not None:
            return left[need.number % len(left)]
        return max(left, key=self._strength)

    def _candidates(self, assignment: Assignment) -> list[_Candidate]:
        if entry := self._own.get(assignment.optimizer):  # a case of this very class
            return [self._candidate(entry, assignment.options)]
        if assignment.need.exactly:
            example = assignment.optimizer.rpartition(":")[2]
            raise NotOffered(f"for implementations that take any optimizer class, such as {example}")
        return [self._candidate(entry, options) for entry in self._own.values() for options in entry.configurations]

    def _candidate(self, entry: OwnOptimizer, options: dict[str, Any]) -> _Candidate:
        return _Candidate(entry, options, facts_of(entry, options, self._implementation))

    def _related(self, left: list[_Candidate], relation: Relation) -> list[_Candidate]:
        """Return the candidates that relate to the bound assignments as they should."""
        if not self.bound or relation == Relation.ANY:
            return left
        used = dict.fromkeys(bound.optimizer for bound in self.bound)
        if relation == Relation.ANOTHER_CLASS:
            names = ", ".join(self._own[name].label for name in used)
            if used.keys() >= self._own.keys():
                raise NotOffered(f"another optimizer class than {names} is needed, and no other is declared")
            return _only(left, lambda each: each.entry.name not in used, f"is of another class than {names}")
        alike = [each for each in left if each.entry.name == self.bound[0].optimizer]
        taken = [bound.options for bound in self.bound]
        if other := [each for each in alike if each.options not in taken]:
            return other
        with_lr = _only(
            alike, lambda each: each.facts.lr is not None, "has other options, or a learning rate to change"
        )
        return list(map(self._slower, with_lr))

    def _slower(self, candidate: _Candidate) -> _Candidate:
        """Return the candidate with a lower learning rate than any that is bound."""
        lr = (candidate.facts.lr or 0.0) / 2 ** len(self.bound)
        return self._candidate(candidate.entry, {**candidate.options, candidate.entry.lr: lr})

    def _strength(self, candidate: _Candidate) -> tuple[bool, ...]:
        """Return a sort key: what differs from other optimizers of the plan and keeps most is most likely to tell."""
        used = [(bound.optimizer, bound.options) for bound in self.bound]
        return (
            candidate.entry.name not in [name for name, _ in used],
            (candidate.entry.name, candidate.options) not in used,
            candidate.facts.keeps_state,
            candidate.facts.moves_at_zero,
        )

    def _lr_option(self) -> str:
        """Return the name of the learning rate of all bound classes."""
        names = {self._own[bound.optimizer].lr for bound in self.bound}
        if len(names) > 1:
            raise NotOffered(f"its optimizers call their learning rates differently: {', '.join(sorted(names))}")
        if names == {""}:
            raise NotOffered("its optimizer has no learning rate")
        return next(iter(names), "lr")

    @cached_property
    def _features(self) -> frozenset[str]:
        """What the plan asks of all its optimizers; nothing where no class lacks anything."""
        if self._plan is None or not any(entry.lacks for entry in self._own.values()):
            return frozenset()
        return features_of(self._plan)


def _only(left: list[_Candidate], meets: Callable[[_Candidate], bool], what: str) -> list[_Candidate]:
    if meeting := [each for each in left if meets(each)]:
        return meeting
    raise NotOffered(f"none of its own optimizers ({_labels(left)}) {what}")


def _supports(feature: str, candidate: _Candidate) -> bool:
    return feature not in candidate.entry.lacks


def _only_repeatable(left: list[_Candidate]) -> list[_Candidate]:
    if repeatable := [each for each in left if not each.entry.draws_random_numbers]:
        return repeatable
    raise NotRun(
        f"a step of {_labels(left)} draws random numbers, and parameters step in another order inside backward"
    )


def _labels(candidates: list[_Candidate]) -> str:
    return ", ".join(dict.fromkeys(each.entry.label for each in candidates))


def _features_of_assignment(assignment: Assignment) -> set[str]:
    features = {"groups"} if _has_groups(assignment) else set()
    return features | ({"tensor_lr"} if isinstance(assignment.options.get("lr"), TensorOption) else set())


def _has_groups(assignment: Assignment) -> bool:
    return not isinstance(assignment.params, str) and any(isinstance(item, Group) for item in assignment.params)


def _group(group: Any, entry: OwnOptimizer) -> Any:
    """Return a parameter group with the class's own name of the learning rate."""
    options = {entry.lr if key == "lr" else key: value for key, value in group.options.items()}
    return replace(group, options=options)
