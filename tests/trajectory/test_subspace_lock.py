import pytest
import torch

from thalweg.trajectory import SubspaceLock


def test_the_same_subspace_is_one_and_an_orthogonal_one_zero():
    lock = SubspaceLock(K=2)
    eye = torch.eye(6)
    lock.append(0, {"w": torch.zeros(6, 6), "b": torch.zeros(6)})
    lock.append(1, {"w": eye[:2].T @ eye[:2], "b": torch.ones(6)})
    lock.append(2, {"w": eye[2:4].T @ (2 * eye[2:4]), "b": torch.ones(6)})
    similarity = lock.similarity()
    assert list(similarity) == ["w"] and lock.steps == [1, 2]
    torch.testing.assert_close(similarity["w"], torch.tensor([0.0, 1.0]).double())


def test_random_frames_have_k_over_n():
    g = torch.Generator().manual_seed(0)
    lock = SubspaceLock(K=4)
    lock.append(0, {"w": torch.zeros(40, 32)})
    for step in range(1, 60):
        lock.append(step, {"w": torch.randn(40, 32, generator=g)})
    found = lock.similarity()["w"]
    assert found[:-1].mean() == pytest.approx(4 / 32, abs=0.02) and found[-1] == pytest.approx(1)
    assert lock.similarity(K=1)["w"][:-1].mean() == pytest.approx(1 / 32, abs=0.02)


def test_the_base_is_copied_and_steps_between_are_passed_over():
    W = torch.zeros(3, 3)
    lock = SubspaceLock(every=10, names=["w"], K=1)
    for step in range(31):
        lock.append(step, {"w": W, "v": W})
        W += torch.outer(torch.ones(3), torch.tensor([1.0, 0, 0]))
    assert lock.steps == [10, 20, 30] and list(lock.bases) == ["w"]
    assert lock.similarity()["w"].tolist() == pytest.approx([1, 1, 1])


def test_small_matrices_have_fewer_directions():
    lock = SubspaceLock()
    lock.append(0, {"w": torch.zeros(2, 3)})
    lock.append(1, {"w": torch.randn(2, 3)})
    assert lock.bases["w"][0].shape == (3, 2) and lock.similarity()["w"].item() == pytest.approx(1)


def test_errors():
    with pytest.raises(ValueError, match="every >= 1"):
        SubspaceLock(0)
    lock = SubspaceLock()
    with pytest.raises(ValueError, match="steps after the base"):
        lock.similarity()
    lock.append(5, {"w": torch.zeros(2, 2)})
    with pytest.raises(ValueError, match="step 5 is not after 5"):
        lock.append(5, {"w": torch.zeros(2, 2)})
    with pytest.raises(ValueError, match=r"'w' at step 6.*missing"):
        lock.append(6, {"v": torch.zeros(2, 2)})
    with pytest.raises(ValueError, match="not finite"):
        lock.append(6, {"w": torch.full((2, 2), float("nan"))})
    lock.append(6, {"w": torch.ones(2, 2)})
    with pytest.raises(ValueError, match="K <= 16"):
        lock.similarity(K=17)
