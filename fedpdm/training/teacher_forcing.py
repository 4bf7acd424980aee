"""How a decoder of programs learns: each token from the true ones before it.

All heads of ``model=program_decoder`` are in the loss, each at the tokens that it is for. Weights
of the heads and the curriculum are those of the source's code, where they never acted (reference in
docs/decisions/031-programs-from-sensors.md). Shapes: B windows, t tokens, P parts of a token.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedpdm.data.programs import COMMAND, NUMBER, PARAMETER, SIZES, SPECIAL
from fedpdm.errors import ConfigError
from fedpdm.models.program_decoder import PLACES, tokens_of
from fedpdm.training.objective import LocalContext, Objective

SAMPLING_STEPS = 1000
STEPS = "steps_trained"
"""What a site remembers: how many steps it trained so far."""
WEIGHTS = (1.0, 2.5, 1.5, 1.0, 0.25, 0.25, 0.25, 0.25)
"""Weight of the loss of each part; the digits together weigh 1."""
COARSE = 6
"""The parts before this one are learned in the second stage of a curriculum: sign, two digits."""


class TeacherForcing(Objective):
    """Cross-entropy of every head, given the true tokens before.

    Args:
        curriculum: steps after which sign and first digits, and after which all digits are
            learned too; None: all from the start.
        sampling: share of tokens before that are the decoder's own guesses at the end
            (Bengio et al. 2015; both passes at once as in Mihaylova and Martins 2019).
        sampling_steps: steps in which that share rises to it from 0, in equal parts.
        gamma: focal loss of types, and of commands with 1 more (Lin et al. 2017); 0: neither.
        label_smoothing: share of the truth that is spread over all values of a part.

    A site counts its own steps, so it is as far as its training is.

    Raises:
        ConfigError: a value is out of its range; (check_model) the model writes no programs.
    """

    def __init__(
        self,
        curriculum: Sequence[int] | None = None,
        sampling: float = 0.0,
        sampling_steps: int = SAMPLING_STEPS,
        gamma: float = 0.0,
        label_smoothing: float = 0.0,
    ) -> None:
        if curriculum is not None and (
            len(curriculum) != 2 or not 0 <= curriculum[0] <= curriculum[1]
        ):
            raise ConfigError(
                f"objective.curriculum={list(curriculum)} must be two ascending numbers of steps"
            )
        for name, value, most in (("sampling", sampling, 1.0), ("gamma", gamma, 10.0)):
            if not 0 <= value <= most:
                raise ConfigError(f"objective.{name}={value} must be at least 0 and at most {most}")
        if not 0 <= label_smoothing < 1:
            raise ConfigError(
                f"objective.label_smoothing={label_smoothing} must be at least 0 and below 1"
            )
        if sampling_steps < 1:
            raise ConfigError(f"objective.sampling_steps={sampling_steps} must be at least 1")
        self.curriculum, self.sampling, self.sampling_steps = curriculum, sampling, sampling_steps
        self.gamma, self.label_smoothing = gamma, label_smoothing
        self.idle = (
            [f"objective.sampling_steps={sampling_steps}: objective.sampling above 0 uses it"]
            if not sampling and sampling_steps != SAMPLING_STEPS else []
        )  # fmt: skip

    def check_model(self, model: nn.Module) -> None:
        if not (hasattr(model, "remember") and hasattr(model, "decode")):
            raise ConfigError("task=program needs model=program_decoder, which writes programs")

    def losses(self, model: nn.Module, x: Tensor, y: Tensor, context: LocalContext) -> Tensor:
        parts = self.parts(model, x, y, context)
        found: Tensor = torch.stack(
            [weight * part for weight, part in zip(WEIGHTS, parts, strict=True)]
        ).sum(dim=0)
        return found

    def parts(self, model: nn.Module, x: Tensor, y: Tensor, context: LocalContext) -> list[Tensor]:
        """Return (B,) losses of each part, 0 for those that a curriculum leaves for later."""
        tokens, learned, share = y.long(), len(SIZES), 0.0
        if model.training:
            done = int(context.memory.get(STEPS, torch.zeros(1)))
            context.memory[STEPS] = torch.full((1,), done + 1.0)
            share = self.sampling * min(done / self.sampling_steps, 1.0)
            if self.curriculum is not None:
                stages = (3, COARSE, len(SIZES))  # structure, coarse numbers, all
                learned = stages[sum(done >= limit for limit in self.curriculum)]
        memory, given, true = model.remember(x), tokens[:, :-1], tokens[:, 1:]  # type: ignore[operator]
        if share > 0:
            given = self._mixed(model, memory, given, share, context.generator)
        logits = model.decode(memory, given)  # type: ignore[operator]
        kind = true[:, :, 0]
        # A line goes on to its end, which is told; what follows it is padding.
        before = functional.pad(kind[:, :-1], (1, 0), value=COMMAND)
        line = (before != SPECIAL).long().cumprod(dim=1).bool()
        masks = [line, kind == COMMAND, kind == PARAMETER, *[kind == NUMBER] * (len(SIZES) - 3)]
        gammas = [self.gamma, self.gamma + 1.0 if self.gamma else 0.0, *[0.0] * (len(SIZES) - 2)]
        return [
            self._each(logits[..., place], true[..., k], masks[k], gammas[k])
            if k < learned
            else logits.new_zeros(len(logits))
            for k, place in enumerate(PLACES)
        ]

    def _each(self, logits: Tensor, true: Tensor, mask: Tensor, gamma: float) -> Tensor:
        """Return (B,) mean losses of a part over the tokens that it is for."""
        each = functional.cross_entropy(
            logits.transpose(1, 2), true, reduction="none", label_smoothing=self.label_smoothing
        )
        if gamma:
            known = logits.log_softmax(dim=-1).gather(-1, true.unsqueeze(-1)).squeeze(-1)
            each = each * (-torch.expm1(known)).clamp_min(1e-12) ** gamma
        return (each * mask).sum(dim=1) / mask.sum(dim=1).clamp_min(1)

    @staticmethod
    def _mixed(
        model: nn.Module, memory: Tensor, given: Tensor, share: float, generator: torch.Generator
    ) -> Tensor:
        """Return (B, t, P) tokens of which a share is the decoder's own guess, never the first."""
        with torch.no_grad():
            guessed = tokens_of(model.decode(memory, given))[:, :-1]  # type: ignore[operator]
        drawn = torch.rand(guessed.shape[:2], generator=generator).to(given.device) < share
        drawn &= given[:, 1:, 0] != SPECIAL  # what follows the end stays padding
        mixed = torch.where(drawn.unsqueeze(-1), guessed, given[:, 1:])
        return torch.cat([given[:, :1], mixed], dim=1)
