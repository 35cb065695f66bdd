"""Brings the lines of earlier records up to date: those before `difference` told it in the words of `detail` alone."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import Any

from inbackward_conformance.outcome import Compared, Difference

WORDS = (
    (Compared.STANDARD_ERROR, r"goes through, where the standard loop raises"),
    (Compared.RANKS, r"differs between rank"),
    (Compared.GRADIENTS, r"\.grad (is|differs)"),
    (Compared.STATES, r"optimizer state of"),
    (Compared.ERROR, r"\braises\b"),
    (Compared.BUFFERS, r"\bbuffer"),
    (Compared.PARAMETERS, r""),
)


def up_to_date(line: dict[str, Any]) -> dict[str, Any]:
    """Return the line of a case with its `difference`."""
    if "difference" in line or not line.get("plan"):
        return line
    detail = str(line["detail"])
    compared = next(compared for compared, words in WORDS if re.search(words, detail))
    event = re.search(r"\bevent (\d+), ", detail)
    refusal = re.search(r"raises (?:RuntimeError|TypeError|ValueError): ([^;]+)", detail)
    difference = Difference(compared, int(event[1]) if event else None, refusal[1] if refusal else "")
    return line | {"difference": asdict(difference)}
