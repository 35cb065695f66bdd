"""The two readers of a plan, `training.execute` and `repro.write`: a script leaves what the run leaves, to the bit.

The plans are those of the first case of each requirement, and one for each kind of event that none of them has.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from itertools import chain
from pathlib import Path
from pkgutil import iter_modules
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given, seed, settings

from inbackward_conformance.adapters.find import find_implementation
from inbackward_conformance.adapters.implementation import Implementation
from inbackward_conformance.checking.drawn import temporary_home
from inbackward_conformance.checking.profiles import QUICK, drawing
from inbackward_conformance.checking.strategies import plans as plans_to_draw
from inbackward_conformance.outcome import Compared
from inbackward_conformance.plan import MATRICES, OTHERS, TRAINED, Assignment, Group, Plan, Ranks, events
from inbackward_conformance.plan.events import Event, LoadSharded, PerRank, SaveSharded
from inbackward_conformance.plan.literals import read
from inbackward_conformance.ranks.job import Job, Rank, values_of
from inbackward_conformance.ranks.pool import Pool
from inbackward_conformance.repro.call_templates import CallTemplates
from inbackward_conformance.repro.comparison import Comparison
from inbackward_conformance.repro.failure import CannotWrite, Failure
from inbackward_conformance.repro.file import COMMON_IMPORTS
from inbackward_conformance.repro.plan_script import PlanScript
from inbackward_conformance.repro.script import Script
from inbackward_conformance.repro.write import write
from inbackward_conformance.specification import specification
from inbackward_conformance.tensors import same_bits
from inbackward_conformance.training.compare import same_states
from inbackward_conformance.training.execute import execute
from inbackward_conformance.training.in_backward import InBackward
from inbackward_conformance.training.standard_loop import StandardLoop
from inbackward_conformance.training.trace import Raised, copy_state
from inbackward_conformance.training.train import train

HERE = Path(__file__).parent
REFERENCE = "reference"
HANDED = "reference-handed"
"""The implementation that offers `accumulate` and `backward_clipped`."""
SCHEDULED = "mutants.of_pipeline:AtTheLastMicroBatch"
"""The implementation that refuses no pipeline schedule: where one rank raises in one, another waits for it."""
LOOPS: dict[str, type[StandardLoop | InBackward]] = {"standard_loop": StandardLoop, "in_backward": InBackward}
SECONDS = 300.0

DRAWN = 20
FAMILIES = [
    "attachments",
    "checkpoints",
    "frozen_parameters",
    "grad_modes",
    "gradients_from_before",
    "histories",
    "hooked_and_unhooked",
    "new_data",
    "repeated_listings",
    "shared_storage",
    "steps_by_hand",
    "structures",
    "swapped_tensors",
]

MOMENTUM = (Assignment("SGD", {"lr": 0.1, "momentum": 0.9}),)

FURTHER_PLANS: list[tuple[str, Plan]] = [
    (
        "schedule/every_scheduler",
        Plan("MLP", MOMENTUM, (events.StepSchedules(float("inf")), events.StepByHand(), events.Backward())),
    ),
    (
        "schedule/different_schedules",
        Plan(
            "TwoLayers",
            (Assignment("SGD", {"lr": 0.1}, (Group(("0.weight",)), Group(("1.weight",), {"lr": 0.2}))),),
            (
                events.StartSchedule(events.Scheduler("ExponentialLR", {"gamma": 0.5}), "1"),
                events.Backward(),
                events.StepSchedules(),
                events.Backward(),
            ),
        ),
    ),
    (
        "multiple_optimizers/same_class",
        Plan(
            "MLP",
            (
                Assignment("Muon", {"lr": 0.1}, MATRICES),
                Assignment("SGD", {"lr": 0.1}, OTHERS),
                Assignment("AdamW", {"lr": 0.01}, TRAINED),
            ),
            (events.Backward(), events.Backward()),
            frozen=("0.bias", "2.weight"),
        ),
    ),
    (
        "pipeline/schedules",
        Plan(
            "Stages",
            MOMENTUM,
            (events.RunPipeline(),) * 2,
            before=(events.CutIntoStages("ScheduleInterleaved1F1B", stages_per_rank=2, scale_grads=False),),
            ranks=Ranks(1, pipeline=1),
        ),
    ),
    (
        "ddp/equality",
        Plan("MLP", MOMENTUM, (events.PerRank((events.StepByHand(), events.Backward())),) * 2, ranks=Ranks(1)),
    ),
    (
        "ddp/join",
        Plan("MLP", MOMENTUM, (events.Join((2, 1)),), before=(events.WrapDDP(),), ranks=Ranks(3, tolerance=1e-6)),
    ),
]
"""For what the first case of no requirement has: events, and ways in which script and run could differ."""

for module in iter_modules(events.__path__, f"{events.__name__}."):
    import_module(module.name)
KINDS = {kind.__name__: kind for kind in Event.__subclasses__()}


class Both:
    """What a script of a plan left, and what the run left: by name of the function, parameters, gradients and so on."""

    def __init__(self, plan: Plan, source: str, rank: int = 0, arguments: tuple[Any, ...] = ()) -> None:
        functions = functions_of(source)
        implementation = find_implementation(implementation_for(plan))
        self.differences: list[str] = []
        self.raised = False
        for name, method in LOOPS.items():
            trace = train(plan, method(Implementation(implementation)), "cpu", rank)
            raised = trace.raised.text if trace.raised else ""
            self.raised |= bool(raised)
            try:
                with torch.random.fork_rng(), warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    written = functions[name](*arguments)
            except Exception as error:  # noqa: BLE001 (whatever is raised is compared)
                written = Raised.observe(error, "", attaching=0).text
            if isinstance(written, str) or raised:
                self.differences += [f"{name}: raises {written!r}, the run {raised!r}"] * (written != raised)
                continue
            last = trace.snapshots[-1]
            params, buffers, grads, states = written
            self.differences += [f"{name}: {what}" for what in _differences(last.params, params, "parameter")]
            self.differences += [f"{name}: {what}" for what in _differences(last.buffers, buffers, "buffer")]
            self.differences += [f"{name}: {what}" for what in _differences(last.grads, grads, "gradient")]
            for param, found in (last.states or {}).items():
                written_states = map(copy_state, states[param])
                if not same_states(list(map(plain_state, found)), list(map(plain_state, written_states))):
                    self.differences.append(f"{name}: optimizer state of {param}")


def functions_of(source: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(compile(source, "script", "exec"), names)  # noqa: S102 (it is what is tested)
    return names


def _differences(expected: dict[str, Any], actual: dict[str, Any], kind: str) -> Iterator[str]:
    if expected.keys() != actual.keys():
        yield f"{kind}s {list(actual)}, the run has {list(expected)}"
        return
    for name, value in expected.items():
        other = actual[name]
        if value is None or other is None:
            if value is not other:
                yield f"{kind} {name}"
        elif not same_bits(plain(value), plain(other.detach())):
            yield f"{kind} {name}"


def plain(value: Any) -> Any:
    """Return a tensor as no subclass: a script has classes of its own, of the same name."""
    if not isinstance(value, torch.Tensor) or type(value) in {torch.Tensor, torch.nn.Parameter}:
        return value
    return vars(value).get("inner", value).as_subclass(torch.Tensor)


def plain_state(state: dict[str, Any]) -> dict[str, Any]:
    return {key: plain(value) for key, value in state.items()}


def everything(script: Script) -> str:
    """Return an expression for all that is compared."""
    kinds = (Compared.PARAMETERS, Compared.BUFFERS, Compared.GRADIENTS, Compared.STATES)
    return f"({', '.join(Comparison(kind).returned(script) for kind in kinds)})"


def source_of(requirement: str, plan: Plan) -> str:
    """Return the functions of a script."""
    templates, script = CallTemplates(implementation_for(plan)), script_of(requirement, plan)
    functions = list(script.trainings("standard_loop", "in_backward", script.events, everything))
    parts = [COMMON_IMPORTS, templates.imports, *script.imports, templates.definitions, *script.definitions]
    return "\n\n".join([*parts, *functions])


def script_of(requirement: str, plan: Plan) -> PlanScript:
    """Return the script of a plan; it lets no refusal through, which is compared as any error."""
    strict = replace(specification()[requirement], may_refuse=None)
    name = implementation_for(plan)
    return PlanScript(Failure(name, strict, "", "diverges", "", plan=plan), plan, CallTemplates(name))


def implementation_for(plan: Plan) -> str:
    saving = [event.events for event in plan.events if isinstance(event, LoadSharded)]
    run = list(chain(plan.events, *saving))
    if any(isinstance(event, events.RunPipeline) and not event.accumulated for event in run):
        return SCHEDULED
    calls = (events.MicroBatch, events.ClippedBackward, events.RunPipeline)
    return HANDED if any(isinstance(event, calls) for event in run) else REFERENCE


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, Plan]]:
    """The plans of the first case of each requirement that is a run of one."""
    folder = tmp_path_factory.mktemp("plans")
    found = []
    for options in ([], ["--distributed"]):
        file = folder / f"plans{len(options)}.json"
        command = [sys.executable, "-m", "pytest", "-q", "--pyargs", "inbackward_conformance", "-p", "plans_of_cases"]
        command += ["--plans-of-cases", str(file), "--implementation", REFERENCE, "-p", "no:randomly", "-p", "no:xdist"]
        command += ["--basetemp", str(folder / f"files{len(options)}"), *options]
        env = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])}
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
        assert file.exists(), done.stdout + done.stderr
        found += [(requirement, read(text)) for requirement, text in json.loads(file.read_text(encoding="utf-8"))]
    return [*found, *FURTHER_PLANS]


def events_in(plan: Plan) -> Iterator[Event]:
    for event in (*plan.before, *plan.events):
        yield event
        if isinstance(event, PerRank):
            yield from event.events


@pytest.mark.parametrize("kind", KINDS)
def test_every_event_has_both_functions(kind: str) -> None:
    assert execute.dispatch(KINDS[kind]) is not execute.dispatch(Event), f"{kind}: register it with @execute.register"
    assert write.dispatch(KINDS[kind]) is not write.dispatch(Event), f"{kind}: register it with @write.register"


def test_every_event_is_exported() -> None:
    assert KINDS.keys() <= set(events.__all__)


def test_every_event_is_in_a_plan(plans: list[tuple[str, Plan]]) -> None:
    there = {type(event).__name__ for _, plan in plans for event in events_in(plan)} | {"Attach"}
    assert KINDS.keys() <= there, f"add a plan to FURTHER_PLANS for {', '.join(sorted(KINDS.keys() - there))}"


def test_scripts_leave_what_runs_leave(plans: list[tuple[str, Plan]]) -> None:
    here = [(requirement, plan) for requirement, plan in plans if plan.ranks is None]
    assert len(here) > 90
    wrong = [
        f"{requirement}: {difference}"
        for requirement, plan in here
        for difference in Both(plan, source_of(requirement, plan)).differences
    ]
    assert not wrong, "\n".join(wrong)


class OnRank(NamedTuple):
    """What one rank answers: how script and run differ, and whether the implementation raised in the run."""

    differences: list[str]
    raised: bool


def on_rank(rank: Rank, plan: Plan, source: str, folder: str) -> OnRank:
    arguments = (rank.number, folder) if "(rank, folder)" in source else (rank.number,)
    both = Both(plan, source, rank.number, arguments)
    return OnRank(both.differences, both.raised)


def save(rank: Rank, source: str, folder: str) -> None:
    functions = functions_of(source)
    for name in ("save_by_standard_loop", "save_in_backward"):
        functions[name](rank.number, folder)


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    pool = Pool(at_once=4)
    yield pool
    pool.close()


def test_scripts_on_ranks_leave_what_runs_leave(plans: list[tuple[str, Plan]], pool: Pool, tmp_path: Path) -> None:
    """A script that loads a checkpoint saves it before, perhaps on another number of ranks."""
    wrong: list[str] = []
    not_saved: set[str] = set()
    for number, (requirement, plan) in enumerate(plans):
        folders = {event.folder for event in plan.events if isinstance(event, SaveSharded | LoadSharded)}
        if plan.ranks is None or (any(isinstance(event, LoadSharded) for event in plan.events) and folders & not_saved):
            continue
        folder, source = tmp_path / str(number), source_of(requirement, plan)
        folder.mkdir()
        for loaded in (event for event in plan.events if isinstance(event, LoadSharded)):
            saving = "\n\n".join([source, *script_of(requirement, plan).saved_before(loaded)])
            values_of(pool.run(Job(save, (saving, str(folder)), loaded.ranks.world_size, "cpu", SECONDS)))
        job = Job(on_rank, (plan, source, str(folder)), plan.ranks.world_size, "cpu", SECONDS)
        answers: list[OnRank] = values_of(pool.run(job))
        wrong += [
            f"{requirement}: rank {rank}: {what}" for rank, each in enumerate(answers) for what in each.differences
        ]
        not_saved |= folders if any(each.raised for each in answers) else set()
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("family", FAMILIES)
def test_scripts_of_drawn_plans_leave_what_runs_leave(family: str) -> None:
    """Plans that can be written down: `CannotWrite` says why one cannot."""

    @settings(drawing(QUICK), max_examples=DRAWN)
    @seed(0)
    @given(getattr(plans_to_draw, family)())
    def same(plan: Plan) -> None:
        try:
            source = source_of(f"properties/{family}", plan)
        except CannotWrite:
            return
        assert not Both(plan, source).differences

    with temporary_home():
        same()
