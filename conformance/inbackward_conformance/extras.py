"""The libraries that some requirements need, by the extra of this distribution that installs them."""

from __future__ import annotations

import re
from functools import cache
from importlib.metadata import PackageNotFoundError, version

EXTRAS = {"architectures": ("bitsandbytes>=0.50", "diffusers>=0.42", "peft>=0.21", "transformers>=5.24")}
"""Each library with the oldest version that was tested, as in `pyproject.toml`."""


@cache
def missing(extra: str) -> tuple[str, ...]:
    """Return the libraries of an extra that are not installed, or too old."""
    return tuple(library for library in EXTRAS.get(extra, ()) if not _is_installed(library))


def why_not_run(extra: str) -> str:
    """Return the reason why a requirement that needs the libraries of an extra is not run."""
    return f"it needs {', '.join(missing(extra))}: pip install 'inbackward[{extra}]'"


def _is_installed(library: str) -> bool:
    name, _, oldest = library.partition(">=")
    try:
        return _numbers(version(name)) >= _numbers(oldest)
    except PackageNotFoundError:
        return False


def _numbers(version_: str) -> tuple[int, ...]:
    """Return the first two numbers of a version."""
    return tuple(map(int, re.findall(r"\d+", version_)[:2]))
