"""Language models that people train, from the libraries of the extra `architectures`: tiny, with random weights.

Each class names the features of its architecture that matter for when a parameter may be stepped. The libraries are
imported when a model is built.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor, nn

from inbackward_conformance.catalogue.architecture import Architecture


class LanguageModel(Architecture):
    """A model that predicts tokens."""

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the loss of predicting each token."""
        loss: Tensor = self.model(input_ids=tokens, labels=tokens).loss
        return loss

    @staticmethod
    def batch(generator: Generator) -> tuple[Tensor, ...]:
        """Return (2, 12)."""
        return (torch.randint(0, 64, (2, 12), generator=generator),)


class GPT2(LanguageModel):
    """GPT-2: the embedding is the head as well, and there is dropout."""

    def build(self) -> Any:
        """Return two layers."""
        from transformers import GPT2Config, GPT2LMHeadModel

        config = GPT2Config(
            vocab_size=64, n_positions=16, n_embd=32, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=0
        )
        return GPT2LMHeadModel(config)


class Llama(LanguageModel):
    """Llama: queries share keys and values in groups, and the embedding is the head as well."""

    def build(self) -> Any:
        """Return two layers."""
        from transformers import LlamaConfig, LlamaForCausalLM

        config = LlamaConfig(
            vocab_size=64,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            tie_word_embeddings=True,
            use_cache=False,
        )
        return LlamaForCausalLM(config)


class CheckpointedLlama(Llama):
    """Llama with activation checkpointing: each layer is computed again in backward."""

    reentrant = False

    def __init__(self) -> None:
        super().__init__()
        self.model.activation_checkpointing_enable({"use_reentrant": self.reentrant})


class ReentrantCheckpointedLlama(CheckpointedLlama):
    """Llama with reentrant activation checkpointing: each layer runs a backward of its own."""

    reentrant = True


class Mixtral(LanguageModel):
    """Mixtral: a router chooses two of 32 experts for a token, so many experts get none."""

    def build(self) -> Any:
        """Return two layers."""
        from transformers import MixtralConfig, MixtralForCausalLM

        config = MixtralConfig(
            vocab_size=64,
            hidden_size=32,
            intermediate_size=16,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            num_local_experts=32,
            num_experts_per_tok=2,
            output_router_logits=True,
            use_cache=False,
        )
        return MixtralForCausalLM(config)

    @staticmethod
    def batch(generator: Generator) -> tuple[Tensor, ...]:
        """Return (1, 6)."""
        return (torch.randint(0, 64, (1, 6), generator=generator),)


class T5(LanguageModel):
    """T5: encoder and decoder share the embedding, and all layers of one the position bias of its first."""

    def build(self) -> Any:
        """Return two layers of each."""
        from transformers import T5Config, T5ForConditionalGeneration

        config = T5Config(
            vocab_size=64, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, decoder_start_token_id=0
        )
        return T5ForConditionalGeneration(config)


class BERT(LanguageModel):
    """BERT: the embedding is the head as well, which has a bias and layers of its own."""

    def build(self) -> Any:
        """Return two layers."""
        from transformers import BertConfig, BertForMaskedLM

        config = BertConfig(
            vocab_size=64,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=48,
            max_position_embeddings=16,
        )
        return BertForMaskedLM(config)


class Mamba(LanguageModel):
    """Mamba: a state space, scanned token by token, with parameters that a forward reads once a token."""

    def build(self) -> Any:
        """Return two layers."""
        from transformers import MambaConfig, MambaForCausalLM

        config = MambaConfig(vocab_size=64, hidden_size=32, state_size=4, num_hidden_layers=2, use_cache=False)
        return MambaForCausalLM(config)


class LoRALlama(Llama):
    """Llama with LoRA: the base is frozen, and small matrices beside two kinds of its layers train."""

    def build(self) -> Any:
        """Return the base with adapters."""
        from peft import LoraConfig, get_peft_model

        return get_peft_model(self.base(), LoraConfig(r=4, target_modules=["q_proj", "v_proj"], lora_dropout=0.1))

    def base(self) -> Any:
        """Return the base."""
        return super().build()


class QuantizedLoRALlama(LoRALlama):
    """Llama with LoRA whose frozen layers have weights of 4 bits, two in a byte: no floating-point tensors."""

    def base(self) -> Any:
        """Return the base, its linear layers replaced by layers with quantised weights."""
        from bitsandbytes.nn import Linear4bit, Params4bit

        model = super().base()
        for name, layer in list(model.model.named_modules()):
            if isinstance(layer, nn.Linear):
                quantised = Linear4bit(layer.in_features, layer.out_features, bias=False)
                quantised.weight = Params4bit(layer.weight.data, requires_grad=False)
                model.model.set_submodule(name, quantised)
        model.is_loaded_in_4bit = True
        return model.to("cpu")
