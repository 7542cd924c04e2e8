"""What an evaluator that needs "model" may ask of the trained policy: no gradient, no dropout, no weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from bakeoff.rollout import Sequences, eval_mode, logps_as
from bakeoff.rows import blank_id, encode_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from bakeoff.roles import RoleModel

Ids = Sequence[Sequence[int]]
"""Token ids of N texts."""


class ModelView:
    """The policy of one cell. ``bidirectional`` says whether it was trained to attend to both sides."""

    def __init__(
        self,
        roles: RoleModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        bidirectional: bool,
        max_tokens: int,
        batch: int = 32,
    ) -> None:
        self.bidirectional = bidirectional
        self._roles, self._tokenizer = roles, tokenizer
        self._max_tokens, self._batch = max_tokens, batch

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text with EOS, the first ``max_tokens`` of a sequence in training."""
        return [encode_text(text, self._tokenizer)[: self._max_tokens] for text in texts]

    def logps(self, ids: Ids) -> list[list[float]]:
        """Log-probability in nats of each token but the first, given those before it; attention to the left."""
        found = []
        with self._roles.attending(both_sides=False):
            for rows in self._batches(ids):
                sequences = Sequences.pack(
                    [row[:1] for row in rows],
                    [row[1:] for row in rows],
                    pad=self._pad,
                    device=self._roles.device,
                )
                scores = logps_as(self._roles, "policy", sequences).tolist()
                found += [line[: len(row) - 1] for line, row in zip(scores, rows, strict=True)]
        return found

    def fill(self, ids: Ids, positions: Ids) -> list[list[int]]:
        """The most probable token at each of a text's ``positions`` (from 1 on), all of which are blanked at once.

        Read off the position before, attending as the policy was trained to: one that attends to the left does not
        see what follows.
        """
        blank = blank_id(self._tokenizer)
        blanked = [
            [blank if place in hidden else token for place, token in enumerate(row)]
            for row, hidden in zip(ids, map(set, positions), strict=True)
        ]
        found: list[list[int]] = []
        with torch.no_grad():
            for states, _ in self._hidden(blanked):
                for row in states:
                    before = torch.tensor(positions[len(found)], device=row.device) - 1
                    found.append(self._roles.lm_head(row[before]).argmax(-1).tolist())
        return found

    def embed(self, ids: Ids) -> np.ndarray[Any, np.dtype[np.float32]]:
        """(N, H): the mean of each text's last hidden states, attending as the policy was trained to."""
        means = []
        for states, mask in self._hidden(ids):
            weights = mask[..., None].float()
            means.append(((states.float() * weights).sum(1) / weights.sum(1)).cpu().numpy())
        return np.concatenate(means)

    @property
    def _pad(self) -> int:
        pad: Any = self._tokenizer.pad_token_id
        return int(pad)

    def _batches(self, ids: Ids) -> Iterator[Ids]:
        return (ids[start : start + self._batch] for start in range(0, len(ids), self._batch))

    @torch.no_grad()
    def _hidden(self, ids: Ids) -> Iterator[tuple[Tensor, Tensor]]:
        """Last hidden states (B, T, H) and mask (B, T) of one batch after another, padded on the right."""
        roles = self._roles
        for rows in self._batches(ids):
            tensors = [torch.tensor(row) for row in rows]
            padded = pad_sequence(tensors, batch_first=True, padding_value=self._pad).to(roles.device)
            mask = pad_sequence([torch.ones_like(row) for row in tensors], batch_first=True).to(roles.device)
            with eval_mode(roles.model), roles.use("policy"), roles.attending(both_sides=self.bidirectional):
                states = roles.hidden(padded, mask)
            yield states, mask
