"""Stop early and look ahead: at one step of a training, is the predicted checkpoint the better one?

Source: Z. Wei, S. Zhu, Y. Chen, C. Huang, T. Huang, Y. Meng 2026, arXiv 2605.21468; choosing by
evaluation is ours, as a prediction can be far off.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from thalweg.trajectory.delta_store import DeltaStore
from thalweg.trajectory.extrapolation import fit_rank1
from thalweg.trajectory.foresight import Foresight, foresight

__all__ = ["Extrapolated", "ExtrapolationCallback"]


@dataclass(frozen=True)
class Extrapolated:
    """What was found at the cut.

    Attributes:
        step: of the cut.
        score: of the weights there.
        scores: predicted step → score of the prediction.
        best: the predicted step that was better than the weights, or None.
        foresight: of the furthest prediction.
    """

    step: int
    score: float
    scores: dict[int, float]
    best: int | None
    foresight: Foresight


class ExtrapolationCallback:
    """Keeps checkpoints of a training; at ``cut`` it predicts later ones and evaluates them.

    The evaluation chooses among the predictions, so it must not be the one that is reported in the
    end: give it validation data.

    Args:
        model: that is trained; its weights when this is made are the base.
        evaluate: model → score, on validation data; called with predicted weights in place.
        cut: step at which to predict; at least four kept checkpoints lie before it.
        targets: steps to predict, later than ``cut``.
        every: steps between kept checkpoints.
        rank: directions per tensor.
        path: folder for the checkpoints; default: in memory.
        maximize: higher scores are better.
        load: leave the model with the best weights; else it is left as it was.

    Attributes:
        result: None before the cut.

    Raises:
        ValueError: if the cut leaves fewer than four checkpoints or no target is later.

    Example:
        >>> import torch
        >>> model = torch.nn.Linear(1, 1, bias=False)
        >>> _ = torch.nn.init.zeros_(model.weight)
        >>> ahead = ExtrapolationCallback(
        ...     model, lambda m: -abs(m.weight.item() - 10), cut=4, targets=[9, 20]
        ... )
        >>> for _ in range(4):
        ...     _ = model.weight.data.add_(1.0)
        ...     ahead.after_step()
        >>> ahead.result.score, ahead.result.best, round(model.weight.item(), 4)
        (-6.0, 9, 9.0)
    """

    def __init__(
        self,
        model: nn.Module,
        evaluate: Callable[[nn.Module], float],
        *,
        cut: int,
        targets: Sequence[int],
        every: int = 1,
        rank: int = 1,
        path: str | Path | None = None,
        maximize: bool = True,
        load: bool = True,
    ) -> None:
        if every < 1 or cut // every < 4 or not targets or min(targets) <= cut:
            raise ValueError(
                "ExtrapolationCallback: need 4 checkpoints up to the cut and targets after it, "
                f"got cut={cut}, every={every}, targets={list(targets)}"
            )
        self.result: Extrapolated | None = None
        self._model, self._evaluate = model, evaluate
        self._cut, self._targets, self._every, self._rank = cut, list(targets), every, rank
        self._sign, self._load, self._step = (1 if maximize else -1), load, 0
        self._store = DeltaStore({} if path is None else path)
        self._store.append(0, model.state_dict())

    def after_step(self) -> None:
        """Call after every optimizer step.

        Raises:
            ValueError: at the cut, if weights are not finite.
        """
        self._step += 1
        if self._step > self._cut:
            return
        if self._step % self._every == 0:
            self._store.append(self._step, self._model.state_dict())
        if self._step == self._cut:
            self._look_ahead()

    def _look_ahead(self) -> None:
        fit = fit_rank1(self._store, rank=self._rank)
        now = copy.deepcopy(self._model.state_dict())
        score = self._evaluate(self._model)
        scores: dict[int, float] = {}
        best, weights = None, now
        try:
            for target in self._targets:
                predicted = fit.predict(target)
                self._put(predicted)
                scores[target] = self._evaluate(self._model)
                leading = score if best is None else scores[best]
                if self._sign * scores[target] > self._sign * leading:
                    best, weights = target, predicted
        except BaseException:
            weights = now
            raise
        finally:
            self._put(weights if self._load else now)
        ahead = foresight(fit, max(self._targets))
        self.result = Extrapolated(self._step, score, scores, best, ahead)

    def _put(self, weights: dict[str, Tensor]) -> None:
        self._model.load_state_dict(weights)
