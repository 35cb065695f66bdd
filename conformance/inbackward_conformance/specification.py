"""The requirements, parsed from the source of `requirements/` without importing it, or torch."""

from __future__ import annotations

from pathlib import Path

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
