"""The package's own front: lazy names, version, errors."""

import re

import pytest

import thalweg
from thalweg.errors import unknown_name


def test_every_name_that_is_promised_is_there():
    for name in thalweg.__all__:
        if name not in ("LightningCallback", "TransformersCallback"):  # test_callbacks has them
            assert getattr(thalweg, name) is not None
    assert set(thalweg.__all__) <= set(dir(thalweg))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        thalweg.nothing  # noqa: B018


def test_version():
    assert re.fullmatch(r"\d+\.\d+\.\d+", thalweg.__version__)


def test_unknown_names_list_the_three_nearest():
    error = unknown_name("part", "hed.weight", ["head.weight", "head.bias", "body.weight", "x"])
    assert isinstance(error, thalweg.ThalwegError) and isinstance(error, RuntimeError)
    nearest = str(error).partition("nearest: ")[2].split(", ")
    assert nearest[0] == "'head.weight'" and len(nearest) == 3
    assert "there is none here" in str(unknown_name("part", "x", []))
