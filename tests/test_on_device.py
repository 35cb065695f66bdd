"""`ci/on_device.sh`, which needs a machine with an accelerator, as far as any machine runs it; and its summary."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from expecttest import assert_expected_inline

from inbackward_conformance.specification import specification
from records import case, write_record

SHARED, LISTED = "sharing/used_twice", "sharing/listed_twice"


@pytest.fixture
def root(pytestconfig: pytest.Config) -> Path:
    return pytestconfig.rootpath


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    folder = tmp_path / "wheels"
    folder.mkdir()
    (folder / "inbackward-0.1-py3-none-any.whl").touch()
    return folder


def on_device(root: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    bash = shutil.which("bash")
    assert bash
    command = [bash, str(root / "ci" / "on_device.sh"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def summary(root: Path, folder: Path) -> str:
    """Return the summary without its first line, which is about the machine."""
    command = [sys.executable, str(root / "ci" / "summarize_device.py"), str(folder), "cpu"]
    printed = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    machine, _, others = printed.partition("\n")
    assert machine.startswith("cpu: ")
    return others


def test_its_help_is_its_comment(root: Path) -> None:
    done = on_device(root, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    first, *_, last = done.stdout.splitlines()
    assert first.startswith("Runs the suite and the benchmark on a machine that has a torch of its own")
    assert "    ci/on_device.sh WHEELS RECORDS [--device DEVICE] [--seconds S] [PART ...]\n" in done.stdout
    assert last.endswith("The exit status is that of the worst part.")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--fast"], "on_device.sh: unknown option --fast; see --help"),
        (["--device", "cuda", "-x"], "on_device.sh: unknown option -x; see --help"),
        (["local", "gpu"], "on_device.sh: unknown part gpu; known: local, distributed, bench"),
    ],
    ids=["option", "second option", "part"],
)
def test_what_it_does_not_know_it_says_before_it_starts(
    root: Path, tmp_path: Path, wheels: Path, arguments: list[str], told: str
) -> None:
    records = tmp_path / "records"
    done = on_device(root, wheels, records, *arguments)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"{told}\n")
    assert not records.exists()


@pytest.mark.parametrize("name", ["nowhere", "other"])
def test_a_folder_without_a_wheel_is_refused(root: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "hypothesis-6.0-py3-none-any.whl").touch()
    folder, records = tmp_path / name, tmp_path / "records"
    done = on_device(root, folder, records)
    told = f"on_device.sh: {folder}: no wheel of inbackward there; make the folder with nox -s device_wheels\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", told)
    assert not records.exists()


def test_without_two_folders_it_prints_its_help(root: Path, wheels: Path) -> None:
    done = on_device(root, wheels)
    assert (done.returncode, done.stdout) == (2, "")
    assert "WHEELS RECORDS" in done.stderr


def test_the_summary(root: Path, tmp_path: Path) -> None:
    """Of a run that ended, of one that did not, and of a benchmark; the table of the first is beside it."""
    found = [
        case("torch", SHARED, "conforms", name="Adam"),
        case("torch", SHARED, "diverges", name="SGD", detail="parameter 'a'\ndiffers"),
        case("torch", SHARED, "diverges", name="SGD-nested", detail="parameter 'b' differs"),
        case("torch", LISTED, "crashes", detail="known", expected=True),
        case("reference", SHARED, "conforms"),
        case("reference", LISTED, "not run", detail="it requires more"),
    ]
    write_record(tmp_path / "local.jsonl", *found, device="cuda")
    ended = write_record(
        tmp_path / "distributed.jsonl",
        case("reference", "ddp/equality", "conforms", name="after-2"),
        case("reference", "ddp/static_graph", "hangs", detail="still running"),
    )
    lines = ended.read_text(encoding="utf-8").splitlines(keepends=True)
    ended.write_text("".join(lines[:3]), encoding="utf-8")
    for name, status in (("local", 1), ("distributed", 124), ("bench", 0)):
        (tmp_path / f"{name}.status").write_text(f"{name}: exit status {status} after 3 s\n", encoding="utf-8")
    log = "model  optimizer\nsmall  SGD\n\ntargets\n  met     0.900 (at most 1.00)  SGD, 200 small  time\n"
    (tmp_path / "bench.log").write_text(log, encoding="utf-8")
    assert_expected_inline(
        summary(root, tmp_path),
        """\
bench: exit status 0 after 3 s
distributed: exit status 124 after 3 s
local: exit status 1 after 3 s

local, torch: not conformant; MUST {'broken': 2}; cases: 2 diverges, 1 conforms, 1 crashes
local, reference: incomplete; MUST {'kept': 1, 'not run': 1}; cases: 1 conforms, 1 not run
distributed: the run did not reach its end
distributed, reference: no verdict; MUST {}; cases: 1 conforms, 1 hangs
bench:   met     0.900 (at most 1.00)  SGD, 200 small  time
local, torch: sharing/used_twice[SGD] and 1 more diverges: parameter 'a' differs
distributed, reference: ddp/static_graph hangs: still running
""",
    )
    assert (tmp_path / "local.md").read_text(encoding="utf-8").startswith("| requirement | torch | reference |\n")
    assert not (tmp_path / "distributed.md").exists()


def test_a_line_that_was_cut_off_leaves_the_others_told(root: Path, tmp_path: Path) -> None:
    """A part that runs too long is killed, maybe while it writes."""
    record = write_record(tmp_path / "local.jsonl", case("torch", SHARED, "conforms"), case("torch", LISTED, "fails"))
    lines = record.read_text(encoding="utf-8").splitlines(keepends=True)
    record.write_text("".join(lines[:2]) + lines[2][:50], encoding="utf-8")
    assert_expected_inline(
        summary(root, tmp_path),
        """\

local: the run did not reach its end
local, torch: no verdict; MUST {}; cases: 1 conforms
""",
    )


def test_however_much_fails_the_summary_is_short(root: Path, tmp_path: Path) -> None:
    failures = [case("x", requirement, "fails", detail="why " * 99) for requirement in specification()]
    write_record(tmp_path / "local.jsonl", *failures)
    lines = summary(root, tmp_path).splitlines()
    assert len(lines) == 98
    assert max(map(len, lines)) == 240
    told = sum(line.startswith("local, x: ") and " fails: " in line for line in lines)
    assert lines[-1] == f"... {len(failures) - told} more lines: see the records"
