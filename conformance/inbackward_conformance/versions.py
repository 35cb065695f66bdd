"""Asks which versions of libraries are installed."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from packaging.requirements import Requirement
from packaging.version import Version

if TYPE_CHECKING:
    from packaging.specifiers import SpecifierSet


@cache
def is_installed(requirement: str) -> bool:
    """Return whether a library is installed in one of these versions, such as `torch>=2.12`.

    A nightly build is as the release that it leads to, and builds of one version are alike.
    """
    wanted = Requirement(requirement)
    try:
        return contains(wanted.specifier, version(wanted.name))
    except PackageNotFoundError:
        return False


def contains(specifiers: SpecifierSet, found: str) -> bool:
    """Return whether a version is one of these, as `is_installed` compares them."""
    return specifiers.contains(Version(found).base_version)
