"""`--conformance-select`, which collects only selected cases."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from inbackward_conformance.specification import requirement_id, specification

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path

EXPECTED = (
    """expected JSON such as {"implementation": {"sharing/used_twice": ["SGD", ""]}}, where "" is the first case"""
)

Selected = dict[str, dict[str, list[str]]]


class BadSelection(ValueError):
    """Raised when a file of selected cases cannot be used; the message is one line with the remedy."""


class Selection:
    """The pytest plugin for `--conformance-select`.

    Args:
        selected: the ids of cases by implementation and requirement, as in a record; `""` is the first case.
    """

    def __init__(self, selected: Selected) -> None:
        self._selected = selected

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> Generator[None, object, object]:
        """Keep the selected parametrizations of a requirement.

        pytest has no public way to drop one before it makes the test. With a hundred implementations and one case of
        each requirement, making all tests takes longer than running the selected ones.
        """
        result = yield
        requirement = requirement_id(metafunc.definition.path, metafunc.function.__name__)
        calls: dict[tuple[str, str], Any] = {}
        for call in metafunc._calls:  # noqa: SLF001
            name = str(call.params["implementation"])
            case = call.id.removeprefix(name).removeprefix("-")
            for selected in self._selected.get(name, {}).get(requirement, []):
                if selected in {"", case}:
                    calls.setdefault((name, selected), call)
        metafunc._calls[:] = {id(call): call for call in calls.values()}.values()  # noqa: SLF001
        return result

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Deselect the test that pytest makes of a requirement without selected cases."""
        dropped = [item for item in items if not hasattr(item, "callspec")]
        items[:] = [item for item in items if hasattr(item, "callspec")]
        config.hook.pytest_deselected(items=dropped)


def read_selection(path: Path, implementations: Sequence[str]) -> Selected:
    """Read a file of selected cases, of some of the implementations under test.

    Raises:
        BadSelection: if it cannot be read, is no such JSON object, or names what does not exist.
    """
    try:
        selected: Selected = json.loads(path.read_text(encoding="utf-8"))
        names = {(name, requirement) for name, requirements in selected.items() for requirement in requirements}
        lists = [cases for requirements in selected.values() for cases in requirements.values()]
    except OSError as error:
        raise BadSelection(f"--conformance-select {path}: cannot be read ({error.strerror}); check the path") from error
    except (ValueError, AttributeError, TypeError) as error:
        raise BadSelection(f"--conformance-select {path}: {EXPECTED}") from error
    if not all(isinstance(cases, list) for cases in lists):
        raise BadSelection(f"--conformance-select {path}: {EXPECTED}")
    for name, requirement in sorted(names):
        if name not in implementations:
            raise BadSelection(f"--conformance-select {path}: {name} is not tested; add --implementation {name}")
        if requirement not in specification():
            raise BadSelection(
                f"--conformance-select {path}: no requirement {requirement}; "
                f"`python -m inbackward_conformance list` lists them"
            )
    return selected
