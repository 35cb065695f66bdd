"""How the layers of models are divided among ranks: sharded, made parallel, or as the stages of a pipeline."""

from __future__ import annotations

from inbackward_conformance.plan.events import FullyShard, Parallelize, Style

MLP_LAYERS = ("0", "2", "4")
MLP_BY_LAYER = FullyShard(layers=MLP_LAYERS)
MLP_KEPT_FOR_BACKWARD = FullyShard({"reshard_after_forward": False}, layers=MLP_LAYERS)

COLUMN = Style("ColwiseParallel")
ROW = Style("RowwiseParallel")
COLUMN_ALONE = Style("ColwiseParallel", {"output_layouts": "Replicate()"})
ROW_ALONE = Style("RowwiseParallel", {"input_layouts": "Replicate()"})
"""For a layer that neither takes nor gives shards, as an embedding does; `ROW_ALONE` shards it by vocabulary."""

MLP_IN_PART = Parallelize({"0": COLUMN, "2": ROW})
MLP_CHAINED = Parallelize({"0": COLUMN, "2": ROW, "4": COLUMN_ALONE})
MLP_ALONE = Parallelize({"0": COLUMN_ALONE, "2": ROW_ALONE, "4": ROW_ALONE})

FEED_FORWARD = Parallelize({"embedding": ROW_ALONE, "up": COLUMN, "down": ROW, "head": COLUMN_ALONE})
"""All but the norm, whose gradient is the same on all ranks."""

FEED_FORWARD_IN_SEQUENCE = Parallelize(
    {
        "embedding": Style("RowwiseParallel", {"input_layouts": "Replicate()", "output_layouts": "Shard(1)"}),
        "norm": Style("SequenceParallel"),
        "up": Style("ColwiseParallel", {"input_layouts": "Shard(1)"}),
        "down": Style("RowwiseParallel", {"output_layouts": "Shard(1)"}),
        "head": Style("ColwiseParallel", {"input_layouts": "Shard(1)", "output_layouts": "Replicate()"}),
    }
)
"""Each rank has a part of the sequence between the layers; the gradient of the norm is partial."""


def trained_in_stage(stage: int) -> tuple[str, ...]:
    """Return the parameters of a stage of `Stages` but its last bias, for an optimizer that does not train that."""
    return tuple(f"stage{stage}.{name}" for name in ("0.weight", "0.bias", "2.weight"))
