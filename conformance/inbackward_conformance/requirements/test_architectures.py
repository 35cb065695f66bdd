"""Architectures that people train, as their libraries build them: bitwise the standard loop over five steps.

The models are those of transformers, diffusers and peft, in tiny configurations with random weights. Nothing is
downloaded. Each is trained with AdamW, SGD with momentum, Adafactor, and Muon for its matrices with AdamW for the rest.

Without these libraries, which the extra `inbackward[architectures]` installs, the chapter is `not run`, and the verdict
does not count it. Each feature of the models that is known to matter is a requirement of another chapter too, with a
small model that needs torch alone. Here they come together, with those that nobody has thought of.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from inbackward_conformance.checking.check import Check
from inbackward_conformance.plan import MATRICES, OTHERS, TRAINED, Assignment, Plan
from inbackward_conformance.plan.events import Backward, ClippedBackward, MicroBatch
from inbackward_conformance.plan.need import ANOTHER_CLASS
from inbackward_conformance.plugin.optimizer_cases import optimizers

FIVE_STEPS = (Backward(),) * 5
ADAMW = Assignment("AdamW", {"lr": 0.01, "weight_decay": 0.1})
SGD = Assignment("SGD", {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.01})
ADAFACTOR = Assignment("Adafactor", {"lr": 0.01})
MUON = Assignment("Muon", {"lr": 0.01}, MATRICES)
ADAMW_FOR_OTHERS = Assignment("AdamW", {"lr": 0.01}, OTHERS, need=ANOTHER_CLASS)

IDS = ("AdamW", "SGD", "Adafactor", "Muon")

with_each = optimizers("assignments", [(ADAMW,), (SGD,), (ADAFACTOR,), (MUON, ADAMW_FOR_OTHERS)], ids=IDS)
of_matrices = optimizers("assignments", [(ADAMW,), (SGD,), (ADAFACTOR,), (MUON,)], ids=IDS)


@pytest.mark.must
@pytest.mark.with_extra("architectures")
@with_each
def test_gpt2(check: Check, assignments: tuple[Assignment, ...]) -> None:
    """GPT-2, with dropout, whose embedding is its head as well, trains as in the standard loop."""
    check(Plan("GPT2", assignments, FIVE_STEPS))


@pytest.mark.must
@pytest.mark.with_extra("architectures")
@with_each
def test_llama(check: Check, assignments: tuple[Assignment, ...]) -> None:
    """Llama, whose queries share keys and values, and whose embedding is its head, trains as in the standard loop."""
    check(Plan("Llama", assignments, FIVE_STEPS))


@pytest.mark.must
@pytest.mark.may_refuse("late")
@pytest.mark.with_extra("architectures")
@pytest.mark.parametrize("model", ["CheckpointedLlama", "ReentrantCheckpointedLlama"])
@with_each
def test_checkpointed_llama(check: Check, model: str, assignments: tuple[Assignment, ...]) -> None:
    """Llama under activation checkpointing, reentrant and not, trains as in the standard loop."""
    check(Plan(model, assignments, FIVE_STEPS))


@pytest.mark.must
@pytest.mark.with_extra("architectures")
@with_each
def test_mixtral(check: Check, assignments: tuple[Assignment, ...]) -> None:
    """Mixtral, with experts that no token of a batch goes to, trains as in the standard loop."""
    check(Plan("Mixtral", assignments, FIVE_STEPS))


@pytest.mark.must
@pytest.mark.with_extra("architectures")
@with_each
def test_mamba(check: Check, assignments: tuple[Assignment, ...]) -> None:
    """Mamba, a state space whose parameters are no weights and biases of layers, trains as in the standard loop."""
    check(Plan("Mamba", assignments, FIVE_STEPS))


@pytest.mark.must
@pytest.mark.with_extra("architectures")
@with_each
def test_t5(check: Check, assignments: tuple[Assignment, ...]) -> None:
    """T5, whose encoder, decoder and head share one embedding, trains as in the standard loop."""
    check(Plan("T5", assignments, FIVE_STEPS))


@pytest.mark.must
@pytest.mark.with_extra("architectures")
@with_each
def test_bert(check: Check, assignments: tuple[Assignment, ...]) -> None:
    """BERT, whose embedding is a part of its head, trains as in the standard loop."""
    check(Plan("BERT", assignments, FIVE_STEPS))


@pytest.mark.must
@pytest.mark.with_extra("architectures")
@with_each
def test_vit(check: Check, assignments: tuple[Assignment, ...]) -> None:
    """ViT, with a token and positions that are parameters themselves, trains as in the standard loop."""
    check(Plan("ViT", assignments, FIVE_STEPS))


@pytest.mark.must
@pytest.mark.with_extra("architectures")
@with_each
def test_resnet(check: Check, assignments: tuple[Assignment, ...]) -> None:
    """ResNet, whose buffers of batch norm move in each forward, trains as in the standard loop."""
    check(Plan("ResNet", assignments, FIVE_STEPS))


@pytest.mark.must
@pytest.mark.with_extra("architectures")
@with_each
def test_clip(check: Check, assignments: tuple[Assignment, ...]) -> None:
    """CLIP, two towers that meet in one loss, times a parameter without dimensions, trains as in the standard loop."""
    check(Plan("CLIP", assignments, FIVE_STEPS))


@pytest.mark.must
@pytest.mark.with_extra("architectures")
@with_each
def test_whisper(check: Check, assignments: tuple[Assignment, ...]) -> None:
    """Whisper, with frozen positions that the optimizer is given too, trains as in the standard loop."""
    check(Plan("Whisper", assignments, FIVE_STEPS))


@pytest.mark.must
@pytest.mark.with_extra("architectures")
@with_each
def test_wav2vec2(check: Check, assignments: tuple[Assignment, ...]) -> None:
    """Wav2Vec2, which leaves out layers at random and has a parametrized one, trains as in the standard loop."""
    check(Plan("Wav2Vec2", assignments, FIVE_STEPS))


@pytest.mark.must
@pytest.mark.with_extra("architectures")
@with_each
def test_unet(check: Check, assignments: tuple[Assignment, ...]) -> None:
    """The U-Net of a diffusion model, with connections that skip its middle, trains as in the standard loop."""
    check(Plan("UNet", assignments, FIVE_STEPS))


@pytest.mark.must
@pytest.mark.with_extra("architectures")
@with_each
def test_dit(check: Check, assignments: tuple[Assignment, ...]) -> None:
    """A diffusion transformer, whose layer norms depend on the time step, trains as in the standard loop."""
    check(Plan("DiT", assignments, FIVE_STEPS))


@pytest.mark.must
@pytest.mark.with_extra("architectures")
@of_matrices
def test_lora(check: Check, assignments: tuple[Assignment, ...]) -> None:
    """Llama with LoRA trains as in the standard loop; its base, which the optimizer is given too, is frozen."""
    check(Plan("LoRALlama", assignments, FIVE_STEPS))


@pytest.mark.must
@pytest.mark.with_extra("architectures")
@of_matrices
def test_quantized_lora(check: Check, assignments: tuple[Assignment, ...]) -> None:
    """LoRA beside frozen weights of 4 bits trains as in the standard loop."""
    trained = tuple(replace(assignment, params=TRAINED) for assignment in assignments)
    check(Plan("QuantizedLoRALlama", trained, FIVE_STEPS))


@pytest.mark.must
@pytest.mark.may_refuse("at attachment")
@pytest.mark.with_extra("architectures")
def test_quantized_weights_given(check: Check) -> None:
    """An optimizer that is given frozen weights of 4 bits as well, which can have no gradient, leaves them alone."""
    check(Plan("QuantizedLoRALlama", (ADAMW,), FIVE_STEPS))


@pytest.mark.must
@pytest.mark.needs("accumulate")
@pytest.mark.with_extra("architectures")
@pytest.mark.parametrize("model", ["GPT2", "ReentrantCheckpointedLlama", "Mixtral", "Wav2Vec2"])
@with_each
def test_micro_batches(check: Check, model: str, assignments: tuple[Assignment, ...]) -> None:
    """Three micro-batches are one step, with tied weights, checkpointing, experts, and layers left out at random."""
    check(Plan(model, assignments, (MicroBatch(), MicroBatch(), Backward()) * 2))


@pytest.mark.must
@pytest.mark.needs("backward_clipped")
@pytest.mark.with_extra("architectures")
@pytest.mark.parametrize("model", ["GPT2", "Mixtral", "Wav2Vec2", "CLIP"])
@with_each
def test_clipping(check: Check, model: str, assignments: tuple[Assignment, ...]) -> None:
    """Gradients are clipped by their total norm before any parameter is stepped."""
    check(Plan(model, assignments, (ClippedBackward(0.1),) * 5))
