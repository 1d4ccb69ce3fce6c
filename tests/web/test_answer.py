"""JSON with what JSON lacks, and without."""

import json
import math
from types import MappingProxyType

from thalweg.web.answer import as_json


def test_what_json_lacks_is_said_in_words():
    data = {"a": [1.5, math.nan, (math.inf, {"b": -math.inf})], "c": MappingProxyType({"é": None})}
    assert json.loads(as_json(data)) == {
        "schema_version": 1,
        "data": {"a": [1.5, "nan", ["inf", {"b": "-inf"}]], "c": {"é": None}},
    }


def test_what_it_has_is_the_same_either_way():
    data = {"a": [1, 2.0, None, "x</script>", True], "b": {"c": ()}}
    mixed = as_json({"data": data, "n": math.nan})  # is walked through for the nan
    assert json.loads(as_json(data))["data"] == json.loads(mixed)["data"]["data"]
    assert b'"\xc3\xa9"' in as_json("é") and as_json("\ud800")  # never a crash of encoding
