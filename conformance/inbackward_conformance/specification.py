"""The requirements, parsed from the source of `requirements/` without importing it, or torch."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from inbackward_conformance.extras import missing
from inbackward_conformance.outcome import Level, Refusal
from inbackward_conformance.versions import is_installed

if TYPE_CHECKING:
    from collections.abc import Iterator

SPEC_VERSION = "1.0"
REQUIREMENTS = Path(__file__).parent / "requirements"
DISTRIBUTED = frozenset(
    {
        "ddp",
        "experts",
        "fsdp",
        "hook_then_optimizer",
        "mesh",
        "offload",
        "pipeline",
        "properties_on_ranks",
        "replicate",
        "resharding",
        "tensor_parallel",
    }
)
"""The chapters that need ranks."""


@dataclass(frozen=True)
class Requirement:
    """One requirement.

    Attributes:
        id: `chapter/name`.
        level: MUST or SHOULD.
        text: the normative text.
        may_refuse: the latest moment at which a refusal passes; None if a refusal does not pass.
        needs: the optional call of the adapter that it tests; empty if none.
        accelerator: whether it tests a feature that torch has on an accelerator only.
        extra: the extra of this distribution whose libraries it needs; empty if none.
        torch: the versions of torch that have what it tests, such as `>=2.12`; empty if all do.
    """

    id: str
    level: Level
    text: str
    may_refuse: Refusal | None = None
    needs: str = ""
    accelerator: bool = False
    extra: str = ""
    torch: str = ""

    @property
    def chapter(self) -> str:
        """The chapter that it belongs to."""
        return self.id.partition("/")[0]

    @property
    def is_distributed(self) -> bool:
        """Whether it needs ranks."""
        return self.chapter in DISTRIBUTED

    def applies_to(self, device: str) -> bool:
        """Return whether it can be tested on `device`, with the libraries that are installed.

        If torch lacks the feature, or lacks it on the device, or the extra is not installed, it does not count for the
        verdict.
        """
        return self.is_on(device) and is_installed(f"torch{self.torch}") and not missing(self.extra)

    def is_on(self, device: str) -> bool:
        """Return whether torch has the tested feature on `device`."""
        return not self.accelerator or device.partition(":")[0] != "cpu"


@cache
def specification() -> dict[str, Requirement]:
    """Return all requirements by id, in the order of the specification."""
    paths = sorted(REQUIREMENTS.glob("test_*.py"))
    return {requirement.id: requirement for path in paths for requirement in _requirements_in(path)}


def chapter_text(chapter: str) -> str:
    """Return the introduction of a chapter."""
    tree = ast.parse((REQUIREMENTS / f"test_{chapter}.py").read_text(encoding="utf-8"))
    return ast.get_docstring(tree) or ""


def requirement_id(module: str | Path, function: str) -> str:
    """Return `chapter/name` for `test_<name>`, with or without `[case]`, in the module `test_<chapter>`."""
    chapter = Path(module).name.rpartition("test_")[2].removesuffix(".py")
    return f"{chapter}/{function.partition('[')[0].removeprefix('test_')}"


def _requirements_in(path: Path) -> Iterator[Requirement]:
    chapter = path.stem.removeprefix("test_")
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            marks = dict(_marks(node))
            may_refuse = marks.get("may_refuse")
            yield Requirement(
                id=f"{chapter}/{node.name.removeprefix('test_')}",
                level=Level.SHOULD if "should" in marks else Level.MUST,
                text=ast.get_docstring(node) or "",
                may_refuse=None if may_refuse is None else Refusal(may_refuse or Refusal.BEFORE_ANY_CHANGE),
                needs=marks.get("needs", ""),
                accelerator="accelerator" in marks,
                extra=marks.get("with_extra", ""),
                torch=marks.get("torch", ""),
            )


def _marks(node: ast.FunctionDef) -> Iterator[tuple[str, str]]:
    """Yield the name and first argument of each `@pytest.mark.name(argument)`."""
    for decorator in node.decorator_list:
        call = decorator if isinstance(decorator, ast.Call) else None
        mark = call.func if call else decorator
        if isinstance(mark, ast.Attribute):
            argument = call.args[0].value if call and call.args and isinstance(call.args[0], ast.Constant) else ""
            yield mark.attr, str(argument)
