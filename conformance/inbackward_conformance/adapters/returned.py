"""Checks what the calls of an implementation return, so that a wrong value is told in one line."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

from inbackward_conformance.outcome import BrokenPromise, Finding, Outcome
from inbackward_conformance.raised_error import is_observation, writable

MAX_LENGTH = 100


def optimizers_in(returned: Any, call: str) -> list[Any]:
    """Return the optimizers that a call has returned, of any class that has parameter groups and a state."""
    return _listed(returned, call, is_optimizer, "optimizers, which have param_groups and state")


def schedulers_in(returned: Any, call: str) -> list[Any]:
    """Return the schedulers that a call has returned."""
    return _listed(returned, call, lambda item: callable(getattr(item, "step", None)), "schedulers, which have step()")


def is_optimizer(value: Any) -> bool:
    """Return whether `value` has what the suite reads of an optimizer."""
    groups = getattr(value, "param_groups", None)
    if isinstance(value, type) or not isinstance(groups, list | tuple) or not hasattr(value, "state"):
        return False
    return all(isinstance(group, Mapping) and "params" in group for group in groups)


def wrong_value(returned: Any, call: str, expected: str, outcome: Outcome = Outcome.FAILS) -> BrokenPromise:
    """Return the error to raise for a call that has returned something else than `expected`."""
    return _wrong(_shown(returned), call, expected, outcome)


def _wrong(what: str, call: str, expected: str, outcome: Outcome = Outcome.FAILS) -> BrokenPromise:
    return BrokenPromise(Finding(outcome, f"{call} returned {what}: expected {expected}", passed=False))


def _listed(returned: Any, call: str, is_one: Any, expected: str) -> list[Any]:
    if is_one(returned):
        raise _wrong(f"one {type(returned).__name__}", call, f"a list of {expected}")
    if isinstance(returned, Mapping | str) or not isinstance(returned, Iterable):
        raise wrong_value(returned, call, f"a list of {expected}")
    listed = list(returned)
    if not all(map(is_one, listed)):
        raise wrong_value(listed, call, f"a list of {expected}")
    return listed


def _shown(value: Any) -> str:
    """Return `value` on one short line, without the addresses that differ from run to run."""
    try:
        text = repr(value)
    except BaseException as error:
        if not is_observation(error):
            raise
        text = f"<{type(value).__name__}>"
    return textwrap.shorten(re.sub(r" at 0x[0-9a-f]+", "", writable(text)), MAX_LENGTH, placeholder=" […]")
