"""The callbacks of Lightning and Transformers record a fit like any loop."""

import warnings

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import thalweg

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # the frameworks' own, at import and in use
]


def _data():
    torch.manual_seed(0)
    return TensorDataset(torch.randn(64, 5), torch.randint(0, 3, (64,)))


@pytest.mark.parametrize("clip", [None, 1e-3])
def test_lightning(tmp_path, clip):
    import lightning.pytorch as pl

    class Module(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3))

        def training_step(self, batch, i):
            return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        def validation_step(self, batch, i):
            self.log("val_acc", (self.net(batch[0]).argmax(1) == batch[1]).float().mean())
            nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    callback = thalweg.LightningCallback(tmp_path / "run", overhead=1e6)
    trainer = pl.Trainer(
        max_epochs=2, callbacks=[callback], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, accelerator="cpu",
        gradient_clip_val=clip, accumulate_grad_batches=2,
    )  # fmt: skip
    trainer.fit(Module(), DataLoader(_data(), 16), DataLoader(_data(), 32))
    run = thalweg.Run(tmp_path / "run")
    assert run.header["status"] == "closed"
    assert run.series("loss")[0].tolist() == [1, 2, 3, 4]  # 2 epochs x 4 batches / 2 accumulated
    assert "net.0.weight" in run.parts("grad_norm")
    assert run.parts("dormant_fraction") == ["net.1"]
    assert len(run.series("val_loss")[0]) == 3  # the sanity check and two epochs
    assert run.series("user/val_acc")[0].tolist() == [2, 4]
    if clip is not None:
        assert run.series("grad_norm")[1].max() <= clip * 1.001
        assert run.series("grad_norm_preclip")[1].min() > clip


def test_lightning_exception_ends_the_run_as_failed(tmp_path):
    import lightning.pytorch as pl

    class Fails(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(5, 3)

        def training_step(self, batch, i):
            if i == 2:
                raise RuntimeError("broken")
            return self.net(batch[0]).square().mean()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    callback = thalweg.LightningCallback(tmp_path / "run")
    trainer = pl.Trainer(
        max_epochs=1, callbacks=[callback], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, accelerator="cpu",
    )  # fmt: skip
    with pytest.raises(RuntimeError, match="broken"):
        trainer.fit(Fails(), DataLoader(_data(), 16))
    run = thalweg.Run(tmp_path / "run")
    assert run.header["status"] == "failed"
    assert run.series("loss")[0].tolist() == [1, 2]


def test_transformers(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

    config = GPT2Config(
        vocab_size=17, n_positions=16, n_embd=16, n_layer=2, n_head=2, resid_pdrop=0.1,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    model = GPT2LMHeadModel(config)
    tokens = torch.randint(0, 17, (32, 12))
    data = [{"input_ids": t, "labels": t} for t in tokens]
    arguments = TrainingArguments(
        tmp_path / "out", max_steps=4, per_device_train_batch_size=4,
        gradient_accumulation_steps=2, max_grad_norm=1.0, report_to=[], use_cpu=True,
        eval_strategy="steps", eval_steps=2, disable_tqdm=True, save_strategy="no",
        dataloader_pin_memory=False,
    )  # fmt: skip
    callback = thalweg.TransformersCallback(tmp_path / "run", overhead=1e6)
    trainer = Trainer(
        model, arguments, train_dataset=data, eval_dataset=data[:8], callbacks=[callback]
    )
    trainer.train()
    run = thalweg.Run(tmp_path / "run")
    assert run.header["status"] == "closed"
    steps, loss = run.series("loss")
    assert steps.tolist() == [1, 2, 3, 4]
    logged = [e["loss"] for e in trainer.state.log_history if "loss" in e]
    assert all(abs(v - 2.83) < 0.3 for v in loss), (loss, logged)  # ln 17 at random weights
    assert run.header["models"][0]["class"] == "GPT2LMHeadModel"
    assert "transformer.h.0.attn.c_attn.weight" in run.parts("grad_norm")
    assert run.series("user/eval_loss")[0].tolist() == [2, 4]
    assert len(run.series("val_loss")[0]) == 2
    assert run.header["loss_closure"].startswith("GPT2LMHeadModel")
