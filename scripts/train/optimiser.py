"""Muon and AdamW for the decoder, with one learning-rate schedule for both.

Muon (Jordan et al., 2024) takes the matrices inside the decoder layers; AdamW takes the embedding
and the norms. `torch.optim.Muon` is not used because it orthogonalises in bfloat16, which is many
times slower than float32 on a processor without bfloat16 instructions. `train.py` drives both.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
from llama_torch import EMBEDDING_SCALE
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

WARM_UP_STEPS = 20
# Gradients of most of the embedding's rows are 2e-6 to 8e-5 (root mean square). Those of tokens
# that do not occur, 4e-7, always point the same way and without this would move a row as far.
EMBEDDING_EPSILON = 1e-5
NEWTON_SCHULZ_COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def orthogonalise(matrices: Tensor, iterations: int = 5) -> Tensor:
    """Bring every matrix of `[count, rows, columns]` near the closest semi-orthogonal one.

    A quintic Newton-Schulz iteration; afterwards all singular values are near 1.
    """
    a, b, c = NEWTON_SCHULZ_COEFFICIENTS
    tall = matrices.shape[-2] > matrices.shape[-1]
    x: Tensor = matrices.mT if tall else matrices  # [count, short, long]
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)  # [count, short, long]
    for _ in range(iterations):
        gram = x @ x.mT  # [count, short, short]
        x = a * x + (b * gram + c * gram @ gram) @ x  # [count, short, long]
    return x.mT if tall else x


class Muon(Optimizer):
    """Momentum whose update is orthogonalised, for matrices only.

    Matrices of one shape are orthogonalised together. `lr` is the size of an update's singular
    values for a square matrix; a tall one gets `sqrt(rows / columns)` times as much.
    """

    def __init__(
        self, matrices: Iterable[nn.Parameter], lr: float, momentum: float, weight_decay: float
    ) -> None:
        super().__init__(matrices, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every matrix from its gradient."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
            for matrix in group["params"]:
                by_shape[matrix.shape].append(matrix)
            for shape, matrices in by_shape.items():
                updates = [self.accelerate(matrix, group["momentum"]) for matrix in matrices]
                scale = max(1.0, shape[0] / shape[1]) ** 0.5
                for matrix, update in zip(
                    matrices, orthogonalise(torch.stack(updates)), strict=True
                ):
                    matrix.mul_(1 - group["lr"] * group["weight_decay"])
                    matrix.add_(update, alpha=-group["lr"] * scale)

    def accelerate(self, matrix: nn.Parameter, momentum: float) -> Tensor:
        """The Nesterov momentum of the matrix's gradient, `[rows, columns]`."""
        assert matrix.grad is not None
        state = self.state[matrix]
        if not state:
            state["velocity"] = torch.zeros_like(matrix)
        velocity = state["velocity"].lerp_(matrix.grad, 1 - momentum)  # [rows, columns]
        return matrix.grad.lerp(velocity, momentum)  # [rows, columns]


def build_optimisers(model: nn.Module) -> list[Optimizer]:
    """Muon for the matrices of the decoder layers, AdamW for all else.

    Each group keeps its peak rate as `peak_lr`, which `set_learning_rates` scales.
    """
    named = list(model.named_parameters())
    hidden = [p for name, p in named if p.ndim == 2 and "embed" not in name]
    embedding = [p for name, p in named if "embed" in name]
    norms = [p for name, p in named if p.ndim == 1 and name != "model.norm.weight"]
    final_norm = [p for name, p in named if name == "model.norm.weight"]
    adamw_groups = [
        {
            "params": embedding,
            "lr": 3e-3 * EMBEDDING_SCALE,
            "weight_decay": 0.0,
            "eps": EMBEDDING_EPSILON,
        },
        {"params": norms, "lr": 3e-3, "weight_decay": 0.0},
        {"params": final_norm, "lr": 3e-3 / EMBEDDING_SCALE, "weight_decay": 0.0},
    ]
    optimisers: list[Optimizer] = [
        Muon(hidden, lr=0.02, momentum=0.95, weight_decay=0.1),
        AdamW(adamw_groups, betas=(0.9, 0.95), eps=1e-10),
    ]
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["peak_lr"] = group["lr"]
    return optimisers


def learning_rate_factor(step: int, steps: int, cool_down: int) -> float:
    """Warm-up over the first steps, then constant, and a linear fall over the last `cool_down`.

    A constant rate lets a run be as long as there is time (Hagele et al., 2024).
    """
    return min(1.0, (step + 1) / WARM_UP_STEPS, (steps - step) / max(1, cool_down))


def set_learning_rates(optimisers: list[Optimizer], factor: float) -> None:
    """Set every group's rate to `factor` times its peak."""
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["lr"] = group["peak_lr"] * factor
