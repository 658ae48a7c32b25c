"""Faults that a vLLM plugin plants into an engine: in its decoding alone, or in its scores alone.

Each moves a share S of the probability to the whole vocabulary, evenly, so that the total variation
to the sound distribution is S. The greedy choice stays the same.

- `decode:S`: the distribution that tokens are drawn from, as a broken kernel, a captured graph or a
  KV cache of too few bits would move it. Prefill is untouched.
- `score:S`: the log-probabilities of a prompt. Decoding is untouched.
"""

import os
from typing import Any

FAULT = "PENUMBRA_TEST_FAULT"


def plant() -> None:
    """Entry point of `vllm.general_plugins`; called in every process of the engine."""
    kind, _, share = os.environ.get(FAULT, "").partition(":")
    if kind == "decode":
        _plant_decode_fault(float(share))
    elif kind == "score":
        _plant_score_fault(float(share))


def _plant_decode_fault(share: float) -> None:
    import torch
    from vllm.v1.sample.sampler import Sampler

    sample = Sampler.forward

    def forward(self: Any, logits: Any, *arguments: Any, **named: Any) -> Any:
        sound = torch.softmax(logits.to(torch.float32), dim=-1)
        moved = (1 - share) * sound + share / logits.shape[-1]
        return sample(self, moved.log(), *arguments, **named)

    Sampler.forward = forward


def _plant_score_fault(share: float) -> None:
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner

    score = GPUModelRunner._get_prompt_logprobs_dict

    def scored(self: Any, *arguments: Any, **named: Any) -> Any:
        found = score(self, *arguments, **named)
        tokens = self.model_config.get_vocab_size()
        for rows in found.values():
            rows.logprobs.exp_().mul_(1 - share).add_(share / tokens).log_()
        return found

    GPUModelRunner._get_prompt_logprobs_dict = scored
