"""Requirements that need the libraries of an extra, where they are installed and where they are not."""

from __future__ import annotations

import re
from itertools import count
from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor, nn

from conftest import Suite
from inbackward_conformance import specification
from inbackward_conformance.__main__ import main
from inbackward_conformance.adapters.find import find_implementation
from inbackward_conformance.adapters.implementation import Implementation
from inbackward_conformance.catalogue import language_architectures
from inbackward_conformance.catalogue.architecture import Architecture
from inbackward_conformance.checking.check import Check
from inbackward_conformance.compatibility import tomllib
from inbackward_conformance.extras import EXTRAS, missing, why_not_run
from inbackward_conformance.outcome import NotRun
from inbackward_conformance.plan import Assignment, Plan
from inbackward_conformance.plan.events import Backward
from inbackward_conformance.report.record import reasons_not_run, summarize, verdict
from records import case, write_record

GPT2 = "architectures/gpt2"
SHARED = "sharing/used_twice"


@pytest.fixture
def not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(specification, "missing", lambda extra: EXTRAS.get(extra, ()))


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(specification, "missing", lambda _: ())


@pytest.mark.parametrize("extra", EXTRAS)
def test_its_libraries_are_those_of_the_distribution(extra: str, pytestconfig: pytest.Config) -> None:
    project = tomllib.loads((pytestconfig.rootpath / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert tuple(project["optional-dependencies"][extra]) == EXTRAS[extra]


@pytest.mark.parametrize("extra", EXTRAS)
def test_its_session_installs_a_version_of_each_and_runs_its_mutants(extra: str, pytestconfig: pytest.Config) -> None:
    """Nobody else does: where it is not installed, mutants run none of its requirements."""
    constraints = (pytestconfig.rootpath / "ci" / f"constraints-{extra}.txt").read_text(encoding="utf-8")
    pinned = [line.partition("==")[0] for line in constraints.splitlines() if "==" in line]
    assert pinned == [library.partition(">=")[0] for library in EXTRAS[extra]]
    assert f'"--extra", "{extra}"' in (pytestconfig.rootpath / "noxfile.py").read_text(encoding="utf-8")


def test_what_is_not_there_or_too_old_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXTRAS, "some", ("pytest>=8.2", "pytest>=999.1", "no-such-library>=1.0"))
    assert missing("some") == ("pytest>=999.1", "no-such-library>=1.0")
    assert why_not_run("some") == "it needs pytest>=999.1, no-such-library>=1.0: pip install 'inbackward[some]'"


def test_what_needs_none_misses_none() -> None:
    assert missing("") == ()


@pytest.mark.usefixtures("not_installed")
def test_without_it_no_verdict_rests_on_it_and_the_reason_is_told() -> None:
    cases = [case("x", SHARED, "conforms"), case("x", GPT2, "not run", detail="why")]
    requirements = summarize("x", cases, [], "cpu")
    assert verdict(requirements) == "conformant"
    assert reasons_not_run(requirements, cases) == {"why": 1}


@pytest.mark.usefixtures("installed")
def test_with_it_the_verdict_counts_it() -> None:
    kept = case("x", SHARED, "conforms")
    assert verdict(summarize("x", [kept, case("x", GPT2, "conforms")], [], "cpu")) == "conformant"
    assert verdict(summarize("x", [kept, case("x", GPT2, "diverges")], [], "cpu")) == "not conformant"
    assert verdict(summarize("x", [kept], [GPT2], "cpu")) == "incomplete"


def test_a_later_run_without_it_replaces_no_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(specification, "missing", lambda _: ())
        earlier = write_record(tmp_path / "with.jsonl", case("x", GPT2, "conforms"), date="2026-01-01T00:00:00+00:00")
    monkeypatch.setattr(specification, "missing", lambda extra: EXTRAS.get(extra, ()))
    both = (case("x", SHARED, "conforms"), case("x", GPT2, "not run", detail="why"))
    later = write_record(tmp_path / "without.jsonl", *both, date="2026-01-02T00:00:00+00:00")
    main(["matrix", str(later), str(earlier)])
    printed = capsys.readouterr().out
    assert f"| {GPT2} | conforms |" in printed
    assert f"| {SHARED} | conforms |" in printed


@pytest.mark.skipif(not missing("architectures"), reason="the extra is installed here")
def test_a_run_without_it_says_what_to_install(suite: Suite) -> None:
    result = suite.run("--implementation=reference", chapter="architectures")
    assert result.ret == 0
    assert set(suite.outcomes().values()) == {"not run"}
    assert {line["detail"] for line in suite.cases()} == {why_not_run("architectures")}
    told = f"not run: {why_not_run('architectures')} ({len(suite.outcomes())} requirements)"
    assert told in " ".join(result.stdout.str().split())


class BuiltByNone(Architecture):
    def build(self) -> nn.Module:
        raise ImportError("no name 'GPT6' in its library")


class Renamed(Architecture):
    def build(self) -> nn.Module:
        return nn.Linear(2, 2)

    def forward(self, features: Tensor) -> Tensor:
        loss: Tensor = self.model(features).loss
        return loss

    @staticmethod
    def batch(generator: Generator) -> tuple[Tensor, ...]:
        return (torch.randn(2, 2, generator=generator),)


class Atomic(Renamed):
    """Some kernels of accelerators add up in any order."""

    calls = count()

    def forward(self, features: Tensor) -> Tensor:
        loss: Tensor = self.model(features).sum() * (1 + next(self.calls))
        return loss


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (BuiltByNone, "the versions of libraries here do not build BuiltByNone: ImportError: no name 'GPT6'"),
        (Renamed, "the versions of libraries here do not train Renamed: AttributeError: 'Tensor' object has no"),
        (Atomic, "the standard loop itself trains Atomic otherwise each time: parameter 'model.weight' differs"),
    ],
    ids=["build", "train", "repeat"],
)
def test_what_a_library_does_wrong_is_not_run(
    model: type[nn.Module], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An implementation has no part in it."""
    monkeypatch.setattr(language_architectures, model.__name__, model, raising=False)
    check = Check(Implementation(find_implementation("reference")), specification.specification()[GPT2], "cpu")
    with pytest.raises(NotRun, match=re.escape(reason)):
        check(Plan(model.__name__, (Assignment("SGD", {"lr": 0.1}),), (Backward(),)))
