"""Studies: executable versions of published claims, and what runs them."""

from typing import TYPE_CHECKING

from thalweg._lazy import attach

if TYPE_CHECKING:
    from thalweg.studies.executor import Executor as Executor
    from thalweg.studies.executor import LocalExecutor as LocalExecutor
    from thalweg.studies.figures import Figures as Figures
    from thalweg.studies.ray_executor import RayExecutor as RayExecutor
    from thalweg.studies.runner import StudyRun as StudyRun
    from thalweg.studies.runner import run_study as run_study
    from thalweg.studies.study import Study as Study
    from thalweg.studies.study import available as available
    from thalweg.studies.study import load as load

__getattr__, __dir__, __all__ = attach(  # pyright: ignore[reportUnsupportedDunderAll]
    __name__,
    {
        "executor": ["Executor", "LocalExecutor"],
        "figures": ["Figures"],
        "ray_executor": ["RayExecutor"],
        "runner": ["StudyRun", "run_study"],
        "study": ["Study", "available", "load"],
    },
)
