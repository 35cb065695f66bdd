"""Writes the counts as a page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.page import picture, table, targets_table
from bench.scale.arrangements import ARRANGEMENTS
from bench.scale.measure import RANKS
from bench.scale.table import AXES, rows_of, size
from bench.scale.targets import targets

if TYPE_CHECKING:
    from bench.scale.results import Counts

INTRODUCTION = """\
# Scale

What a rank sends, keeps and steps in one step of training, as the number of layers, parameters and ranks grows: in the
standard loop, and with the optimizer in backward. Everything here is counted, so it does not depend on the machine;
times are in the [benchmark](bench.md). `nox -s bench -- scale --docs docs` makes this page, in one process.

{picture}
"""
ALT = "Peak gradient memory by layers, calls of the optimizer by parameters, bytes that a rank sends by ranks"

METHOD = """\
## How it was counted

- With torch {torch} and inbackward {inbackward}, on rank 0, in the third step of training.
- The model is a chain of Linear layers of one size without bias, in float32. A layer has one parameter; where nothing
  else is said it has {layer}, and there are {layers} layers. The optimizer is AdamW. Buckets have {bucket}, those of
  `step_in_backward` and those of DDP.
- *Ranks*: rank 0 of a process group whose other ranks are not there: its backend returns from each collective at once.
  Where nothing else is said there are {ranks}.
- *Sent*: the bytes that this rank gives to each collective, and the number of calls. To an all-reduce and to a
  reduce-scatter it gives all gradients that they reduce, to an all-gather its own shard. What goes over the network
  then is up to a real backend.
- *Map*: all-reduces of int32, by which ranks tell each other which parameters they have used.
- *Gradients*: the largest number of bytes at a time, by weak references to storages, whenever backward passes a
  gradient to a parameter, gradients are given to a collective, or the optimizer is called. The buckets of DDP count,
  and so does what goes into a reduce-scatter of FSDP2 and comes out. DDP has `gradient_as_bucket_view=True`; without,
  it makes a second copy of all gradients, in the standard loop as well.
- FSDP2 shards {layer} of layers at a time, by rows. With more ranks than rows it sends padding. The buckets of
  `step_in_backward` count the bytes of parameters before they are sharded.
"""

SECTIONS = {
    "depth": """\
## Layers

More layers of one size. DDP allocates buckets for all gradients once and keeps them, in the standard loop and with the
optimizer in backward, so the memory of gradients grows with the model in both.
""",
    "parameters": """\
## Parameters

The same bytes, cut into more and smaller parameters.
""",
    "ranks": """\
## Ranks

One model, trained by more and more ranks.
""",
}


def page(counts: Counts) -> str:
    """Return the page in Markdown."""
    point = counts.axes["depth"][0].point
    layer, bucket = size(point.model_bytes // point.layers), size(point.bucket_bytes)
    layers = counts.axes["ranks"][0].point.layers
    method = METHOD.format(**counts.versions, layer=layer, layers=layers, bucket=bucket, ranks=RANKS)
    parts = [INTRODUCTION.format(picture=picture("scale", ALT)), method]
    for axis, introduction in SECTIONS.items():
        parts.append(introduction)
        for arrangement in counts.arrangements(axis):
            found = [each for each in counts.axes[axis] if each.point.arrangement == arrangement]
            head, *rows = rows_of(axis, found)
            parts += [f"### {AXES[axis].capitalize()}: {ARRANGEMENTS[arrangement].label}\n", table(head, rows)]
    parts += ["## Targets\n", targets_table(targets(counts))]
    return "\n".join(parts)
