"""Reports: a run as one self-contained HTML page."""

from thalweg.report.page import render as render
from thalweg.report.page import write as write

__all__ = ["render", "write"]
