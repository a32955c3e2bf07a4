"""The examples of docs/while-training.md run; those of other libraries where these are installed."""

import copy
import re
import warnings
from pathlib import Path

import pytest
import torch

TEXT = (Path(__file__).parents[2] / "docs" / "while-training.md").read_text(encoding="utf-8")
PARTS = dict(zip(re.findall(r"^## (.*)$", TEXT, flags=re.M), re.split(r"^## .*$", TEXT, flags=re.M)[1:]))


def blocks(part):
    return re.findall(r"```python\n(.*?)```", PARTS[part], flags=re.S)


def run(*parts):
    names = {}
    for part in parts:
        for block in blocks(part):
            exec(compile(block, f"docs/while-training.md, {part}", "exec"), names)
    return names


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#\s]+)\)", TEXT):
        assert (Path(__file__).parents[2] / "docs" / target).exists(), target


def test_a_plain_loop():
    with torch.random.fork_rng(devices=[]):
        names = run("A loop in PyTorch")
    model, data = names["model"], names["data"]
    right = (model(data.tensors[0]).argmax(1) == data.tensors[1]).float().mean()
    assert right > 0.9
    assert bool(names["sampler"].losses.isfinite().all())
    assert names["hard"].rounds == 1 + (8 * 15 - 15 + 6) // 7
    assert len(names["subset"]) == 100


@pytest.mark.slow
def test_hugging_face(tmp_path):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    names = run("A loop in PyTorch", "Hugging Face Trainer")
    seen, rates = [], []

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(20, 2)
            torch.nn.init.zeros_(self.linear.weight)
            torch.nn.init.zeros_(self.linear.bias)

        def forward(self, x, **kwargs):  # as models of the library do, which take the number of tokens
            seen.append(len(x)) if self.training else None
            return transformers.modeling_outputs.SequenceClassifierOutput(logits=self.linear(x))

    class Rates(transformers.TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, optimizer=None, **kwargs):
            rates.append(optimizer.param_groups[0]["lr"])

    rows = [{"x": x, "labels": y, "index": i} for x, y, i in zip(*(t.tolist() for t in names["data"].tensors))]

    def train(kind, data, callbacks=(), epochs=8, parts=1, **options):
        seen.clear(), rates.clear()
        arguments = transformers.TrainingArguments(
            str(tmp_path),
            num_train_epochs=epochs,
            per_device_train_batch_size=32 // parts,
            gradient_accumulation_steps=parts,
            learning_rate=0.05,
            optim="sgd",
            lr_scheduler_type="constant",
            remove_unused_columns=False,
            report_to=[],
            use_cpu=True,
            save_strategy="no",
            disable_tqdm=True,
        )
        trainer = names[kind](Net(), arguments, train_dataset=data, callbacks=[*callbacks, Rates()], **options)
        trainer.train()
        return trainer, float(trainer.model.linear.weight.detach().norm())

    trainer, norm = train("InfoBatchTrainer", rows, [names["CosineByEpoch"]()])
    assert 8 * 500 * 0.5 < sum(seen) < 8 * 500 * 0.9
    assert rates[0] > rates[len(rates) // 2] > rates[-1]
    assert bool(trainer.infobatch.losses.isfinite().all())
    _, in_parts = train("InfoBatchTrainer", rows, [names["CosineByEpoch"]()], parts=2)
    assert in_parts == pytest.approx(norm, rel=0.03)

    plain = [{k: row[k] for k in ("x", "labels")} for row in rows]
    trainer, norm = train("ReweightedTrainer", plain)
    assert sum(seen) == 8 * 500
    assert trainer.criterion.steps == 8 * 16
    trainer, in_parts = train("ReweightedTrainer", plain, parts=2)
    assert trainer.criterion.steps == 8 * 16
    assert in_parts == pytest.approx(norm, rel=0.03)

    hard = names["HardBatchSampler"](500, 32, epochs=8)
    train("HardTrainer", rows, [names["Rounds"](hard)], epochs=hard.rounds, hard=hard)
    assert sum(seen) == 8 * 15 * 32
    assert bool(hard.table.isfinite().all())


@pytest.mark.slow
def test_lightning(tmp_path):
    lightning = pytest.importorskip("lightning", reason="lightning is not installed")
    names = run("A loop in PyTorch", "Lightning")
    visits = []

    class Count(lightning.Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, index):
            visits.append((trainer.current_epoch, len(batch[0])))

    def trainer(**options):
        return lightning.Trainer(
            reload_dataloaders_every_n_epochs=1,
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
            default_root_dir=tmp_path,
            callbacks=[Count()],
            **options,
        )

    module = names["Module"](names["data"], 8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        first = trainer(max_epochs=8)
        first.fit(module)
        by_epoch = [sum(size for e, size in visits if e == epoch) for epoch in range(8)]
        assert by_epoch[0] == by_epoch[7] == 500
        assert all(size < 500 for size in by_epoch[1:7])
        start = names["Module"](names["data"], 8)
        begun, again = copy.deepcopy(start), names["Module"](names["data"], 8)
        trainer(max_epochs=8).fit(start)
        part = trainer(max_epochs=4)
        part.fit(begun)
        part.save_checkpoint(tmp_path / "last.ckpt")
        trainer(max_epochs=8).fit(again, ckpt_path=tmp_path / "last.ckpt", weights_only=False)
    assert torch.equal(again.model.weight, start.model.weight)
    assert torch.equal(again.infobatch.losses, start.infobatch.losses)
