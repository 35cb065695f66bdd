"""The script of a failed plan: the model, the standard loop, the implementation's loop, and a comparison."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from typing import TYPE_CHECKING

from inbackward_conformance import accelerator
from inbackward_conformance.adapters.declarations import OwnOptimizer
from inbackward_conformance.adapters.implementation import Implementation
from inbackward_conformance.binding.facts import facts_of
from inbackward_conformance.catalogue.build import model_class, ties_weights
from inbackward_conformance.outcome import Compared, Outcome, Refusal
from inbackward_conformance.plan.events import (
    Accumulate,
    Attach,
    AttachMore,
    Detach,
    HookThenOptimizer,
    Load,
    LoadSharded,
    RunPipeline,
    Save,
    SaveSharded,
)
from inbackward_conformance.plan.literals import expression
from inbackward_conformance.repro import sources
from inbackward_conformance.repro.call_templates import STATE_OF_ARGUMENTS
from inbackward_conformance.repro.comparison import Comparison, exit_on_refusal, go_on_after_refusal
from inbackward_conformance.repro.failure import CannotWrite
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
    """The events before attachment, attachment, and the events after it."""

SECONDS_TO_HANG = 20

FREED_LAST = r"\n(for optimizer in .*:\n    )?optimizer\.zero_grad\(\)$"
"""What a training function need not end with if it returns no gradients."""

ON_RANKS = """
def {name}(rank, folder):
    dist.init_process_group("gloo", f"file://{{folder}}/{name}", world_size={world_size}, rank=rank)
    {set_device}
{body}
"""

RANKS = 'torch.multiprocessing.start_processes({name}, (folder,), {world_size}, start_method="forkserver")'
"""A process of `spawn` finalizes its interpreter, and now and then a thread of Gloo ends it by SIGABRT there."""

START = """
if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
{spawned}
"""


def plan_script(failure: Failure, templates: CallTemplates) -> str:
    """Return the script of a failure of a plan."""
    assert failure.plan
    return PlanScript(failure, failure.plan, templates).text()


class PlanScript:
    """The parts of a script: a training function for each loop, and the statements that compare them."""

    def __init__(self, failure: Failure, plan: Plan, templates: CallTemplates, inlined: Inlined | None = None) -> None:
        self._failure = failure
        self._plan = plan
        self._templates = templates
        self._inlined = inlined or Inlined()
        self._inlined.add(model_class(plan))
        checkpoints = any(isinstance(event, SaveSharded | LoadSharded) for event in plan.events)
        self._arguments = ("rank, folder" if checkpoints else "rank") if plan.ranks else ""
        self._model, *self._changes = self._building()
        self._built = "build()" if self._changes else self._model
        self._comparison = Comparison(
            failure.difference.compared,
            self._arguments,
            max(plan.tolerance, templates.declared.rounding.size),
            may_refuse=self._may_refuse(at_attachment=False),
            refusal=failure.difference.refusal,
            in_stage=any(isinstance(event, RunPipeline) for event in plan.events),
            state=templates.write("state_of", **STATE_OF_ARGUMENTS),
            own_states=_has_own_states(plan, templates),
        )
        for function in self._comparison.needs:
            self._inlined.add(function)

    def text(self) -> str:
        """Return the text of the script."""
        loaded = next((event for event in self.events[-1] if isinstance(event, LoadSharded)), None)
        functions = [
            *(self.saved_before(loaded) if loaded else ()),
            *self.trainings("standard_loop", "in_backward", self.events, self._comparison.returned),
        ]
        parts = [*self.definitions, *functions, *self._tail(loaded)]
        return script(self._failure, self._templates, self.imports, parts)

    @property
    def events(self) -> Events:
        """The events of the plan, up to the one that failed, and a plain backward after a refused attachment."""
        before, attach, after = _events_up_to(self._plan, self._failure.difference.event)
        return before, attach, (*after, *[Accumulate()] * self._after_refusal)

    @property
    def imports(self) -> list[str]:
        """The import statements that the definitions need."""
        return self._inlined.imports

    @property
    def definitions(self) -> list[str]:
        """The definitions that the training functions need."""
        build = self._function("build", "", [*self._seeded(self._model), *self._changes, "return model"])
        return [*self._inlined.definitions, *[build] * bool(self._changes)]

    def trainings(
        self, standard: str, in_backward: str, events: Events, returned: Callable[[Script], str]
    ) -> Iterator[str]:
        """Yield the training functions of both loops, with these names, which return `returned`."""
        alone = _has_one_optimizer(self._plan)
        for name, loop, part in (
            (standard, StandardLoopSource(self._templates, alone=alone), self._expected(events)),
            (in_backward, InBackwardSource(self._templates), events),
        ):
            written = Script(self._plan, loop, self._built, self._failure.device)
            yield self._training(name, written, part, returned)
            for line in sorted(written.imports):
                self._inlined.add_import(line)
            for definition in sorted(written.needs, key=lambda definition: str(definition.__name__)):
                self._inlined.add(definition)

    def _expected(self, events: Events) -> Events:
        """Return the events of the standard loop: without a refused attachment, and a load where it goes on as ever."""
        before, attach, after = events
        if self._after_refusal:
            return before, (), after
        if not self._failure.difference.never_stopped:
            return events
        return before, attach, [event for event in after if not isinstance(event, Save | Load)]

    def saved_before(self, loaded: LoadSharded) -> Iterator[str]:
        """Yield the functions that save the checkpoint to load, on its own world size."""
        plan = self._plan.saving(loaded)
        saving = PlanScript(self._failure, plan, self._templates, self._inlined)
        names = ("save_by_standard_loop", "save_in_backward")
        yield from saving.trainings(*names, _events_up_to(plan, None), lambda _: "")
        yield self._on_ranks("save", loaded.ranks.world_size, "\n".join(f"{name}(rank, folder)" for name in names))

    def _building(self) -> list[str]:
        """Return an expression for the model, then the statements that change it, as in `build_model`."""
        plan = self._plan
        return [
            f"{plan.model}({', '.join(map(expression, plan.arguments))})",
            *[f"model.to(torch.{plan.dtype})"] * bool(plan.dtype),
            *[f"model.to({self._failure.device!r})"] * (self._failure.device != "cpu"),
            *["model.tie_weights()"] * ties_weights(plan),
            *(f"{sources.attribute(name)} = {sources.attribute(source)}" for name, source in plan.shared),
            *(f"{sources.attribute(name)}.requires_grad_(False)" for name in plan.frozen),
        ]

    def _training(self, name: str, written: Script, events: Events, returned: Callable[[Script], str]) -> str:
        """Return the training function of one loop."""
        before, attach, after = (statements(part, written) for part in events)
        if name == "in_backward" and self._after_refusal:
            attach = go_on_after_refusal(attach)
        elif name == "in_backward" and self._may_refuse(at_attachment=True):
            attach = exit_on_refusal(attach)
        trained = "\n".join(part for part in (before, attach, after) if part)
        result = returned(written)
        if ".grad" not in result:
            trained = re.sub(FREED_LAST, "", trained)
        batches = []
        if trained.count("next(batches)") == 1 and "for _ in range" not in trained and not self._arguments:
            trained = trained.replace("next(batches)", self._batch(str(self._first_seed)))
        elif "next(batches)" in trained:
            batches = [self._batches()]
        lines = [
            *(["model = build()"] if self._changes else self._seeded(self._model)),
            *batches,
            trained,
            *[f"return {result}"] * bool(result),
        ]
        return self._function(name, self._arguments, lines)

    def _seeded(self, model: str) -> list[str]:
        return [f"torch.manual_seed({self._plan.seed})", f"model = {model}"]

    @property
    def _first_seed(self) -> int:
        return 1000 * self._plan.seed + 1

    def _batches(self) -> str:
        """Return the statement that defines `batches`, as in `TrainingRun.next_batch`."""
        first = f"{self._batches_of_rank}{self._first_seed}"
        return f"batches = ({self._batch('seed')} for seed in count({first}))"

    @property
    def _batches_of_rank(self) -> str:
        """What a million times `Ranks.batches_of(rank)` adds to the first seed; empty if it is 0 on every rank."""
        sizes = self._plan.ranks.mesh if self._plan.ranks else {"data": 1}
        batches = sizes.get("replicate", 1) * sizes["data"]
        if batches == 1:
            return ""
        of_tensor = f"(rank // {sizes['tensor']})" if sizes.get("tensor", 1) > 1 else "rank"
        return f"1000000 * {f'({of_tensor} % {batches})' if sizes.get('pipeline', 1) > 1 else of_tensor} + "

    def _batch(self, seed: str) -> str:
        device = "" if self._failure.device == "cpu" else f".to({self._failure.device!r})"
        return _batch_of(model_class(self._plan), f"torch.Generator().manual_seed({seed})") + device

    def _tail(self, loaded: LoadSharded | None) -> Iterator[str]:
        """Yield the statements that call and compare both loops, on ranks within a spawned function."""
        compared = self._comparison.source()
        if self._failure.outcome == Outcome.HANGS:
            compared = f"faulthandler.dump_traceback_later({SECONDS_TO_HANG}, exit=True)\n{compared}"
        if not self._plan.ranks:
            yield compared
            return
        size = self._plan.ranks.world_size
        yield self._on_ranks("main", size, compared)
        spawned = [*([("save", loaded.ranks.world_size)] if loaded else []), ("main", size)]
        lines = [RANKS.format(name=name, world_size=size) for name, size in spawned]
        yield START.format(spawned=textwrap.indent("\n".join(lines), " " * 8)).strip()

    def _on_ranks(self, name: str, world_size: int, body: str) -> str:
        """Return the function to spawn on each rank."""
        shared = accelerator.is_accelerator(self._failure.device) and ":" not in self._failure.device
        set_device = "torch.accelerator.set_device_index(rank % torch.accelerator.device_count())" * shared
        body = textwrap.indent(body, "    ")
        return ON_RANKS.format(name=name, world_size=world_size, set_device=set_device, body=body).strip()

    @property
    def _after_refusal(self) -> bool:
        return self._failure.difference.compared is Compared.AFTER_REFUSAL

    def _may_refuse(self, *, at_attachment: bool) -> bool:
        """Return whether a refusal, at attachment or anywhere, would pass, and is not the failure itself."""
        latest = self._failure.requirement.may_refuse
        if latest is None or self._after_refusal:
            return False
        difference = self._failure.difference
        if difference.compared is Compared.ERROR and difference.event == len(self._plan.before):  # at attachment
            return False
        return at_attachment == (latest is Refusal.AT_ATTACHMENT)

    @staticmethod
    def _function(name: str, argument: str, lines: list[str]) -> str:
        return f"def {name}({argument}):\n" + textwrap.indent("\n".join(lines), "    ")


def _batch_of(model: type[nn.Module], generator: str) -> str:
    """Return the expression for a batch, from the source of `batch` of a model."""
    function = ast.parse(textwrap.dedent(inspect.getsource(inspect.getattr_static(model, "batch").__func__))).body[0]
    match function:
        case ast.FunctionDef(body=[*_, ast.Return(ast.Tuple([batch]))]):
            return re.sub(r"\bgenerator\b(?!=)", generator, ast.unparse(batch))
    raise CannotWrite(f"{model.__name__}.batch does more than to return a tuple of one")


def _events_up_to(plan: Plan, last: int | None) -> Events:
    """Return the events of a plan, up to the one with number `last`."""
    if last is None:
        return plan.before, (Attach(),), plan.events
    attaching = len(plan.before)
    return plan.before[: last + 1], (Attach(),) * (last >= attaching), plan.events[: max(last - attaching, 0)]


def _has_own_states(plan: Plan, templates: CallTemplates) -> bool:
    """Return whether optimizer states may hold other things than those of the classes in `torch.optim`."""
    own_calls = any(map(templates.offers, ("standard_optimizer", "state_of")))
    if not own_calls and not templates.declared.own_optimizers:
        return False
    implementation = Implementation(templates.target)
    entries = [OwnOptimizer(assignment.optimizer, assignment.options) for assignment in plan.assignments]
    try:
        return not all(facts_of(entry, entry.options, implementation).has_plain_state for entry in entries)
    except (RuntimeError, LookupError):  # nothing is known of a class that cannot train two parameters
        return True


def _has_one_optimizer(plan: Plan) -> bool:
    """Return whether the standard loop has a single optimizer from attachment to the end."""
    events = (*plan.before, *plan.events)
    changes = any(isinstance(event, AttachMore | Detach) for event in events)
    after_hooks = [event.assignment for event in events if isinstance(event, HookThenOptimizer)]
    assignments = [*plan.assignments, *after_hooks]
    return len(assignments) == 1 and assignments[0].hook and not changes
