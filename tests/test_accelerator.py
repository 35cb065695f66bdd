"""What the suite asks of accelerators, and what it does there; a machine with a CPU only plays one."""

from __future__ import annotations

import os
import re
from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
from torch import nn

from conftest import Suite
from inbackward_conformance import accelerator
from inbackward_conformance.adapters.find import find_implementation
from inbackward_conformance.adapters.implementation import Implementation
from inbackward_conformance.catalogue import models
from inbackward_conformance.checking.check import SHARED_DEVICE, TIMES_AGAIN, Check
from inbackward_conformance.outcome import BrokenPromise, NotRun, Outcome
from inbackward_conformance.plan import Assignment, Plan, Ranks
from inbackward_conformance.plan.events import Backward, LoadSharded
from inbackward_conformance.ranks.job import Answer, Job
from inbackward_conformance.ranks.on_ranks import OnRanks, run_standard
from inbackward_conformance.repro.failure import Failure
from inbackward_conformance.repro.file import REPEATABLE
from inbackward_conformance.repro.reproduce import source_of_failure
from inbackward_conformance.specification import specification
from inbackward_conformance.training.global_state import restored_settings
from inbackward_conformance.training.trace import Snapshot, Trace
from mutants.naive import Naive

HAS_NONE = torch.accelerator.current_accelerator() is None

REFERENCE = Implementation(find_implementation("reference"))

WHY = "CUDA error: an illegal memory access was encountered"

SGD = (Assignment("SGD", {"lr": 0.1}),)
TWO_STEPS = Plan("MLP", SGD, (Backward(),) * 2)
ON_TWO_RANKS = replace(TWO_STEPS, ranks=Ranks(2))
WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
SET_DEVICE = "torch.accelerator.set_device_index(rank % torch.accelerator.device_count())"


@pytest.fixture
def devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two accelerators, whose default backend is NCCL."""
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)


def test_the_kind_of_a_device() -> None:
    assert [accelerator.kind_of(device) for device in ("cpu", "cuda", "cuda:1")] == ["cpu", "cuda", "cuda"]
    assert [accelerator.is_accelerator(device) for device in ("cpu", "cpu:0", "cuda", "xpu:1")] == [
        False,
        False,
        True,
        True,
    ]


@pytest.mark.parametrize(
    ("device", "why"),
    [
        ("meta", "Device 'meta' does not have a corresponding module"),
        ("nonsense", "Expected one of cpu, cuda, .* device type at start of device string: nonsense"),
        ("cuda:x", "Invalid device string: 'cuda:x'"),
        pytest.param("cuda", ".", marks=pytest.mark.skipif(not HAS_NONE, reason="torch can use the one here")),
    ],
)
def test_why_a_device_is_unusable_is_one_line(device: str, why: str) -> None:
    told = accelerator.why_unusable(device)
    assert told
    assert re.match(why, told)
    assert "\n" not in told


def test_a_cpu_with_an_index_is_no_accelerator() -> None:
    requirement = specification()["ddp/mixed_precision"]
    assert [requirement.is_on(device) for device in ("cpu", "cpu:0", "cuda")] == [False, False, True]
    assert not accelerator.is_accelerator("cpu:0")


def test_a_cpu_is_usable_and_never_lost() -> None:
    assert accelerator.why_unusable("cpu") is None
    assert accelerator.why_lost("cpu") is None
    accelerator.exit_if_lost("cpu")


def test_why_a_device_is_lost_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def synchronize(*_: object) -> None:
        raise RuntimeError(f"{WHY}\nFor debugging, consider …\n")

    monkeypatch.setattr(torch.accelerator, "synchronize", synchronize)
    assert accelerator.why_lost("cuda") == WHY


@pytest.mark.usefixtures("devices")
@pytest.mark.parametrize(
    ("device", "world_size", "backend"),
    [
        ("cuda", 1, "cpu:gloo,cuda:nccl"),
        ("cuda", 2, "cpu:gloo,cuda:nccl"),
        ("cuda", 3, "gloo"),
        ("cuda:1", 1, "cpu:gloo,cuda:nccl"),
        ("cuda:1", 2, "gloo"),
        ("cpu", 2, "gloo"),
    ],
)
def test_a_backend_of_the_accelerator_needs_a_device_for_each_rank(device: str, world_size: int, backend: str) -> None:
    assert accelerator.backend_of(device, world_size) == backend
    shared = device != "cpu" and backend == dist.Backend.GLOO
    assert accelerator.shares_devices(device, world_size) is shared


@pytest.mark.usefixtures("devices")
@pytest.mark.parametrize(("here", "shared"), [(2, False), (3, True)])
def test_torchrun_says_how_many_ranks_are_on_this_machine(
    here: int, shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(here))
    assert accelerator.shares_devices("cuda", 4) is shared
    assert not accelerator.shares_devices("cuda", 2)
    assert not accelerator.shares_devices("cpu", 4)


@pytest.mark.usefixtures("devices")
def test_ranks_take_devices_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    current: list[int] = []
    monkeypatch.setattr(torch.accelerator, "set_device_index", current.append)
    assert [accelerator.device_of_rank("cuda", number) for number in range(3)] == ["cuda:0", "cuda:1", "cuda:0"]
    assert [accelerator.device_of_rank(device, 1) for device in ("cuda:0", "cpu")] == ["cuda:0", "cpu"]
    assert current == [0, 1, 0]


def test_kernels_are_repeatable_for_a_case_and_no_longer() -> None:
    def mode() -> int:
        return torch.get_deterministic_debug_mode()

    modes = [mode()]
    for device in ("cpu", "cuda"):
        with restored_settings():
            accelerator.make_repeatable(device)
            modes.append(mode())
        modes.append(mode())
    assert modes == [0, 0, 0, 1, 0]


@pytest.mark.parametrize(("device", "workspace"), [("cpu", None), ("cuda", ":4096:8")])
def test_a_process_has_what_repeatable_kernels_need(
    device: str, workspace: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", {})
    accelerator.set_up_process(device)
    assert os.environ.get(WORKSPACE) == workspace


LOST = """
import os
import torch
from inbackward_conformance import accelerator
from mutants.naive import Naive

WHY = "CUDA error: an illegal memory access was encountered"
lost = False

accelerator.is_accelerator = lambda device: True
accelerator.why_lost = lambda device: WHY if lost else None

class Loses(Naive):
    def step(self, optimizer, param):
        global lost
        assert torch.get_deterministic_debug_mode() == 1, "kernels are not repeatable"
        if "-hooked-first" in os.environ["PYTEST_CURRENT_TEST"]:
            lost = True
            raise RuntimeError(WHY)
        super().step(optimizer, param)

def pytest_runtest_logfinish():
    assert torch.get_deterministic_debug_mode() == 0, "the mode outlives its case"
"""
"""An implementation that loses the accelerator in one case, on what the suite takes for one."""

LOSES = ("--implementation=x:Loses", "-p", "x")
ENDS = f"!* this process cannot use its device any more: {WHY} (with -n 1 it would be replaced) !*"


@pytest.fixture
def loses(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(x=LOST)


@pytest.mark.usefixtures("loses")
def test_a_worker_that_loses_its_device_is_replaced(suite: Suite) -> None:
    result = suite.run(*LOSES, "-n", "1")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    cases = suite.cases()
    assert [(line["case"], line["outcome"], line["detail"]) for line in cases] == [
        ("", "conforms", ""),
        ("", "conforms", ""),
        ("", "conforms", ""),
        ("hooked-first", "crashes", WHY),
        ("unhooked-first", "conforms", ""),
    ]
    assert cases[3]["plan"].startswith("Plan(")
    assert suite.verdicts() == {"x:Loses": "not conformant"}


@pytest.mark.usefixtures("loses")
def test_without_workers_a_lost_device_ends_the_run(suite: Suite) -> None:
    result = suite.run(*LOSES, "-p", "no:xdist")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines([ENDS])
    assert [line["kind"] for line in suite.record()] == ["header", *["case"] * 4]
    last = suite.cases()[-1]
    assert (last["case"], last["outcome"], last["detail"]) == ("hooked-first", "crashes", WHY)
    assert last["plan"].startswith("Plan(")


class Answers:
    """Ranks whose standard loop gives these values, one for each time it is run; the implementation gives 0."""

    world_size = None

    def __init__(self, *values: float) -> None:
        self.jobs: list[Job] = []
        self._values = [*values]

    def run(self, job: Job) -> list[Answer]:
        self.jobs.append(job)
        standard = trace_of(self._values.pop(0))
        return [Answer(standard if job.call is run_standard else (standard, trace_of(0)))] * job.world_size


def trace_of(value: float) -> Trace:
    def snapshot(value: float) -> Snapshot:
        return Snapshot("event 1", {"weight": torch.tensor(value)}, {}, {"weight": None}, {"weight": []})

    return Trace(snapshot(0), [snapshot(value)])


def check_on(ranks: Answers) -> Check:
    on_ranks = OnRanks(ranks, "reference", "cpu", 1.0)
    return Check(REFERENCE, specification()["ddp/equality"], "cpu", ranks=on_ranks)


@pytest.mark.parametrize(
    ("plan", "is_run"),
    [
        (ON_TWO_RANKS, True),
        (replace(TWO_STEPS, ranks=Ranks(2, pipeline=2)), False),
        (replace(TWO_STEPS, ranks=Ranks(2, tensor=2)), False),
        (replace(ON_TWO_RANKS, events=(LoadSharded("x", Ranks(2, tensor=2)),)), False),
    ],
    ids=["data", "pipeline", "tensor", "loads what tensor parallelism saves"],
)
def test_ranks_that_share_a_device_send_no_activations(
    plan: Plan, is_run: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accelerator, "shares_devices", lambda *_: True)
    ranks = Answers(0)
    if is_run:
        check_on(ranks)(plan)
    else:
        with pytest.raises(NotRun, match=re.escape(SHARED_DEVICE)):
            check_on(ranks)(plan)
    assert len(ranks.jobs) == is_run


@pytest.fixture
def on_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accelerator, "is_accelerator", lambda _: True)
    monkeypatch.setattr(accelerator, "shares_devices", lambda *_: False)


class AddsInAnyOrder(nn.Module):
    """Its second forward, and each after it, gives something else, as kernels of accelerators may."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        product: torch.Tensor = self.layer(x) * next(FACTORS)
        return product

    @staticmethod
    def batch(generator: torch.Generator) -> tuple[torch.Tensor, ...]:
        return (torch.randn(2, 3, generator=generator),)


FACTORS = iter(range(1, 1000))


class StepsTwice(Naive):
    def step(self, optimizer: torch.optim.Optimizer, param: torch.Tensor) -> None:
        super().step(optimizer, param)
        super().step(optimizer, param)


def check_here(implementation: Implementation) -> Check:
    return Check(implementation, specification()["gradients/freed"], "cpu")


@pytest.mark.usefixtures("on_accelerator")
def test_where_the_standard_loop_does_not_repeat_a_difference_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "AddsInAnyOrder", AddsInAnyOrder, raising=False)
    reason = "the standard loop itself trains AddsInAnyOrder otherwise each time: parameter 'layer.weight' differs"
    with pytest.raises(NotRun, match=reason):
        check_here(REFERENCE)(replace(TWO_STEPS, model="AddsInAnyOrder"))


def test_on_a_cpu_a_difference_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "AddsInAnyOrder", AddsInAnyOrder, raising=False)
    with pytest.raises(BrokenPromise) as caught:
        check_here(REFERENCE)(replace(TWO_STEPS, model="AddsInAnyOrder"))
    assert caught.value.finding.outcome is Outcome.DIVERGES


@pytest.mark.usefixtures("on_accelerator")
def test_where_the_standard_loop_repeats_a_difference_is_one() -> None:
    with pytest.raises(BrokenPromise) as caught:
        check_here(Implementation(StepsTwice()))(TWO_STEPS)
    assert caught.value.finding.outcome is Outcome.DIVERGES


@pytest.mark.usefixtures("on_accelerator")
def test_where_the_standard_loop_repeats_on_ranks_a_difference_is_one() -> None:
    ranks = Answers(*(1,) * (1 + TIMES_AGAIN))
    with pytest.raises(BrokenPromise) as caught:
        check_on(ranks)(ON_TWO_RANKS)
    assert caught.value.finding.outcome is Outcome.DIVERGES
    assert [job.call is run_standard for job in ranks.jobs] == [False, *[True] * TIMES_AGAIN]


@pytest.mark.usefixtures("on_accelerator")
def test_where_the_standard_loop_does_not_repeat_on_ranks_a_difference_proves_nothing() -> None:
    with pytest.raises(NotRun, match="trains MLP otherwise each time: rank 0: parameter 'weight' differs"):
        check_on(Answers(1, 1, 2))(ON_TWO_RANKS)


def test_on_ranks_of_a_cpu_nothing_is_run_again() -> None:
    ranks = Answers(1)
    with pytest.raises(BrokenPromise):
        check_on(ranks)(ON_TWO_RANKS)
    assert len(ranks.jobs) == 1


@pytest.mark.parametrize(
    ("device", "ranks", "has"),
    [
        ("cuda", None, (True, False)),
        ("cuda", Ranks(2), (True, True)),
        ("cuda:1", Ranks(2), (True, False)),
        ("cpu", Ranks(2), (False, False)),
    ],
)
def test_a_script_sets_the_device_as_the_run_did(device: str, ranks: Ranks | None, has: tuple[bool, bool]) -> None:
    requirement = specification()["ddp/equality" if ranks else "gradients/freed"]
    failure = Failure("torch", requirement, "", "diverges", "x", plan=replace(TWO_STEPS, ranks=ranks), device=device)
    lines = [line.strip() for line in source_of_failure(failure).splitlines()]
    repeatable = set(REPEATABLE.strip().splitlines()) <= set(lines)
    assert (repeatable, SET_DEVICE in lines) == has


def test_a_script_chooses_the_kernels_that_a_run_does(monkeypatch: pytest.MonkeyPatch) -> None:
    def chosen() -> tuple[str | None, bool, bool]:
        enabled = torch.are_deterministic_algorithms_enabled()
        return os.environ.get(WORKSPACE), enabled, torch.is_deterministic_algorithms_warn_only_enabled()

    def choose_by_a_script() -> None:
        exec(REPEATABLE, {"os": os, "torch": torch})  # noqa: S102 (as a script does)

    def choose_by_a_run() -> None:
        accelerator.set_up_process("cuda")
        accelerator.make_repeatable("cuda")

    found = []
    for choose in (choose_by_a_script, choose_by_a_run):
        monkeypatch.setenv(WORKSPACE, "")  # to be put back
        monkeypatch.delenv(WORKSPACE)
        with restored_settings():
            choose()
            found.append(chosen())
    assert found == [(":4096:8", True, True)] * 2
    assert chosen()[1:] == (False, False)
