"""What verbs print: JSON documents, numbers, sparklines and lines of figures in 80 columns."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

__all__ = ["NAME_WIDTH", "figures", "number", "print_json", "sparkline", "width"]

#: Names up to this many characters share a line with their figures; longer ones get their own.
NAME_WIDTH = 20
_BLOCKS = "▁▂▃▄▅▆▇█"


def print_json(data: Any) -> None:
    """Print ``{"schema_version": 1, "data": …}``; what JSON lacks as "nan", "inf", "-inf"."""
    print(json.dumps({"schema_version": 1, "data": _plain(data)}, indent=2, ensure_ascii=False))


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value


def width() -> int:
    """Columns to fill: the terminal's, at least 80 and at most 120; 80 where there is none."""
    return min(max(shutil.get_terminal_size((80, 24)).columns, 80), 120)


def number(value: float | None) -> str:
    """A figure in at most 9 characters, ``-`` for none.

    Example:
        >>> number(0.00123456), number(float("nan")), number(None)
        ('0.00123', 'nan', '-')
    """
    if value is None:
        return "-"
    text = f"{value:.3g}"
    return text if len(text) <= 9 else f"{value:.2g}"  # -1.2e-300


def figures(name: str, cells: Sequence[str], tail: str = "", *, count: str = "") -> list[str]:
    """Lines for one row: a name, figures in columns, a count, and what follows.

    Example:
        >>> figures("loss", ["1", "2"], "▁█")
        ['loss                         1         2 ▁█']
    """
    line = "".join(f"{cell:>10}" for cell in cells) + (f"{count:>8}" if count else "")
    line = f"{line} {tail}".rstrip()
    if len(name) <= NAME_WIDTH:
        return [name.ljust(NAME_WIDTH) + line]
    return [name, " " * NAME_WIDTH + line]


def sparkline(values: np.ndarray, columns: int) -> str:
    """A series as blocks: low ▁ to high █, ``×`` where a value is not finite.

    Each column stands for a stretch of the series and shows the value of it that lies farthest
    from the median of the whole, so that a spike of one step is seen among thousands.

    Args:
        values: (T,) any floats.
        columns: at most this many characters.

    Example:
        >>> import numpy as np
        >>> sparkline(np.array([0.0, 1.0, 2.0, np.nan, 7.0]), 10)
        '▁▂▃×█'
    """
    import numpy as np

    if not len(values):
        return ""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return "×" * min(columns, len(values))
    middle, low, high = np.median(finite), finite.min(), finite.max()
    line = []
    for stretch in np.array_split(values, min(columns, len(values))):
        if not np.isfinite(stretch).all():
            line.append("×")
            continue
        value = stretch[np.abs(stretch - middle).argmax()]
        # Halves first: high - low may overflow.
        level = 0.0 if high == low else (value / 2 - low / 2) / (high / 2 - low / 2)
        line.append(_BLOCKS[min(int(level * 8), 7)])
    return "".join(line)
