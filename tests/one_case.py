"""A pytest plugin that runs, of the suite, just the cases that mutants name: a requirement and a case each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from inbackward_conformance.specification import requirement_id
from mutants import MUTANTS

if TYPE_CHECKING:
    from _pytest.python import Function

SOUND = {
    "ddp": "mutants.of_ddp:AfterBackward",
    "fsdp": "mutants.of_fsdp:OnShards",
    "functional": "mutants.of_functional:OffersFunctional",
    "hook_then_optimizer": "mutants.of_hook_then_optimizer:OffersHook",
    "properties_on_ranks": "mutants.of_ddp:AfterBackward",
}
"""What the mutants of a chapter are made from, where it is not `Naive`."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[Function]) -> None:
    """Keep, for each mutant and its requirement, the case that it names, or the first; the same for the sound one."""
    wanted = {
        (name, mutant.requirement): mutant.case
        for mutant in MUTANTS
        for name in (mutant.name, sound_for(mutant.requirement))
    }
    kept: dict[tuple[str, str], Function] = {}
    for item in items:
        requirement = requirement_id(item.path, item.name)
        name = str(item.callspec.params["implementation"])
        case = item.callspec.id.removeprefix(name).removeprefix("-")
        if wanted.get((name, requirement)) in {"", case}:
            kept.setdefault((name, requirement), item)
    items[:] = kept.values()


def sound_for(requirement: str) -> str:
    """Name what the mutants of a requirement are made from."""
    return SOUND.get(requirement.partition("/")[0], "mutants.naive:Naive")
