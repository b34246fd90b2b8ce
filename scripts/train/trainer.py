"""One training run's state and its steps.

`Trainer` owns the model, a running average of its weights, the optimisers and the step counter; two
trainers with the same settings and data go through the same states on the same machine, also when
one of them was saved and loaded in between. It does not write files or print: `train.py` does.
"""

from __future__ import annotations

import copy
import shutil
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from chat_tokenizer import SPECIAL_TOKENS
from induction import held_afterwards, held_at_first, start_copying, start_with_induction
from llama_torch import LlamaConfig, LlamaForCausalLM
from optimiser import build_optimisers, learning_rate_factor, set_learning_rates
from stutter import stutter
from token_stream import PADDING, TokenStream
from torch import Tensor, nn
from torch.nn import functional

MAX_GRADIENT_NORM = 1.0
AVERAGED_STEPS = 400  # how far back the running average of the weights reaches at most, about
AVERAGED_SHARE = 8  # at first it reaches back over this part of the run, one eighth
REQUEST_WEIGHT = 0.2  # of a request's tokens in the loss: they are read, not written
AGAIN_WEIGHT = 8.0  # of not saying the last token again
MOST_AGAIN = 0.999  # probability, so that the loss stays finite
COPY_WEIGHT = 4.0  # of both tokens of a pair in an answer that is in the request, too
APART = 20.0  # least length of a token's row across the mean of all rows; most have 20 to 30
USER, ASSISTANT = (SPECIAL_TOKENS.index(f"<|{role}|>") for role in ("user", "assistant"))


@dataclass(frozen=True)
class Settings:
    """What decides a run's outcome besides the data.

    `first_phase` is the number of steps in which the induction heads do not learn; a run that
    starts from trained weights has none. `peak` scales all learning rates, which fall to nearly
    zero over the last `cool_down` steps.
    """

    seed: int
    steps: int
    batch_tokens: int
    first_phase: int
    peak: float
    cool_down: int


def loss_weights(rows: Tensor) -> Tensor:
    """How much the token after each position counts, `[batch, time]` for `[batch, time + 1]`.

    Little within a request, much where a pair of a request's tokens is repeated in an answer, on
    both of them, and nothing within the padding that follows a row's document.
    """
    tokens = rows[:, :-1]  # [batch, time]
    counter = torch.arange(tokens.shape[1], device=rows.device)  # [time]
    request = torch.where(tokens == USER, counter, -1).cummax(1).values  # [batch, time]
    answer = torch.where(tokens == ASSISTANT, counter, -1).cummax(1).values  # [batch, time]
    asked = request > answer  # [batch, time]
    weights = torch.where(asked, REQUEST_WEIGHT, 1.0)  # [batch, time]
    repeated = repeats(rows, asked)  # [batch, time]
    begun = functional.pad(repeated[:, 1:], (0, 1))  # [batch, time]: the next pair is repeated
    weights[(repeated | begun) & (answer > request)] = COPY_WEIGHT
    return weights.masked_fill((tokens == PADDING) & (counter > 0), 0.0)  # [batch, time]


def repeats(rows: Tensor, asked: Tensor) -> Tensor:
    """Where a token and the next one are a pair that is also in the row's requests.

    `rows` are `[batch, time + 1]`; `asked`, which says where requests are, and the result are
    `[batch, time]`.
    """
    pairs = rows[:, :-1] * (1 << 32) + rows[:, 1:]  # [batch, time]
    return torch.stack([torch.isin(p, p[a]) for p, a in zip(pairs, asked, strict=True)])


def mean_loss(model: nn.Module, inputs: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Weighted sum of losses in nats; all but the model are `[batch, time]`.

    A loss is the target's cross-entropy and, where the target is another token, the unlikelihood of
    the last token (Welleck et al., 2020): with tied embeddings a token is what follows itself most
    easily, and "a golden golden golden" has no end.
    """
    log_probs = model(inputs).float().log_softmax(dim=-1)  # [batch, time, vocab]
    right, again = (
        log_probs.gather(2, tokens[:, :, None])[:, :, 0] for tokens in (targets, inputs)
    )  # [batch, time]
    unlikelihood = -torch.log1p(-again.exp().clamp(max=MOST_AGAIN))  # [batch, time]
    losses = -right + AGAIN_WEIGHT * unlikelihood.where(inputs != targets, 0.0)  # [batch, time]
    return (losses * weights).sum()


def can_compile(device: torch.device) -> bool:
    """Whether `torch.compile` has what it needs; on a processor that is a C++ compiler."""
    return device.type == "cuda" or any(map(shutil.which, ("g++", "clang++")))


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether products of bfloat16 are faster; on a processor that has tiles (AMX) they are."""
    return device.type == "cuda" or torch.cpu._is_amx_tile_supported()


class Trainer:
    """Model, averaged weights, optimisers, data and step counter of a run."""

    def __init__(
        self, config: LlamaConfig, stream: TokenStream, settings: Settings, device: torch.device
    ) -> None:
        torch.manual_seed(settings.seed)
        self.settings = settings
        self.step = 0
        self.tokens_seen = 0
        self.device = device
        self.model = LlamaForCausalLM(config)
        start_with_induction(self.model)
        self.model.to(device)
        self.averaged = copy.deepcopy(self.model)
        self.hold()
        self.stream = stream
        self._optimisers = build_optimisers(self.model)
        self._in_bfloat16 = multiplies_bfloat16(device)
        self._loss = torch.compile(mean_loss, dynamic=True) if can_compile(device) else mean_loss

    def start_from(self, weights: dict[str, Tensor]) -> None:
        """Begin with trained weights instead of new ones."""
        self.model.load_state_dict(weights)
        self.averaged.load_state_dict(weights)
        self.hold()

    def advance(self) -> float:
        """Do one step and return its mean loss in nats a token, requests counted less."""
        settings = self.settings
        if self.step == settings.first_phase and settings.first_phase:
            torch.manual_seed(settings.seed)
            start_copying(self.model)
            self.hold()
        rng = np.random.default_rng((settings.seed, self.step))
        passes, weights = [], []
        for read in self.stream.read():
            rows, extra = (torch.from_numpy(x) for x in stutter(read.astype(np.int64), rng))
            passes.append(rows)
            weights.append(loss_weights(rows).masked_fill(extra[:, 1:], 0.0))  # [rows, time]
        sum_of_weights = sum(w.sum() for w in weights)
        total = torch.zeros((), device=self.device)  # []
        for rows, w in zip(passes, weights, strict=True):
            inputs, targets, share = (
                t.to(self.device) for t in (rows[:, :-1], rows[:, 1:], w / sum_of_weights)
            )
            with torch.autocast(self.device.type, torch.bfloat16, self._in_bfloat16):
                loss = self._loss(self.model, inputs, targets, share)  # []
            torch.autograd.backward(loss)
            total += loss.detach()
            self.tokens_seen += int(w.count_nonzero())
        nn.utils.clip_grad_norm_(self.model.parameters(), MAX_GRADIENT_NORM)
        factor = learning_rate_factor(self.step, settings.steps, settings.cool_down)
        set_learning_rates(self._optimisers, settings.peak * factor)
        for optimiser in self._optimisers:
            optimiser.step()
            optimiser.zero_grad()
        self.restore_held()
        self.spread()
        self.step += 1
        self.average()
        return total.item()

    @torch.no_grad()
    def average(self) -> None:
        """Move the averaged weights towards the present ones."""
        share = max(1 / AVERAGED_STEPS, AVERAGED_SHARE / (self.step + AVERAGED_SHARE))
        for mean, weight in zip(self.averaged.parameters(), self.model.parameters(), strict=True):
            mean.lerp_(weight, share)

    def hold(self) -> None:
        """Remember the weights that this phase of the run must not change."""
        held = held_at_first if self.step < self.settings.first_phase else held_afterwards
        self._held = [(part, part.detach().clone()) for part in held(self.model)]

    @torch.no_grad()
    def restore_held(self) -> None:
        """Put the held weights back to what they were."""
        for part, value in self._held:
            part.copy_(value)

    @torch.no_grad()
    def spread(self) -> None:
        """Keep the rows of rare tokens apart.

        Every token that is not the next one pushes its row away from the hidden state, so that the
        rows of tokens that hardly occur end up alike, along the mean of all rows (Gao et al., 2019,
        "Representation degeneration"). As a row is a token's input and its output weight, such a
        token can neither be read nor copied. What a row has across the mean is what it does not
        share, and that stays as long as other tokens have it.
        """
        table = self.model.model.embed_tokens.weight  # [vocab, hidden]
        mean = functional.normalize(table.mean(dim=0), dim=0)  # [hidden]
        along = (table @ mean)[:, None] * mean  # [vocab, hidden]
        across = table - along  # [vocab, hidden]
        lengths = torch.linalg.vector_norm(across, dim=1, keepdim=True)  # [vocab, 1]
        table.copy_(along + across * (APART / lengths).clamp(min=1.0))

    def state_dict(self) -> dict[str, Any]:
        """All that `load_state_dict` needs to go on from here."""
        return {
            "step": self.step,
            "tokens_seen": self.tokens_seen,
            "model": self.model.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self._optimisers],
            "stream": self.stream.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state that `state_dict` returned."""
        self.step, self.tokens_seen = state["step"], state["tokens_seen"]
        self.model.load_state_dict(state["model"])
        self.averaged.load_state_dict(state["averaged"])
        for optimiser, saved in zip(self._optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        self.stream.load_state_dict(state["stream"])
        self.hold()
