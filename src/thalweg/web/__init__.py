"""The web page: the almanac and the runs of one folder, served on this machine.

Server-rendered, readable without JavaScript; nothing here imports torch.
"""

from typing import TYPE_CHECKING

from thalweg._lazy import attach

if TYPE_CHECKING:
    from thalweg.web.app import create_app as create_app

__getattr__, __dir__, __all__ = attach(  # pyright: ignore[reportUnsupportedDunderAll]
    __name__, {"app": ["create_app"]}
)
