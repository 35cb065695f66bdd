"""Which implementation keeps which promise, from records: requirements down, implementations across."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from inbackward_conformance.specification import specification

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


class BadRecord(ValueError):
    """A file is not the record of a complete run; the message is one line with the remedy."""


@dataclass(frozen=True)
class Matrix:
    """Outcomes by requirement and implementation, and the verdict of each implementation."""

    outcomes: dict[str, dict[str, str]]
    verdicts: dict[str, str]

    def markdown(self, *, may_refuse_only: bool = False) -> str:
        """Return a Markdown table; `may_refuse_only` leaves out the requirements of which a refusal never passes."""
        names = list(self.verdicts)
        known = specification()
        rows = [
            [name, *(found.get(implementation, "") for implementation in names)]
            for name, found in self.outcomes.items()
            if not may_refuse_only or (name in known and known[name].may_refuse)
        ]
        if not may_refuse_only:
            rows.append(["**verdict**", *(self.verdicts[name] for name in names)])
        table = [["requirement", *names], ["---"] * (len(names) + 1), *rows]
        return "\n".join(f"| {' | '.join(cells)} |" for cells in table)


def read_matrix(paths: Iterable[Path]) -> Matrix:
    """Read records; an implementation that several of them hold is taken from the last.

    Raises:
        BadRecord: a file cannot be read, is not a record, or is of a run that did not reach its end.
    """
    outcomes: dict[str, dict[str, str]] = {}
    verdicts: dict[str, str] = {}
    for path in paths:
        lines = _read(path)
        for earlier in outcomes.values():
            for name in lines[-1]["implementations"]:
                earlier.pop(name, None)
        for line in lines:
            if line["kind"] == "requirement":
                outcomes.setdefault(line["requirement"], {})[line["implementation"]] = line["outcome"]
        verdicts |= {name: found["verdict"] for name, found in lines[-1]["implementations"].items()}
    return Matrix({name: found for name, found in outcomes.items() if found}, verdicts)


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        kinds = [line["kind"] for line in lines]
    except OSError as error:
        raise BadRecord(f"record {path}: cannot be read ({error.strerror}); check the path") from error
    except (ValueError, KeyError, TypeError) as error:
        raise BadRecord(
            f"record {path}: not JSON Lines of a conformance run; give what --conformance-report wrote"
        ) from error
    if not kinds or kinds[0] != "header" or kinds[-1] != "footer":
        raise BadRecord(f"record {path}: has no footer, its run did not reach its end; run it again")
    return lines
