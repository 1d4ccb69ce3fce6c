import pytest
import torch

from thalweg.trajectory import DeltaStore, SubspaceBasis, execution_basis, trajectory_pca


def states(T=8):
    g = torch.Generator().manual_seed(0)
    return [
        {
            "attn.in_proj_weight": torch.randn(12, 4, generator=g).cumsum(0),
            "attn.bias": torch.randn(12, generator=g),
            "out.weight": torch.randn(4, 4, generator=g),
        }
        for _ in range(T)
    ]


def test_blocks_are_the_components_of_each_matrix():
    path = states()
    basis = execution_basis(path, k=2)
    assert isinstance(basis, SubspaceBasis)
    assert list(basis.components) == [
        "attn.in_proj_weight[0]",
        "attn.in_proj_weight[1]",
        "attn.in_proj_weight[2]",
        "out.weight",
    ]
    assert basis.dim == 48 + 12 + 16 and basis.size == 8
    assert [start for start, _ in basis.blocks] == [0, 16, 32, 60]
    for i in range(3):
        part = torch.stack([s["attn.in_proj_weight"][4 * i : 4 * i + 4].reshape(-1) for s in path])
        alone = trajectory_pca(part)
        torch.testing.assert_close(
            basis.components[f"attn.in_proj_weight[{i}]"].explained,
            alone.explained,
            atol=1e-6,
            rtol=1e-5,
        )
        overlap = (alone.basis(part, 2) * basis.blocks[i][1]).sum(0).abs()
        torch.testing.assert_close(overlap, torch.ones(2).double(), atol=1e-5, rtol=0)


def test_orthonormal_as_they_stand():
    basis = execution_basis(states(), k=3)
    B = basis.dense()
    torch.testing.assert_close(B.T @ B, torch.eye(12).double(), atol=1e-7, rtol=0)
    signs = torch.linalg.qr(B).R.diagonal()
    torch.testing.assert_close(signs.abs(), torch.ones(12).double(), atol=1e-7, rtol=0)
    v = torch.randn(basis.dim, generator=torch.Generator().manual_seed(1)).double()
    torch.testing.assert_close(basis.project(v), B @ (B.T @ v))
    torch.testing.assert_close(basis.coordinates(v), B.T @ v)
    torch.testing.assert_close(basis.project(basis.project(v)), basis.project(v))


def test_options():
    path = states()
    chosen = execution_basis(path, k=9, select=lambda name, info: name == "attn.bias")
    assert chosen.size == 7 and chosen.blocks[0][0] == 48
    whole = execution_basis(path, fused={})
    assert list(whole.components) == ["attn.in_proj_weight", "out.weight"]
    early = execution_basis(DeltaStore(path), k=1, steps=slice(None, 4))
    again = execution_basis(path[:5], k=1)
    torch.testing.assert_close(early.dense(), again.dense())


def test_a_matrix_that_stands_still_has_no_direction():
    path = [{"w": torch.eye(2), "v": torch.eye(2) * t} for t in range(4)]
    basis = execution_basis(path)
    assert basis.size == 1 and basis.components["w"].r() == 0


def test_bad_input():
    path = states()
    with pytest.raises(ValueError, match="no tensor was selected"):
        execution_basis(path, select=lambda name, info: False)
    with pytest.raises(ValueError, match="k must be >= 1"):
        execution_basis(path, k=0)
    with pytest.raises(ValueError, match="not 5 equal matrices"):
        execution_basis(path, fused={"in_proj_weight": 5})
    with pytest.raises(ValueError, match="at least 2 checkpoints after the first, got 1"):
        execution_basis(path, steps=slice(1, 1))
    with pytest.raises(ValueError, match="not finite"):
        execution_basis([*path, {k: v * torch.nan for k, v in path[0].items()}])
    with pytest.raises(ValueError, match="a vector of 76 entries"):
        execution_basis(path).project(torch.zeros(5))
