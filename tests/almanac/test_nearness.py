import json
from pathlib import Path

from thalweg.almanac import entries, importance_of
from thalweg.almanac.corpus import entry_text
from thalweg.almanac.nearness import FAR, SAME, nearest, overlaps

VECTORS = Path(__file__).parents[1] / "vectors" / "almanac"


def test_an_entry_is_nearest_to_itself_and_as_important():
    for entry in entries():
        near, importance = nearest(entry_text(entry))
        assert near[0].slug == entry.slug and near[0].score == 1.0
        assert importance >= importance_of(entry.slug).score
        assert len(near) <= 3 and all(n.why.startswith("shared: ") for n in near)


def test_the_constants_are_what_is_said_of_them():
    data = json.loads((VECTORS / "arxiv_expected.json").read_text())
    recorded = {p["id"]: p for v in data.values() for p in v["papers"]}
    strange = sorted(
        max(o for o, _ in overlaps(f"{p['title']}. {p['abstract']}").values())
        for p in recorded.values()
    )
    assert strange[len(strange) // 2] < FAR < strange[-1] < (FAR + SAME) / 2


def test_nothing_is_near_to_nothing():
    assert nearest("") == ((), 1)
    assert nearest("zzz qqq") == ((), 1)
    assert nearest("A survey of bicycle lanes") == ((), 1)  # one word in common is chance
