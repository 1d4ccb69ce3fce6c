"""Laws: what training conserves, why, and how it breaks."""

from thalweg.laws.broken import Hyper, LawState, advance
from thalweg.laws.law import Law, Piece

__all__ = ["Hyper", "Law", "LawState", "Piece", "advance"]
