"""When the black box is kept: a figure that is not finite, or a loss far above its own past.

The spike is a robust z-score: how far a loss lies above the median of the last 128, in units of
1.4826 times their median absolute deviation, which for a normal distribution is one standard
deviation. A single outlier moves neither.
"""

from __future__ import annotations

import math
from collections import deque
from statistics import median

__all__ = ["SPIKE_Z", "Alarm"]

#: A mini-batch loss with heavy tails reaches 6 to 8 in a healthy training of some thousand steps.
SPIKE_Z = 12.0
#: And it must be that much above the median: a loss that hardly moves has hardly a deviation.
SPIKE_RATIO = 1.5
WINDOW, FEWEST, EVERY = 128, 32, 16


class Alarm:
    """Hears the losses of one optimizer, in order.

    Attributes:
        limit: a loss above this is a spike; inf until there are enough.

    Example:
        >>> alarm = Alarm()
        >>> _ = [alarm.hear(1.0 + 0.01 * (i % 7)) for i in range(64)]
        >>> alarm.hear(float("nan"))
        ('nonfinite', 'the loss is nan')
        >>> alarm.hear(1.05), alarm.hear(9.0)[0]
        (None, 'spike')
    """

    def __init__(self) -> None:
        self.limit = math.inf
        self._last: deque[float] = deque(maxlen=WINDOW)
        self._count = 0
        self._middle = self._spread = 0.0

    def hear(self, loss: float) -> tuple[str, str] | None:
        """Takes in a loss; returns kind and description if it is an alarm."""
        if not math.isfinite(loss):
            return "nonfinite", f"the loss is {loss}"
        found = None
        if loss > self.limit:
            z = (loss - self._middle) / self._spread
            found = (
                "spike",
                f"the loss is {loss:.4g}, {z:.3g} robust standard deviations above the median "
                f"{self._middle:.4g} of the last {len(self._last)}",
            )
        self._last.append(loss)
        self._count += 1
        if self._count >= FEWEST and self._count % EVERY == 0:
            self._measure()
        return found

    def _measure(self) -> None:
        """Median and deviation, once in a while: they change slowly and cost a sort each."""
        middle = median(self._last)
        spread = 1.4826 * median(abs(x - middle) for x in self._last)
        self._middle, self._spread = middle, max(spread, 1e-3 * abs(middle), 1e-12)
        self.limit = max(
            middle + SPIKE_Z * self._spread, SPIKE_RATIO * middle if middle > 0 else -math.inf
        )
