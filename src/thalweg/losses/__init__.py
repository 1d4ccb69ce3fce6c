"""Losses and penalties."""

from thalweg.losses.grokalign import GrokAlign as GrokAlign
from thalweg.losses.grokalign import jacobian_norm as jacobian_norm

__all__ = ["GrokAlign", "jacobian_norm"]
