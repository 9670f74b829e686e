"""Keeps the k best places of every unit over a stream of photos."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


class Top:
    """The k best places of every unit, at most one per photo; for equal scores the earlier photo wins.

    Attributes:
        scores: float32 [units, k], in descending order; -inf where there are fewer.
        places: int64 [units, k, 3]: photo, row, column.
    """

    def __init__(self, k: int) -> None:
        self.k = k
        self.scores = np.zeros((0, k), np.float32)
        self.places = np.zeros((0, k, 3), np.int64)

    def update(self, numbers: Sequence[int], values: np.ndarray) -> None:
        """Adds the outputs [B, units, height, width] for the photos with these numbers."""
        flat = values.reshape(*values.shape[:2], -1)
        flat = np.where(np.isfinite(flat), flat, -np.inf)
        best = flat.argmax(-1)  # the first of equal values
        scores = np.take_along_axis(flat, best[..., None], -1)[..., 0].T
        rows, columns = np.divmod(best.T, values.shape[3])
        pictures = np.broadcast_to(np.asarray(numbers, np.int64), rows.shape)
        self._take(scores, np.stack([pictures, rows, columns], -1))

    def merge(self, other: Top) -> None:
        """Adds the places that another instance kept for other photos."""
        self._take(other.scores, other.places)

    def _take(self, scores: np.ndarray, places: np.ndarray) -> None:
        if not len(self.scores):
            self.scores = np.full((len(scores), self.k), -np.inf, np.float32)
            self.places = np.full((len(scores), self.k, 3), np.iinfo(np.int64).max)
        scores = np.concatenate([self.scores, scores.astype(np.float32)], 1)
        places = np.concatenate([self.places, places], 1)
        order = np.lexsort((places[..., 0], -scores), axis=-1)[:, : self.k]
        self.scores = np.take_along_axis(scores, order, 1)
        self.places = np.take_along_axis(places, order[..., None], 1)

    def to_json(self) -> list[list[list[float]]]:
        """Returns [score, photo, row, column] of every place, per unit; `from_json` restores it exactly."""
        return [
            [
                [float(score), *map(int, place)]
                for score, place in zip(scores, places, strict=True)
                if np.isfinite(score)
            ]
            for scores, places in zip(self.scores, self.places, strict=True)
        ]

    @staticmethod
    def from_json(k: int, units: list[list[list[float]]]) -> Top:
        """Restores what `to_json` returned."""
        top = Top(k)
        top.scores = np.full((len(units), k), -np.inf, np.float32)
        top.places = np.full((len(units), k, 3), np.iinfo(np.int64).max)
        for unit, kept in enumerate(units):
            for rank, (score, *place) in enumerate(kept):
                top.scores[unit, rank] = score
                top.places[unit, rank] = place
        return top
