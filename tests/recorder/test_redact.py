"""No secret reaches a run header."""

import pytest

from thalweg.recorder.redact import HIDDEN, redact_arguments, redact_environment

SECRET = "hf_abcdefghijklmnopqrstuvwxyz"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--token", "s3cret"],
        ["--token=s3cret"],
        ["--hf-token", "s3cret"],
        ["--api_key=s3cret"],
        ["-password", "s3cret"],
        ["wandb.api_key=s3cret"],
        ["--db", "postgres://me:s3cret@db/x"],
        ["--wandb-key", "s3cret"],
        ["--auth", "s3cret"],
        ["--aws-secret-access-key", "s3cret"],
    ],
)
def test_secrets_by_name_are_hidden(arguments):
    out = " ".join(redact_arguments(["train.py", *arguments, "--lr", "0.1"]))
    assert "s3cret" not in out
    assert HIDDEN in out
    assert out.endswith("--lr 0.1")


@pytest.mark.parametrize(
    "value",
    [
        SECRET,
        "sk-abcdefghijklmnopqrstuvwx",
        "ghp_abcdefghijklmnopqrstuvwxyz0123",
        "AKIAABCDEFGHIJKLMNOP",
        "xoxb-1234567890-abcdef",
        "eyJhbGciOiJIUzI1.eyJzdWIiOiIxMjM0.abc",
    ],
)
def test_secrets_by_their_looks_are_hidden(value):
    assert value not in " ".join(redact_arguments(["--resume-from", value, f"x={value}"]))


def test_ordinary_arguments_stay():
    ordinary = ["train.py", "--max-tokens", "512", "--tokenizer", "bpe", "--num_tokens=8",
                "--keys", "4", "--author", "me", "--lr=3e-4", "--token_count", "9"]  # fmt: skip
    assert redact_arguments(ordinary) == ordinary


def test_environment():
    out = redact_environment(
        {"HOME": "/root", "OMP_NUM_THREADS": "1", "WANDB_API_KEY": "x", "TORCH_URL": "a://b:c@d"}
    )
    assert out == {
        "OMP_NUM_THREADS": "1",
        "TORCH_URL": f"a://b:{HIDDEN}@d",
        "WANDB_API_KEY": HIDDEN,
    }
