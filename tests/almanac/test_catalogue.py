import pytest

from thalweg import ThalwegError
from thalweg.almanac import entries, get
from thalweg.almanac.catalogue import study_entries

SLUGS = """
conservation-laws geometric-deep-learning muon-hamiltonian ska gradient-accumulation
sgd-dynamical-stability large-learning-rates generalization-dynamics stable-spam bilevel-bo-rep
early-learning-regularization adamo-isometry grokalign hypernetwork-mip wide-cnn-kernel
intrinsic-dimension intrinsic-dimension-finetuning execution-manifold relex local-linear-structure
opd-geometry rlvr-off-principals coso sculpting-subspaces stability-gap fscil-bag-of-tricks coin-ema
care-moe continual-learning-survey dppn clfd-snode shesha matching-principle malignant-tail hamjepa
information-koopman invariance-transfer spd-congruence hyper-plus-plus rl-diagnosis stratified-grpo
gated-kalmanet lightning-attention latent-flow-matching stable-unlearning almanac
""".split()


def test_every_result_has_an_entry():
    assert sorted(e.slug for e in entries()) == sorted(SLUGS)


def test_every_entry_makes_claims_and_no_evidence_means_untested():
    for entry in entries():
        assert entry.claims, entry.slug
        assert entry.topics, entry.slug
        if not entry.implemented:
            assert entry.verdict == "untested", entry.slug


def test_filters():
    laws = entries(kind="law")
    assert "conservation-laws" in [e.slug for e in laws] and len(laws) < len(entries())
    assert get("conservation-laws") in entries(topic="symmetry")
    assert len(entries(verdict="untested")) < len(entries())


def test_a_study_knows_its_entries():
    assert [e.slug for e in study_entries("broken_laws")] == ["conservation-laws"]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: get("conservation-law"), "nearest: 'conservation-laws'"),
        (lambda: entries(kind="lore"), "unknown kind 'lore'"),
        (lambda: entries(topic="symetry"), "nearest: 'symmetry'"),
        (lambda: entries(verdict="maybe"), "unknown verdict"),
    ],
)
def test_unknown_names_list_the_nearest(call, said):
    with pytest.raises(ThalwegError, match=said):
        call()
