"""One training run's state and its steps.

`Trainer` owns the model, the optimisers and the step counter; two trainers with the same settings
and data go through the same states on the same machine, also when one of them was saved and loaded
in between. It does not write files or print: `train.py` does.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from induction import held_afterwards, held_at_first, start_copying, start_with_induction
from llama_torch import LlamaConfig, LlamaForCausalLM
from optimiser import build_optimisers, learning_rate_factor, set_learning_rates
from token_stream import TokenStream
from torch import Tensor, nn
from torch.nn import functional

SHORT_BLOCK = 512  # tokens
LONG_BLOCK = 1024  # tokens
LONG_BLOCK_SHARE = 0.15
FIRST_PHASE_SHARE = 0.42  # of the steps, in which the induction heads do not learn
MAX_GRADIENT_NORM = 1.0


@dataclass(frozen=True)
class Settings:
    """What decides a run's outcome besides the data."""

    seed: int
    steps: int
    batch_tokens: int


def block_length(step: int, steps: int) -> int:
    """Tokens a sequence has: short ones first, as they are faster, long ones at the end."""
    return LONG_BLOCK if step >= (1 - LONG_BLOCK_SHARE) * steps else SHORT_BLOCK


def mean_loss(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy in nats a token; inputs and targets are `[batch, time]`."""
    logits = model(inputs).float()  # [batch, time, vocab]
    return functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


def can_compile(device: torch.device) -> bool:
    """Whether `torch.compile` has what it needs; on a processor that is a C++ compiler."""
    return device.type == "cuda" or any(map(shutil.which, ("g++", "clang++")))


class Trainer:
    """Model, optimisers and step counter of a run."""

    def __init__(
        self, config: LlamaConfig, stream: TokenStream, settings: Settings, device: torch.device
    ) -> None:
        torch.manual_seed(settings.seed)
        self.settings = settings
        self.step = 0
        self.device = device
        self.model = LlamaForCausalLM(config)
        start_with_induction(self.model)
        self.model.to(device)
        self.hold()
        self._stream = stream
        self._optimisers = build_optimisers(self.model)
        self._tokens_per_pass = 1024 if device.type == "cpu" else 32768
        self._loss = torch.compile(mean_loss, dynamic=False) if can_compile(device) else mean_loss

    def advance(self) -> float:
        """Do one step and return its mean loss in nats a token."""
        settings = self.settings
        if self.step == self.second_phase:
            torch.manual_seed(settings.seed)
            start_copying(self.model)
            self.hold()
        inputs, targets = self.batch(self.step)  # [batch, time]
        rows = max(1, self._tokens_per_pass // inputs.shape[1])
        total = torch.zeros((), device=self.device)  # []
        for x, y in zip(torch.split(inputs, rows), torch.split(targets, rows), strict=True):
            with torch.autocast(self.device.type, torch.bfloat16, self.device.type == "cuda"):
                loss = self._loss(self.model, x, y) * (x.numel() / inputs.numel())  # []
            torch.autograd.backward(loss)
            total += loss.detach()
        nn.utils.clip_grad_norm_(self.model.parameters(), MAX_GRADIENT_NORM)
        set_learning_rates(self._optimisers, learning_rate_factor(self.step, settings.steps))
        for optimiser in self._optimisers:
            optimiser.step()
            optimiser.zero_grad()
        self.restore_held()
        self.step += 1
        return total.item()

    @property
    def second_phase(self) -> int:
        """The step from which copying heads learn where to look; see `induction.py`."""
        return round(FIRST_PHASE_SHARE * self.settings.steps)

    def hold(self) -> None:
        """Remember the weights that this phase of the run must not change."""
        held = held_at_first if self.step < self.second_phase else held_afterwards
        self._held = [(part, part.detach().clone()) for part in held(self.model)]

    @torch.no_grad()
    def restore_held(self) -> None:
        """Put the held weights back to what they were."""
        for part, value in self._held:
            part.copy_(value)

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets of a step, each `[batch, time]`."""
        time = block_length(step, self.settings.steps)
        count = self.settings.batch_tokens // time
        rows = self._stream.read(step * count, count, time + 1).astype(np.int64)
        tokens = torch.from_numpy(rows).to(self.device)  # [batch, time + 1]
        return tokens[:, :-1], tokens[:, 1:]

    def state_dict(self) -> dict[str, Any]:
        """All that `load_state_dict` needs to go on from here."""
        return {
            "step": self.step,
            "model": self.model.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self._optimisers],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state that `state_dict` returned."""
        self.step = state["step"]
        self.model.load_state_dict(state["model"])
        for optimiser, saved in zip(self._optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        self.hold()
