"""A small Llama in plain torch whose state is laid out as Hugging Face's `LlamaForCausalLM`."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own habit

from penumbra.serve.demo import tokens


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes; every in-feature is a multiple of 128, the group of the int4 kernels."""

    layers: int = 4
    hidden: int = 256
    intermediate: int = 512
    heads: int = 8
    rope_theta: float = 10_000.0
    norm_epsilon: float = 1e-5

    @property
    def head_size(self) -> int:
        """Features per attention head."""
        return self.hidden // self.heads


class Attention(nn.Module):  # type: ignore[misc]  # torch is untyped here
    """Causal self-attention with rotary positions."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.q_proj = nn.Linear(shape.hidden, shape.hidden, bias=False)
        self.k_proj = nn.Linear(shape.hidden, shape.hidden, bias=False)
        self.v_proj = nn.Linear(shape.hidden, shape.hidden, bias=False)
        self.o_proj = nn.Linear(shape.hidden, shape.hidden, bias=False)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        """[rows, length, hidden] to the same."""
        rows, length, hidden = x.shape
        q, k, v = (
            projection(x).view(rows, length, self.heads, -1).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = _rotate(q, rotation), _rotate(k, rotation)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        output: Tensor = self.o_proj(mixed.transpose(1, 2).reshape(rows, length, hidden))
        return output


class FeedForward(nn.Module):  # type: ignore[misc]  # torch is untyped here
    """The gated feed-forward block."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.hidden, shape.intermediate, bias=False)
        self.up_proj = nn.Linear(shape.hidden, shape.intermediate, bias=False)
        self.down_proj = nn.Linear(shape.intermediate, shape.hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[..., hidden] to the same."""
        output: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return output


class Block(nn.Module):  # type: ignore[misc]  # torch is untyped here
    """One layer: attention, then feed-forward, each behind a norm and around a residual."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(shape.hidden, eps=shape.norm_epsilon)
        self.self_attn = Attention(shape)
        self.post_attention_layernorm = nn.RMSNorm(shape.hidden, eps=shape.norm_epsilon)
        self.mlp = FeedForward(shape)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        """[rows, length, hidden] to the same."""
        x = x + self.self_attn(self.input_layernorm(x), rotation)
        output: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return output


class Llama(nn.Module):  # type: ignore[misc]  # torch is untyped here
    """The decoder with tied embeddings; parameters carry Hugging Face's names less `model.`."""

    def __init__(self, shape: Shape, generator: torch.Generator) -> None:
        super().__init__()
        self.shape = shape
        self.embed_tokens = nn.Embedding(tokens.VOCABULARY_SIZE, shape.hidden)
        self.layers = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = nn.RMSNorm(shape.hidden, eps=shape.norm_epsilon)
        # Residual branches start small, so that depth does not grow the stream at the outset.
        small = 0.02 / (2 * shape.layers) ** 0.5
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                deviation = small if name.endswith(("o_proj.weight", "down_proj.weight")) else 0.02
                nn.init.normal_(parameter, std=deviation, generator=generator)
        frequency = shape.rope_theta ** (-torch.arange(0, shape.head_size, 2) / shape.head_size)
        angle = torch.outer(torch.arange(tokens.POSITIONS).float(), frequency)
        self.register_buffer("cosine", torch.cat([angle, angle], -1).cos(), persistent=False)
        self.register_buffer("sine", torch.cat([angle, angle], -1).sin(), persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        """Token ids [rows, length] to the last hidden state [rows, length, hidden]."""
        length = ids.shape[1]
        x = self.embed_tokens(ids)
        rotation = (self.get_buffer("cosine")[:length], self.get_buffer("sine")[:length])
        for layer in self.layers:
            x = layer(x, rotation)
        output: Tensor = self.norm(x)
        return output

    def logits(self, hidden: Tensor) -> Tensor:
        """[..., hidden] to [..., vocabulary]."""
        return F.linear(hidden, self.embed_tokens.weight)


def _rotate(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Rotates the two halves of each head against each other, as the Hugging Face layout does."""
    cosine, sine = (part.to(x.dtype) for part in rotation)
    left, right = x.chunk(2, -1)
    return x * cosine + torch.cat([-right, left], -1) * sine


def export(model: Llama, folder: Path) -> None:
    """Writes bf16 weights, configuration and tokenizer as a folder that vLLM loads."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {
        f"model.{name}": tensor.detach().to(torch.bfloat16).contiguous()
        for name, tensor in model.state_dict().items()
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    _write_json(folder / "config.json", _config(model.shape))
    generation = {
        "bos_token_id": tokens.BEGIN,
        "eos_token_id": [tokens.END],
        "pad_token_id": tokens.PAD,
    }
    _write_json(folder / "generation_config.json", generation)
    tokens.write_tokenizer(folder)


def describe(shape: Shape) -> dict[str, float | int]:
    """The sizes, for the training record."""
    return dataclasses.asdict(shape)


def _config(shape: Shape) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": tokens.VOCABULARY_SIZE,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.heads,
        "head_dim": shape.head_size,
        "hidden_act": "silu",
        "max_position_embeddings": tokens.POSITIONS,
        "rms_norm_eps": shape.norm_epsilon,
        "rope_theta": shape.rope_theta,
        "tie_word_embeddings": True,
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": tokens.BEGIN,
        "eos_token_id": tokens.END,
        "pad_token_id": tokens.PAD,
        "torch_dtype": "bfloat16",
    }


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
