"""From sensors to the line of the program that drives them: encoder and transformer decoder.

The second stage of the source document (gcode-training-results): a decoder over the memory of
``fedpdm.models.sensor_encoder.Encoder``, with a head for each part of a token
(``fedpdm.data.programs``). A grammar leaves out at each step what may not follow, so whatever is
decoded is a line of the language. Shapes: B windows, T time steps, F features, M the memory's
width, L tokens of a line, P parts of a token, V = 62 values of all parts, W lines of a beam.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import ClassVar

import torch
from torch import Tensor, nn

from fedpdm.data import programs
from fedpdm.data.programs import COMMAND, LENGTH, NUMBER, PARAMETER, PARTS, SIZES, SPECIAL
from fedpdm.errors import ModelError
from fedpdm.models.layers import check_windows, require_sizes, require_windows
from fedpdm.models.registry import register
from fedpdm.models.sensor_encoder import EMBEDDING, Encoder

VALUES = sum(SIZES)
PLACES = [slice(end - size, end) for size, end in zip(SIZES, accumulate(SIZES), strict=True)]
"""Where the values of each part stand among all V."""
STEPS = LENGTH - 1
"""Tokens that are decoded: all but the start."""
OUTPUTS = STEPS * VALUES
FORBIDDEN = -1e4
"""Logit of a value that may not follow: it never wins, and is a finite number."""


class Grammar(nn.Module):
    """What may follow a line's tokens so far."""

    takes: Tensor
    signed: Tensor

    def __init__(self) -> None:
        super().__init__()
        signed = [name in programs.SIGNED for name in programs.PARAMETERS]
        self.register_buffer("takes", torch.from_numpy(programs.takes()), persistent=False)
        self.register_buffer("signed", torch.tensor(signed), persistent=False)

    def types(self, tokens: Tensor) -> Tensor:
        """Return (B, 4) bool: which types may follow (B, t, P) tokens."""
        count, kind = tokens.shape[1], tokens[:, -1, 0]
        if count == 1:
            return (torch.arange(SIZES[0], device=tokens.device) == COMMAND).expand(len(tokens), -1)
        done = (kind == COMMAND) | (kind == NUMBER)  # a command or a parameter is complete
        room = count + 3 <= LENGTH  # for a parameter, its number and the end
        more = done & self.later(tokens).any(dim=1) & room
        ends = done | (kind == SPECIAL)
        return torch.stack([ends, torch.zeros_like(ends), more, kind == PARAMETER], dim=1)

    def later(self, tokens: Tensor) -> Tensor:
        """Return (B, parameters) bool: which the line's command takes and had none of yet."""
        command, last = tokens[:, :, 1].amax(dim=1), tokens[:, :, 2].amax(dim=1)
        places = torch.arange(SIZES[2], device=tokens.device)
        allowed: Tensor = self.takes[command] & (places > last.unsqueeze(1))
        return allowed

    def values(self, tokens: Tensor, kind: Tensor) -> Tensor:
        """Return (B, V) bool: which values a next token of a type (B,) may have."""
        legal = torch.zeros((len(tokens), VALUES), dtype=torch.bool, device=tokens.device)
        legal[:, PLACES[0]] = kind.unsqueeze(1) == torch.arange(SIZES[0], device=tokens.device)
        for place in PLACES[1:]:
            legal[:, place.start] = True  # says nothing
        command, parameter, number = (
            (kind == one).unsqueeze(1) for one in (COMMAND, PARAMETER, NUMBER)
        )
        every = torch.arange(SIZES[1], device=tokens.device) > 0
        legal[:, PLACES[1]] = torch.where(command, every, legal[:, PLACES[1]])
        legal[:, PLACES[2]] = torch.where(parameter, self.later(tokens), legal[:, PLACES[2]])
        signed = self.signed[tokens[:, -1, 2]]
        signs = torch.stack([torch.zeros_like(signed), torch.ones_like(signed), signed], dim=1)
        legal[:, PLACES[3]] = torch.where(number, signs, legal[:, PLACES[3]])
        for place in PLACES[4:]:
            legal[:, place] |= number
        return legal


@register("program_decoder")
class ProgramDecoder(nn.Module):
    """Encoder, and a transformer decoder that writes the line of a program token by token.

    Takes windows (B, T, F); returns (B, 6 * 62): for each token that it decoded the logits of all
    parts, given the tokens that it decoded before; what the grammar forbids is ``FORBIDDEN``, so
    the largest value of each part is the token. With ``beam`` above 1 the line is the likeliest
    that a beam search finds, and its values stand out as 0. ``remember`` and ``decode`` are what
    training takes (``fedpdm.training.teacher_forcing``). The embedding of a token is the sum of
    those of its parts.
    Memory: Linear(M -> d_model), LayerNorm, GELU. Pre-norm layers, ffn 4 * d_model.
    Heads: Linear(d_model -> d_model / 2), LayerNorm, GELU, Linear.
    Names: ``encoder.…`` (as in ``sensor_encoder``), ``memory``, ``embeddings``, ``decoder``,
    ``norm``, ``output.type_head`` … ``output.digits_head``.

    Attributes:
        blind: whether memory is replaced by zeros: a language model that sees no sensor.

    Raises:
        ModelError: built for another task or for tabular data, or with sizes that do not fit;
            (forward) an input that is no window.
    """

    encoder_names: ClassVar[tuple[str, ...]] = ("encoder",)
    shape: ClassVar[dict[str, int]] = {"num_classes": OUTPUTS}
    """The only number of outputs that it has."""
    angles: Tensor

    def __init__(
        self,
        input_dim: int,
        num_classes: int,
        sequence_length: int | None = 64,
        *,
        levels: Sequence[int] = (),
        width: int = 128,
        hidden_size: int = 64,
        encoder_layers: int = 2,
        embedding_dim: int = EMBEDDING,
        d_model: int = 192,
        n_heads: int = 8,
        n_layers: int = 4,
        dropout_rate: float = 0.1,
        beam: int = 1,
    ) -> None:
        super().__init__()
        require_sizes(d_model=d_model, n_heads=n_heads, n_layers=[n_layers], beam=[beam])
        require_windows("program_decoder", sequence_length)
        if num_classes != OUTPUTS:
            raise ModelError(
                f"model=program_decoder writes programs, {OUTPUTS} outputs and not {num_classes}: "
                "use task=program"
            )
        if d_model % n_heads or d_model % 2:
            raise ModelError(
                f"model.config.d_model={d_model} must be even and a multiple of n_heads={n_heads}"
            )
        if not 1 <= n_layers <= 100 or beam > 64:
            raise ModelError("model.config: at most 100 n_layers and a beam of 64 are made")
        self.input_dim, self.beam, self.blind = input_dim, beam, False
        self.encoder = Encoder(
            input_dim, levels, width, hidden_size, encoder_layers, embedding_dim, dropout_rate
        )
        self.idle = self.encoder.idle
        self.memory = nn.Sequential(
            nn.Linear(2 * hidden_size, d_model), nn.LayerNorm(d_model), nn.GELU()
        )
        self.embeddings = nn.ModuleList(nn.Embedding(size, d_model) for size in SIZES)
        self.register_buffer("angles", _angles(LENGTH, d_model), persistent=False)
        layer = nn.TransformerDecoderLayer(
            d_model, n_heads, 4 * d_model, dropout_rate, "gelu", batch_first=True, norm_first=True
        )
        self.decoder = nn.TransformerDecoder(layer, n_layers)
        for parameter in self.decoder.parameters():  # its layers are copies of one
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)
        self.norm = nn.LayerNorm(d_model)
        self.output = nn.ModuleDict(
            {f"{name}_head": _head(d_model, size) for name, size in HEADS.items()}
        )
        self.grammar = Grammar()
        self.n_heads = n_heads

    def extra_repr(self) -> str:
        return f"n_heads={self.n_heads}, beam={self.beam}"

    def remember(self, x: Tensor) -> Tensor:
        """Return the (B, T, d_model) memory of ``x``, (B, T, F)."""
        check_windows("program_decoder", x, self.input_dim)
        if self.blind:
            size = self.memory[0].in_features
            seen = x.new_zeros((*x.shape[:2], int(size)))  # type: ignore[arg-type]
        else:
            seen = self.encoder(x)
        memory: Tensor = self.memory(seen)
        return memory

    def decode(self, memory: Tensor, tokens: Tensor) -> Tensor:
        """Return (B, t, V) logits of the tokens that follow each of (B, t, P) tokens."""
        count = tokens.shape[1]
        parts = [embed(tokens[:, :, k]) for k, embed in enumerate(self.embeddings)]
        given = torch.stack(parts).sum(dim=0) + self.angles[:count]
        ahead = torch.ones((count, count), dtype=torch.bool, device=tokens.device).triu(1)
        hidden = self.norm(self.decoder(given, memory, tgt_mask=ahead, tgt_is_causal=True))
        return torch.cat([head(hidden) for head in self.output.values()], dim=-1)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, (L - 1) * V) of the lines that are decoded from ``x``, (B, T, F)."""
        memory = self.remember(x)
        alike = self.blind and not self.training  # one line stands for all
        memory = memory[:1] if alike else memory
        found = self._greedy(memory) if self.beam == 1 else self._searched(memory)
        return found.flatten(1).expand(len(x), -1)

    def _greedy(self, memory: Tensor) -> Tensor:
        """Return (B, L - 1, V) logits of the likeliest token at each step."""
        tokens = torch.zeros((len(memory), 1, len(PARTS)), dtype=torch.long, device=memory.device)
        steps = []
        for _ in range(STEPS):
            logits = self.decode(memory, tokens)[:, -1]
            types = logits[:, PLACES[0]].masked_fill(~self.grammar.types(tokens), FORBIDDEN)
            legal = self.grammar.values(tokens, types.argmax(dim=1))
            legal[:, PLACES[0]] = self.grammar.types(tokens)
            logits = logits.masked_fill(~legal, FORBIDDEN)
            steps.append(logits)
            tokens = torch.cat([tokens, tokens_of(logits).unsqueeze(1)], dim=1)
        return torch.stack(steps, dim=1)

    def _searched(self, memory: Tensor) -> Tensor:
        """Return (B, L - 1, V): 0 at the values of the line that a beam search finds best."""
        count, beam = len(memory), self.beam
        memory = memory.repeat_interleave(beam, dim=0)
        size = (count * beam, 1, len(PARTS))
        tokens = torch.zeros(size, dtype=torch.long, device=memory.device)
        score = memory.new_full((count, beam), -math.inf)
        score[:, 0] = 0.0  # all lines begin alike: one of them goes on
        for _ in range(STEPS):
            logits = self.decode(memory, tokens)[:, -1]
            after, gain = self._followers(logits, tokens)
            total = (score.view(-1, 1) + gain).view(count, -1)
            score, chosen = total.topk(beam, dim=1)
            each = gain.shape[1]
            rows = torch.arange(count, device=memory.device).unsqueeze(1) * beam + chosen // each
            added = after.view(count, -1, len(PARTS)).gather(
                1, chosen.unsqueeze(-1).expand(-1, -1, len(PARTS))
            )
            tokens = torch.cat([tokens[rows.flatten()], added.view(-1, 1, len(PARTS))], dim=1)
        best = tokens.view(count, beam, LENGTH, len(PARTS))[:, 0, 1:]
        parts = [
            best[..., k : k + 1] == torch.arange(size, device=best.device)
            for k, size in enumerate(SIZES)
        ]
        return (1 - torch.cat(parts, dim=-1).to(memory.dtype)) * FORBIDDEN

    def _followers(self, logits: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Return (B, N, P) tokens that may follow, and their (B, N) log-probabilities.

        They are the end, every command, every parameter, and the W likeliest numbers; what may not
        follow has minus infinity.
        """
        types = _log_softmax(logits[:, PLACES[0]], self.grammar.types(tokens))
        found, gains = [], []
        for kind, part in ((SPECIAL, None), (COMMAND, 1), (PARAMETER, 2)):
            size = 1 if part is None else SIZES[part]
            token = torch.zeros((len(logits), size, len(PARTS)), dtype=torch.long).to(tokens)
            token[:, :, 0] = kind
            gain = types[:, kind].unsqueeze(1)
            if part is not None:
                legal = self.grammar.values(tokens, torch.full_like(tokens[:, 0, 0], kind))
                token[:, :, part] = torch.arange(size, device=tokens.device)
                gain = gain + _log_softmax(logits[:, PLACES[part]], legal[:, PLACES[part]])
            found.append(token)
            gains.append(gain)
        numbers, gain = self._numbers(logits, tokens)
        found.append(numbers)
        gains.append(types[:, NUMBER].unsqueeze(1) + gain)
        return torch.cat(found, dim=1), torch.cat(gains, dim=1)

    def _numbers(self, logits: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Return the (B, N, P) likeliest numbers and their (B, N) log-probabilities.

        Sign and digits are independent given what is before them, so the best W of the first parts
        are enough to find the best W of one part more.
        """
        legal = self.grammar.values(tokens, torch.full_like(tokens[:, 0, 0], NUMBER))
        token = torch.zeros((len(logits), 1, len(PARTS)), dtype=torch.long).to(tokens)
        token[:, :, 0] = NUMBER
        gain = logits.new_zeros((len(logits), 1))
        for part in range(3, len(PARTS)):
            own = _log_softmax(logits[:, PLACES[part]], legal[:, PLACES[part]])
            total = (gain.unsqueeze(2) + own.unsqueeze(1)).flatten(1)
            gain, chosen = total.topk(min(self.beam, total.shape[1]), dim=1)
            before = (chosen // SIZES[part]).unsqueeze(-1).expand(-1, -1, len(PARTS))
            token = token.gather(1, before)
            token[:, :, part] = chosen % SIZES[part]
        return token, gain


HEADS = {"type": SIZES[0], "command": SIZES[1], "parameter": SIZES[2], "sign": SIZES[3],
         "digits": sum(SIZES[4:])}  # fmt: skip
"""How many values each head tells; the heads' values stand in the order of the parts."""


def tokens_of(logits: Tensor) -> Tensor:
    """Return (…, P) tokens, the largest of (…, V) logits in each part."""
    return torch.stack([logits[..., place].argmax(dim=-1) for place in PLACES], dim=-1)


def _head(width: int, size: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(width, width // 2), nn.LayerNorm(width // 2), nn.GELU(),
        nn.Linear(width // 2, size),
    )  # fmt: skip


def _log_softmax(logits: Tensor, legal: Tensor) -> Tensor:
    """Return log-probabilities of what is legal, minus infinity for the rest."""
    known = logits.masked_fill(~legal, FORBIDDEN).log_softmax(dim=1)
    return known.masked_fill(~legal, -math.inf)


def _angles(length: int, width: int) -> Tensor:
    """Return (length, width) sines and cosines of positions (Vaswani et al. 2017, section 3.5)."""
    place = torch.arange(length).unsqueeze(1)
    rate = torch.exp(torch.arange(0, width, 2) * (-math.log(10_000.0) / width))
    found = torch.zeros(length, width)
    found[:, 0::2], found[:, 1::2] = torch.sin(place * rate), torch.cos(place * rate)
    return found
