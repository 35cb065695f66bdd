"""Which cases a mutant runs: one of each requirement that is for it to run."""

from __future__ import annotations

from collections import defaultdict

from inbackward_conformance.specification import DISTRIBUTED, specification
from mutants.registry import MUTANTS, chapters

OF_EXTRAS = {requirement.chapter for requirement in specification().values() if requirement.extra}
"""Chapters that need the libraries of an extra, which have a session of their own."""

APART = DISTRIBUTED | OF_EXTRAS | {"accumulation", "clipping", "functional", "handed_over"}
"""Chapters of calls that the others do not make, or of an extra: their own mutants run them alone, and no others do."""

SLOW = {
    "ddp/early_step",
    "equivalence/long_run",
    "fsdp/checkpoint",
    "fsdp/checkpoint_of_original_parameters",
    "fsdp/early_step",
    "functional/compile",
    "functional/compile_by_inductor",
    "hazards/compile",
    "hazards/compiled_autograd",
    "lifetime/rounds",
    "memory/peak_of_compiled_layers",
}
"""Half of the time would be theirs: only mutants that are for them run them."""

BY_CHANCE = {"hazards/two_threads"}
"""What others come to there depends on which thread comes first: again, only mutants that are for it run it."""

DRAWN = "properties"
"""Plans that are drawn until one fails find nearly every mutant, and take as long: only mutants for it run it."""

_CASES: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
"""By requirement: the cases of each mutant that is for it, and for a base those of all that are made from it."""

_CHAPTERS = chapters()

for mutant in MUTANTS:
    for name in filter(None, (mutant.name, mutant.made_from)):
        _CASES[mutant.requirement][name].append(mutant.case)


def selection(names: list[str], extra: str = "") -> dict[str, dict[str, list[str]]]:
    """Return the cases of these mutants and bases, by name and requirement, for `--conformance-select`.

    They are of requirements that need no extra; or of one that needs this extra, for mutants of this one alone.
    """
    known = [name for name, requirement in specification().items() if requirement.extra == extra]
    return {
        name: {each: cases for each in known if (cases := _CASES[each].get(name) if extra else cases_for(name, each))}
        for name in names
    }


def cases_for(name: str, requirement: str) -> list[str]:
    """Return the cases that show best what a mutant does, or none where the requirement is not for it to run."""
    cases = _CASES[requirement]
    if name in cases:
        return cases[name]
    chapter = requirement.partition("/")[0]
    its_affair = chapter in _CHAPTERS[name] if chapter in APART else not _CHAPTERS[name] <= APART
    if not its_affair or requirement in SLOW | BY_CHANCE or chapter == DRAWN:
        return []
    return next(iter(cases.values()), [""])[:1]
