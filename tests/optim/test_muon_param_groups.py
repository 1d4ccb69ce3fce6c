import pytest
import torch
from torch import nn

from thalweg.optim import Muon, muon_param_groups


def names(model, **options):
    """Names of the hidden parameters; checks that both groups are a partition."""
    hidden, rest = muon_param_groups(model, **options)
    assert (hidden["use_muon"], rest["use_muon"]) == (True, False)
    by_id = {id(p): n for n, p in model.named_parameters()}
    both = [id(p) for g in (hidden, rest) for p in g["params"]]
    trainable = [id(p) for p in model.parameters() if p.requires_grad]
    assert sorted(both) == sorted(trainable)
    return {by_id[id(p)] for p in hidden["params"]}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(9, 8)
        self.positions = nn.Parameter(torch.zeros(5, 8))
        self.conv = nn.Conv1d(8, 8, 3)
        self.attention = nn.MultiheadAttention(8, 2)
        self.norm = nn.LayerNorm((4, 8))
        self.gru = nn.GRU(8, 8)
        self.up = nn.ConvTranspose1d(8, 8, 2)
        self.mlp = nn.Linear(8, 8)
        self.head = nn.Linear(8, 9)


def test_hidden_matrices_only():
    hidden = {"conv.weight", "attention.in_proj_weight", "attention.out_proj.weight", "mlp.weight"}
    # A gain of a norm over two axes is named as a weight and has two dimensions.
    assert names(Net()) == hidden
    net = Net()
    net.mlp.weight.requires_grad_(False)
    assert names(net) == hidden - {"mlp.weight"}
    assert names(net, heads=["conv"]) == (hidden | {"head.weight"}) - {"mlp.weight", "conv.weight"}
    Muon([muon_param_groups(net)[0]])


def test_tied_heads_are_embeddings():
    net = nn.Sequential(nn.Embedding(9, 8), nn.Linear(8, 8), nn.Linear(8, 9, bias=False))
    net[2].weight = net[0].weight
    assert names(net) == {"1.weight"}


@pytest.mark.parametrize("tied", [True, False])
def test_a_causal_lm_of_transformers(tied):
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=16, hidden_size=8, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, tie_word_embeddings=tied,
    )  # fmt: skip
    found = names(LlamaForCausalLM(config))
    assert {n.split(".")[-2] for n in found} == {
        *("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    }


def test_nothing_hidden_and_unknown_heads():
    assert names(nn.Linear(3, 3)) == set()
    with pytest.raises(ValueError, match="unknown head 'haed'; nearest: 'head'"):
        muon_param_groups(Net(), heads=["haed"])
