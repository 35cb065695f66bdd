"""What happens to a model while it is in training: casts, new data, freezing, copies and surgery."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

from inbackward_conformance.printable import Printable

if TYPE_CHECKING:
    from torch import nn

    from inbackward_conformance.repro.script import Script
    from inbackward_conformance.run import Run


@dataclass(frozen=True, repr=False)
class Cast(Printable):
    """Cast the model, and the batches from here on: `model.to(dtype)`."""

    dtype: str

    def happen(self, run: Run) -> None:
        """Keep the Parameter objects, with other data."""
        import torch

        run.dtype = getattr(torch, self.dtype)
        run.model.to(run.dtype)

    def spell(self, script: Script) -> None:
        """Keep the Parameter objects, with other data."""
        script.add(f"model.to(torch.{self.dtype})")
        script.cast(self.dtype)


@dataclass(frozen=True, repr=False)
class SetData(Printable):
    """Give a parameter other data, half of its values in other memory.

    Attributes:
        param: its name.
        by: `data` for `param.data = …`, or `set_` for `param.set_(…)`.
    """

    param: str
    by: str = "data"

    def happen(self, run: Run) -> None:
        """Keep the Parameter object."""
        import torch

        param = run.model.get_parameter(self.param)
        halved = param.detach() * 0.5
        if self.by == "data":
            param.data = halved
        else:
            with torch.no_grad():
                param.set_(halved)  # type: ignore[call-overload]

    def spell(self, script: Script) -> None:
        """Keep the Parameter object."""
        param = script.attribute(self.param)
        if self.by == "data":
            script.add(f"{param}.data = {param}.detach() * 0.5")
        else:
            script.add("with torch.no_grad():", f"    {param}.set_({param}.detach() * 0.5)")


@dataclass(frozen=True, repr=False)
class Freeze(Printable):
    """`requires_grad_(False)` for some parameters."""

    params: tuple[str, ...]

    def happen(self, run: Run) -> None:
        """Freeze them."""
        for name in self.params:
            run.model.get_parameter(name).requires_grad_(False)

    def spell(self, script: Script) -> None:
        """Freeze them."""
        script.add(f"for param in {script.parameters(self.params)}:", "    param.requires_grad_(False)")


@dataclass(frozen=True, repr=False)
class Thaw(Printable):
    """`requires_grad_(True)` for some parameters."""

    params: tuple[str, ...]

    def happen(self, run: Run) -> None:
        """Thaw them."""
        for name in self.params:
            run.model.get_parameter(name).requires_grad_(True)

    def spell(self, script: Script) -> None:
        """Thaw them."""
        script.add(f"for param in {script.parameters(self.params)}:", "    param.requires_grad_(True)")


@dataclass(frozen=True, repr=False)
class LoadWeights(Printable):
    """Load half of the model's values into it: `model.load_state_dict(…)`.

    Attributes:
        assign: whether that makes new Parameter objects.
    """

    assign: bool = False

    def happen(self, run: Run) -> None:
        """Load from tensors of their own."""
        halved = {
            name: value * 0.5 if value.is_floating_point() else value.clone()
            for name, value in run.model.state_dict().items()
        }
        run.model.load_state_dict(halved, assign=self.assign)

    def spell(self, script: Script) -> None:
        """Load from tensors of their own."""
        halved = "{name: value.clone() if value.dtype is torch.long else value * 0.5 for name, value in %s}"
        options = ", assign=True" * self.assign
        script.add(f"model.load_state_dict({halved % 'model.state_dict().items()'}{options})")


@dataclass(frozen=True, repr=False)
class ReplaceParameter(Printable):
    """Put a new Parameter of the same values in the place of one."""

    param: str

    def happen(self, run: Run) -> None:
        """Drop the old one."""
        from torch import nn

        owner, _, attribute = self.param.rpartition(".")
        param = run.model.get_parameter(self.param)
        setattr(run.model.get_submodule(owner), attribute, nn.Parameter(param.detach().clone()))

    def spell(self, script: Script) -> None:
        """Drop the old one."""
        param = script.attribute(self.param)
        script.add(f"{param} = nn.Parameter({param}.detach().clone())")


@dataclass(frozen=True, repr=False)
class SwapParameters(Printable):
    """Let two parameters of one shape change places."""

    first: str
    second: str

    def happen(self, run: Run) -> None:
        """Keep both Parameter objects, each under the name of the other."""
        first, second = run.model.get_parameter(self.first), run.model.get_parameter(self.second)
        for name, param in ((self.first, second), (self.second, first)):
            owner, _, attribute = name.rpartition(".")
            setattr(run.model.get_submodule(owner), attribute, param)

    def spell(self, script: Script) -> None:
        """Keep both Parameter objects, each under the name of the other."""
        first, second = script.attribute(self.first), script.attribute(self.second)
        script.add(f"{first}, {second} = {second}, {first}")


@dataclass(frozen=True, repr=False)
class ReplaceByCopy(Printable):
    """Put a deepcopy in the place of a submodule, or of the whole model.

    Attributes:
        submodule: its name; empty: the whole model, whose copy the run goes on with.
    """

    submodule: str = ""

    def happen(self, run: Run) -> None:
        """Drop the original."""
        duplicate: nn.Module = copy.deepcopy(run.model.get_submodule(self.submodule))
        if self.submodule:
            owner, _, attribute = self.submodule.rpartition(".")
            setattr(run.model.get_submodule(owner), attribute, duplicate)
        else:
            run.model = duplicate

    def spell(self, script: Script) -> None:
        """Drop the original."""
        part = script.attribute(self.submodule)
        script.add(f"{part} = copy.deepcopy({part})")


@dataclass(frozen=True, repr=False)
class Detach(Printable):
    """Make an ordinary model of it again; `Attach` may follow."""

    def happen(self, run: Run) -> None:
        """Detach all."""
        run.method.detach(run.model)

    def spell(self, script: Script) -> None:
        """Detach all."""
        script.loop.detach(script)
