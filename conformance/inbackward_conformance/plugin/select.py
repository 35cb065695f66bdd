"""`--conformance-select`: runs chosen cases alone, without making the others."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from inbackward_conformance.specification import requirement_id

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

Selected = dict[str, dict[str, list[str]]]


class BadSelection(ValueError):
    """A file that chooses cases cannot be used; the message is one line with the remedy."""


class Selection:
    """The plugin that is registered where cases are chosen.

    Args:
        selected: by implementation and requirement the ids of cases, as in a record; an empty one is the first case.
    """

    def __init__(self, selected: Selected) -> None:
        self._selected = selected

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> Generator[None, object, object]:
        """Keep the chosen parametrizations of a requirement.

        pytest has no public way to leave one out before its test is made, and of a hundred implementations that run one
        case of each requirement, making all tests takes longer than running the chosen ones.
        """
        result = yield
        requirement = requirement_id(metafunc.definition.path, metafunc.function.__name__)
        chosen: dict[tuple[str, str], Any] = {}
        for call in metafunc._calls:  # noqa: SLF001
            name = str(call.params["implementation"])
            case = call.id.removeprefix(name).removeprefix("-")
            for wanted in self._selected.get(name, {}).get(requirement, []):
                if wanted in {"", case}:
                    chosen.setdefault((name, wanted), call)
        metafunc._calls[:] = {id(call): call for call in chosen.values()}.values()  # noqa: SLF001
        return result

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Drop the test that pytest makes of a requirement without a chosen case, and say that cases were left out."""
        dropped = [item for item in items if not hasattr(item, "callspec")]
        items[:] = [item for item in items if hasattr(item, "callspec")]
        config.hook.pytest_deselected(items=dropped)


def read_selection(path: Path) -> Selected:
    """Read a file that chooses cases.

    Raises:
        BadSelection: it cannot be read, or is not a JSON object of that form.
    """
    try:
        selected = json.loads(path.read_text(encoding="utf-8"))
        return {
            str(name): {str(requirement): list(map(str, cases)) for requirement, cases in chosen.items()}
            for name, chosen in selected.items()
        }
    except OSError as error:
        raise BadSelection(f"--conformance-select {path}: cannot be read ({error.strerror}); check the path") from error
    except (ValueError, AttributeError, TypeError) as error:
        raise BadSelection(
            f"--conformance-select {path}: expected JSON such as "
            f'{{"implementation": {{"sharing/used_twice": ["SGD", ""]}}}}, where "" is the first case'
        ) from error
