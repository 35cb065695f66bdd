"""The script of a plan that fails: the model, the standard loop, the implementation's loop, and what differs."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from typing import TYPE_CHECKING

from inbackward_conformance.catalogue.build import model_class
from inbackward_conformance.outcome import Compared, Outcome, Refusal
from inbackward_conformance.plan.events import (
    Attach,
    AttachMore,
    Backward,
    Detach,
    HookThenOptimizer,
    LoadSharded,
    SaveSharded,
)
from inbackward_conformance.plan.literals import expression
from inbackward_conformance.repro import sources
from inbackward_conformance.repro.call_templates import STATE_OF_ARGUMENTS, CannotWrite
from inbackward_conformance.repro.comparison import Comparison, exit_on_refusal
from inbackward_conformance.repro.file import script
from inbackward_conformance.repro.inline import Inlined
from inbackward_conformance.repro.loops.in_backward import InBackwardSource
from inbackward_conformance.repro.loops.standard_loop import StandardLoopSource
from inbackward_conformance.repro.script import Script
from inbackward_conformance.repro.statements import statements

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import nn

    from inbackward_conformance.plan import Plan
    from inbackward_conformance.plan.events import Event
    from inbackward_conformance.repro.call_templates import CallTemplates
    from inbackward_conformance.repro.failure import Failure

    Events = tuple[Sequence[Event], Sequence[Event], Sequence[Event]]
    """What happens before attachment, attachment, and what follows."""

SECONDS_TO_HANG = 20

ON_RANKS = """
def {name}(rank, folder):
    dist.init_process_group("gloo", f"file://{{folder}}/{name}", timedelta(seconds=20), {world_size}, rank)
    {set_device}
{body}
"""

START = """
if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
{spawned}
"""


def plan_script(failure: Failure, templates: CallTemplates) -> str:
    """Return the script of a failure whose plan is known."""
    assert failure.plan
    return PlanScript(failure, failure.plan, templates).text()


class PlanScript:
    """The parts of a script: functions that train a model by each of the loops, and what compares them."""

    def __init__(self, failure: Failure, plan: Plan, templates: CallTemplates) -> None:
        self._failure = failure
        self._plan = plan
        self._templates = templates
        self._inlined = Inlined()
        self._inlined.add(model_class(plan))
        checkpoints = any(isinstance(event, SaveSharded | LoadSharded) for event in plan.events)
        self._arguments = ("rank, folder" if checkpoints else "rank") if plan.ranks else ""
        made, *self._changes = self._building()
        self._made = made
        self._built = "build()" if self._changes else made
        self._comparison = Comparison(
            failure.difference.compared,
            self._arguments,
            plan.ranks.tolerance if plan.ranks else 0.0,
            may_refuse=self._may_refuse(at_attachment=False),
            refusal=failure.difference.refusal,
            state=templates.write("state_of", **STATE_OF_ARGUMENTS),
        )

    def text(self) -> str:
        """Return the file."""
        loaded = next((event for event in self.events[-1] if isinstance(event, LoadSharded)), None)
        functions = [
            *(self.saved_before(loaded) if loaded else ()),
            *self.trainings("standard_loop", "in_backward", self.events, self._comparison.returned),
        ]
        parts = [*self.definitions, *functions, *self._tail(loaded)]
        return script(self._failure, self._templates, self.imports, parts)

    @property
    def events(self) -> Events:
        """The events of the plan, up to the last one that the failure needs."""
        return _up_to(self._plan, self._failure.difference.event)

    @property
    def imports(self) -> list[str]:
        """The import statements that the definitions need."""
        return self._inlined.imports

    @property
    def definitions(self) -> list[str]:
        """The definitions that stand above the functions that were asked for."""
        build = self._function("build", "", [f"model = {self._made}", *self._changes, "return model"])
        return [*self._inlined.definitions, *[build] * bool(self._changes)]

    def trainings(
        self, standard: str, in_backward: str, events: Events, returned: Callable[[Script], str]
    ) -> Iterator[str]:
        """Yield the functions that train a model by each of the loops, of these names; they return `returned`."""
        alone = _has_one_optimizer(self._plan)
        for name, loop in (
            (standard, StandardLoopSource(self._templates, alone=alone)),
            (in_backward, InBackwardSource(self._templates)),
        ):
            written = Script(self._plan, loop, self._built, self._failure.device)
            yield self._training(name, written, events, returned)
            for needed in sorted(written.needs, key=lambda needed: str(needed.__name__)):
                self._inlined.add(needed)

    def saved_before(self, loaded: LoadSharded) -> Iterator[str]:
        """Yield what saves the checkpoint that is loaded, by other ranks."""
        trained: list[Event] = [*(Backward(),) * loaded.steps, SaveSharded(loaded.folder)]
        events: Events = (self._plan.before, (Attach(),), trained)
        names = ("save_by_standard_loop", "save_in_backward")
        yield from self.trainings(*names, events, lambda _: "")
        yield self._on_ranks("save", loaded.ranks, "\n".join(f"{name}(rank, folder)" for name in names))

    def _building(self) -> list[str]:
        """Return an expression for the model, and what is changed in it then, as in `build_model`."""
        plan = self._plan
        return [
            f"{plan.model}({', '.join(map(expression, plan.arguments))})",
            *[f"model.to(torch.{plan.dtype})"] * bool(plan.dtype),
            *[f"model.to({self._failure.device!r})"] * (self._failure.device != "cpu"),
            *(f"{sources.attribute(name)} = {sources.attribute(source)}" for name, source in plan.shared),
            *(f"{sources.attribute(name)}.requires_grad_(False)" for name in plan.frozen),
        ]

    def _training(self, name: str, written: Script, events: Events, returned: Callable[[Script], str]) -> str:
        """Return the function that trains a model by one of the loops, and returns what is compared."""
        before, attach, after = (statements(part, written) for part in events)
        if name == "in_backward" and self._may_refuse(at_attachment=True):
            attach = exit_on_refusal(attach)
        trained = "\n".join(part for part in (before, attach, after) if part)
        result = returned(written)
        batches = []
        if trained.count("next(batches)") == 1 and "for _ in range" not in trained and not self._arguments:
            trained = trained.replace("next(batches)", self._batch(str(self._first_seed)))
        elif "next(batches)" in trained:
            batches = [self._batches()]
        lines = [
            f"torch.manual_seed({self._plan.seed})",
            f"model = {written.built}",
            *batches,
            trained,
            *[f"return {result}"] * bool(result),
        ]
        return self._function(name, self._arguments, lines)

    @property
    def _first_seed(self) -> int:
        return 1000 * self._plan.seed + 1

    def _batches(self) -> str:
        """Return the line that draws batches, as `TrainingRun.next_batch` does."""
        first = ("1000000 * rank + " if self._arguments else "") + str(self._first_seed)
        return f"batches = ({self._batch('seed')} for seed in count({first}))"

    def _batch(self, seed: str) -> str:
        device = "" if self._failure.device == "cpu" else f".to({self._failure.device!r})"
        return _batch_of(model_class(self._plan), f"torch.Generator().manual_seed({seed})") + device

    def _tail(self, loaded: LoadSharded | None) -> Iterator[str]:
        """Yield what calls both loops, and asserts that they are equal; several ranks do so side by side."""
        compared = self._comparison.source()
        if self._failure.outcome == Outcome.HANGS:
            compared = f"faulthandler.dump_traceback_later({SECONDS_TO_HANG}, exit=True)\n{compared}"
        if not self._plan.ranks:
            yield compared
            return
        size = self._plan.ranks.world_size
        yield self._on_ranks("main", size, compared)
        spawned = [*([("save", loaded.ranks)] if loaded else []), ("main", size)]
        lines = [f"torch.multiprocessing.spawn({name}, (folder,), nprocs={size})" for name, size in spawned]
        yield START.format(spawned=textwrap.indent("\n".join(lines), " " * 8)).strip()

    def _on_ranks(self, name: str, world_size: int, body: str) -> str:
        """Return a function that a rank begins with."""
        set_device = "torch.cuda.set_device(rank % torch.cuda.device_count())" * (self._failure.device == "cuda")
        body = textwrap.indent(body, "    ")
        return ON_RANKS.format(name=name, world_size=world_size, set_device=set_device, body=body).strip()

    def _may_refuse(self, *, at_attachment: bool) -> bool:
        """Whether a refusal, in attachment or anywhere, would pass, and is not what has failed here."""
        latest = self._failure.requirement.may_refuse
        if latest is None:
            return False
        shown = self._failure.difference
        if shown.compared is Compared.ERROR and shown.event == len(self._plan.before):  # attachment itself
            return False
        return at_attachment == (latest is Refusal.AT_ATTACHMENT)

    @staticmethod
    def _function(name: str, argument: str, lines: list[str]) -> str:
        return f"def {name}({argument}):\n" + textwrap.indent("\n".join(lines), "    ")


def _batch_of(model: type[nn.Module], generator: str) -> str:
    """Return the expression for a batch, which is the one thing that `batch` of a model returns."""
    function = ast.parse(textwrap.dedent(inspect.getsource(inspect.getattr_static(model, "batch").__func__))).body[0]
    match function:
        case ast.FunctionDef(body=[*_, ast.Return(ast.Tuple([batch]))]):
            return re.sub(r"\bgenerator\b(?!=)", generator, ast.unparse(batch))
    raise CannotWrite(f"{model.__name__}.batch does more than to return a tuple of one")


def _up_to(plan: Plan, last: int | None) -> Events:
    """Return the events of a plan, up to the last event that counts."""
    if last is None:
        return plan.before, (Attach(),), plan.events
    attaching = len(plan.before)
    return plan.before[: last + 1], (Attach(),) * (last >= attaching), plan.events[: max(last - attaching, 0)]


def _has_one_optimizer(plan: Plan) -> bool:
    """Whether the standard loop has one optimizer, from attachment to the end."""
    happening = (*plan.before, *plan.events)
    others = any(isinstance(event, AttachMore | Detach) for event in happening)
    behind_hooks = [event.assignment for event in happening if isinstance(event, HookThenOptimizer)]
    assigned = [*plan.assignments, *behind_hooks]
    return len(assigned) == 1 and assigned[0].hook and not others
