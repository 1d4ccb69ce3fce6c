import pytest
import torch
from torch import nn

from thalweg.laws import Law, Piece, known_laws
from thalweg.laws.trace import prepared
from thalweg.laws.verify import check_forward, verify_laws

X = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)).double()


def _net():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2))
    with torch.no_grad():
        model[0].bias.zero_()  # as many initialisations do
    return model


RIGHT = (Piece("2.weight", 1.0, 1), Piece("0.weight", -1.0), Piece("0.bias", -1.0))
WRONG = {
    "bias left out": (RIGHT[:2], "rows"),
    "sign": ((RIGHT[0], Piece("0.weight", 1.0), Piece("0.bias", 1.0)), "rows"),
    "weight": ((Piece("2.weight", 2.0, 1), *RIGHT[1:]), "rows"),
    "units of a ReLU cannot be mixed": (RIGHT, "gram"),
    "order of units": (
        (Piece("2.weight", 1.0, 1, torch.tensor([[1], [0], [2], [3], [4]])), *RIGHT[1:]),
        "rows",
    ),
    "column sums under any loss": ((Piece("2.weight", 1.0, 1),), "sum"),
}


def test_a_law_that_holds_is_verified():
    (law,) = verify_laws(prepared(_net()), X, [Law("right", "", RIGHT)])
    assert law.verified and law.defect < 1e-14


@pytest.mark.parametrize("name", WRONG)
def test_a_planted_wrong_law_is_found_out(name):
    pieces, form = WRONG[name]
    (law,) = verify_laws(prepared(_net()), X, [Law(name, "", pieces, form)])
    assert law.verified is False and law.defect > 1e-3


def test_a_wrong_proposal_is_dropped_and_listed(monkeypatch):
    import sys

    home = sys.modules["thalweg.laws.known_laws"]
    planted = Law("planted", "‖W‖²", (Piece("0.weight"),))
    proposed = home.balance_laws
    monkeypatch.setattr(home, "balance_laws", lambda *a: [*proposed(*a), planted])
    laws = known_laws(_net(), X)
    assert [law.name for law in laws] == ["balance: 2, 0"]
    (missing,) = laws.not_covered
    assert missing.module == "planted" and "failed its check" in missing.reason
    assert planted in known_laws(_net())  # without a sample nothing is checked


def test_a_forward_that_agrees_with_itself_passes():
    check_forward(prepared(nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.5))), X)


def test_dropout_forced_on_is_named():
    class Always(nn.Module):
        def forward(self, x):
            return nn.functional.dropout(x, 0.5, training=True)

    model = prepared(nn.Sequential(nn.Linear(3, 40), nn.Sequential(Always()), nn.Linear(40, 1)))
    with pytest.raises(ValueError, match=r"output of '1\.0' differed"):
        check_forward(model, X)
