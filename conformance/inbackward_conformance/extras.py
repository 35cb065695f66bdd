"""The libraries that some requirements need, by the extra of this distribution that installs them."""

from __future__ import annotations

from inbackward_conformance.versions import is_installed

EXTRAS = {"architectures": ("bitsandbytes>=0.50", "diffusers>=0.42", "peft>=0.21", "transformers>=5.24")}
"""Each library with the oldest version that was tested, as in `pyproject.toml`."""


def missing(extra: str) -> tuple[str, ...]:
    """Return the libraries of an extra that are not installed, or too old."""
    return tuple(library for library in EXTRAS.get(extra, ()) if not is_installed(library))


def why_not_run(extra: str) -> str:
    """Return the reason why a requirement that needs the libraries of an extra is not run."""
    return f"it needs {', '.join(missing(extra))}: pip install 'inbackward[{extra}]'"
