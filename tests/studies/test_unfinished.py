from dataclasses import dataclass

from thalweg.studies import Figures
from thalweg.studies.unfinished import Unfinished


@dataclass(frozen=True)
class Config:
    lr: float = 0.1


def test_what_is_kept_is_read_back_and_torn_files_do_not_count():
    kept = Unfinished.of("x", Config(), "code", {"torch": "2"})
    figures = Figures({"a": float("inf")}, curves={"loss": ([1.0], [2.0])}, data_hash="d")
    kept.write(3, figures, 1.5)
    (kept.folder / "seed-4.json").write_text('{"seed": 4')
    found = kept.read()
    assert set(found) == {3} and found[3][1] == 1.5
    assert found[3][0].samples == figures.samples
    kept.clear()
    assert kept.read() == {} and not kept.folder.exists()


def test_all_that_figures_depend_on_is_in_the_name():
    places = {
        Unfinished.of(*a).folder
        for a in [
            ("x", Config(), "code", {"torch": "2"}),
            ("x", Config(0.2), "code", {"torch": "2"}),
            ("x", Config(), "other", {"torch": "2"}),
            ("x", Config(), "code", {"torch": "3"}),
            ("y", Config(), "code", {"torch": "2"}),
        ]
    }
    assert len(places) == 5
