"""Keeps secrets out of run headers: in arguments, in the environment, in URLs.

A value is a secret by its name (``--api-key``, ``HF_TOKEN``) or by its looks (``hf_…``, ``sk-…``,
a JSON web token, the password in a URL). Redaction errs on the side of hiding.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

__all__ = ["HIDDEN", "redact_arguments", "redact_environment"]

HIDDEN = "[redacted]"

_NAME = re.compile(
    r"(api|access|secret|private|auth|signing|encryption|wandb|hf|openai|aws)[-_.]?key|token(?!i|s\b|s$|_?(count|len|size|per|num|id))"
    r"|secret|passw|passphrase|\bpwd\b|_pwd|credential|\bauth\b|authorization|cookie|bearer",
    re.IGNORECASE,
)
_VALUE = re.compile(
    r"\b(hf_[A-Za-z0-9]{16,}|sk-[A-Za-z0-9_-]{16,}|gh[pousr]_[A-Za-z0-9]{20,}"
    r"|github_pat_[A-Za-z0-9_]{20,}|glpat-[A-Za-z0-9_-]{16,}|xox[abprs]-[A-Za-z0-9-]{10,}"
    r"|AKIA[A-Z0-9]{16}|AIza[A-Za-z0-9_-]{30,}"
    r"|eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*)"
)
_URL_PASSWORD = re.compile(r"(\w+://[^\s/:@]*):[^\s/@]+@")

# What explains a training, out of everything that an environment holds.
_RELEVANT = re.compile(
    r"^(CUDA|NVIDIA|TORCH|PYTORCH|NCCL|GLOO|OMP|MKL|OPENBLAS|XLA|SLURM_(JOB|N|PROC)|HF_HUB_OFFLINE"
    r"|PYTHONHASHSEED|WORLD_SIZE|RANK|LOCAL_RANK|LOCAL_WORLD_SIZE|ACCELERATE|DEEPSPEED|WANDB)"
)


def redact_arguments(arguments: Sequence[str]) -> list[str]:
    """A command line with its secrets hidden.

    Args:
        arguments: as in ``sys.argv``: ``--name value``, ``--name=value`` and ``name=value``.

    Example:
        >>> redact_arguments(["train.py", "--api-key", "abc", "token=xyz", "--tokens", "8"])
        ['train.py', '--api-key', '[redacted]', 'token=[redacted]', '--tokens', '8']
    """
    out: list[str] = []
    hide_next = False
    for argument in arguments:
        name, equals, _ = argument.partition("=")
        if hide_next and not argument.startswith("-"):
            out.append(HIDDEN)
            hide_next = False
        elif equals and _NAME.search(name):
            out.append(f"{name}={HIDDEN}")
            hide_next = False
        else:
            out.append(_redact_text(argument))
            hide_next = not equals and argument.startswith("-") and bool(_NAME.search(argument))
    return out


def redact_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that explain a training, with their secrets hidden.

    Example:
        >>> redact_environment({"HOME": "/root", "RANK": "0", "WANDB_API_KEY": "abc"})
        {'RANK': '0', 'WANDB_API_KEY': '[redacted]'}
    """
    return {
        name: HIDDEN if _NAME.search(name) else _redact_text(value)
        for name, value in sorted(environment.items())
        if _RELEVANT.match(name)
    }


def _redact_text(text: str) -> str:
    return _URL_PASSWORD.sub(rf"\1:{HIDDEN}@", _VALUE.sub(HIDDEN, text))
