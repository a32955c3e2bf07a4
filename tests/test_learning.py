"""The verbs that learn without labels, and their commands."""

import json

import numpy as np
import pytest
import torch

import modicum
from modicum.cli import main
from modicum.errors import ModicumError
from modicum.pretraining.saved import load_encoder
from modicum.store import Store
from modicum.training.recipe import Recipe

SHORT = Recipe("convnet(width=4)", epochs=2, batch_size=64, optimizer="adamw", lr=1e-3)
METHOD = "simclr(augment='crops', hidden=16)"
RECIPE = ("--recipe.model", "convnet(width=4)", "--recipe.epochs", 1)


def command(capsys, *words):
    status = main([*map(str, words)])
    out, err = capsys.readouterr()
    return status, out, err


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    modicum.pretrain("digits", METHOD, SHORT, folder=folder)
    return folder


def test_a_run_has_everything(run):
    assert {"encoder.safetensors", "run.json", "report.html"} <= {path.name for path in run.iterdir()}
    assert Store(run).verify() == []
    saved = Store(run).read_json("run.json")
    assert saved["command"] == "pretrain"
    representations = {row["representation"] for row in saved["result"]["probes"]}
    assert representations == {"encoder", "untrained network", "raw inputs"}
    assert saved["result"]["curve"]


def test_the_folder_changes_nothing(run):
    plain = modicum.pretrain("digits", METHOD, SHORT).encoder
    x = torch.rand(3, 1, 8, 8)
    assert torch.equal(load_encoder(run)[0](x), plain(x))


def test_probe_tells_what_the_run_told(run):
    saved = Store(run).read_json("run.json")["result"]["probes"]
    again = modicum.probe(run).to_rows()
    key = ("representation", "probe", "shots")
    assert {tuple(r[k] for k in key): r["accuracy"] for r in again} == {
        tuple(r[k] for k in key): r["accuracy"] for r in saved
    }


def test_transfer_to_other_data(run, tmp_path):
    digits = modicum.load("digits")
    modicum.save(digits.train[:300], tmp_path / "other.npz")
    rows = modicum.probe(run, tmp_path / "other.npz").to_rows()
    assert {row["representation"] for row in rows} == {"encoder", "untrained network", "raw inputs"}
    with pytest.raises(ModicumError, match="the encoder reads image data, but iris is tabular"):
        modicum.probe(run, "iris")


@pytest.mark.slow
def test_commands(capsys, tmp_path):
    words = ("pretrain", "digits", "--method", METHOD, "--folder", tmp_path, *RECIPE)
    status, out, _ = command(capsys, *words, "--json")
    assert status == 0
    found = json.loads(out)
    assert found["folder"] == str(tmp_path)
    status, out, _ = command(capsys, "probe", tmp_path)
    assert status == 0
    assert "k-NN" in out
    status, out, _ = command(capsys, "resume", tmp_path)
    assert status == 0
    assert "report.html" in out
    assert command(capsys, "report", tmp_path)[0] == 0
    assert command(capsys, "verify", tmp_path)[0] == 0


def test_relabel_writes_data_that_can_be_trained_on(capsys, tmp_path):
    out = tmp_path / "relabeled.npz"
    status, text, _ = command(capsys, "relabel", "digits", "--prior", "pixels", "--dim", 8, "--out", out)
    assert status == 0
    assert "relabeled.npz" in text
    again = modicum.load(out)
    assert again.train.info.task == "regression"
    assert again.train.targets.shape[1] == 8
    fitted = modicum.fit(again.train, Recipe("mlp(hidden=16)", epochs=2, lr=0.01))
    assert fitted.evaluate(again.test).metric == "R²"


def test_relabeled_data_come_back_from_parquet(tmp_path):
    made = modicum.relabel("digits", "pixels", dim=4)
    modicum.save(made, tmp_path / "a.parquet")
    whole = modicum.load(tmp_path / "a.parquet")
    values = np.concatenate([part.targets.numpy() for part in whole])
    assert np.allclose(np.sort(values, 0), np.sort(made.targets.numpy(), 0), atol=1e-6)


def test_what_does_not_pretrain_is_refused(capsys):
    with pytest.raises(ModicumError, match="method 'knn-shapley' does not pretrain"):
        modicum.pretrain("digits", "knn-shapley")
    status, _, err = command(capsys, "compare", "digits", "--methods", "simclr")
    assert status == 1
    assert "method 'simclr' learns without labels" in err


def test_unlabeled_data_give_an_encoder_and_a_page(tmp_path):
    np.savez(tmp_path / "data.npz", inputs=np.random.default_rng(0).random((120, 1, 8, 8), dtype=np.float32))
    done = modicum.pretrain(tmp_path / "data.npz", METHOD, SHORT, folder=tmp_path / "run")
    assert done.ledger.total().labels == 0
    assert (tmp_path / "run" / "report.html").is_file()
    assert Store(tmp_path / "run").read_json("run.json")["result"]["probes"] == []
    with pytest.raises(ModicumError, match="probes need class labels"):
        modicum.probe(tmp_path / "run")


def test_text_methods_refuse_augmentation():
    data = modicum.load("digits")
    info = modicum.Info("unlabeled", "text", vocabulary=("", "", "a", "b"))
    texts = modicum.Dataset(torch.randint(2, 4, (16, 8)), info=info)
    with pytest.raises(ModicumError, match="method 'masked-lm' augments nothing"):
        modicum.pretraining.pretrain(data._replace(train=texts), "masked-lm", Recipe("transformer", augment=("flip",)))


def test_several_processes_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ModicumError, match="pretraining runs in one process"):
        modicum.pretrain("digits", METHOD, SHORT)


def test_the_estimate_is_of_the_whole_run(monkeypatch):
    from modicum.comparison import estimate

    clock = iter([0.0, 9.0, 10.0, 11.0, 20.0, 25.0])  # of the three short runs: warming up, 2 steps, 6 steps
    monkeypatch.setattr(estimate.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(estimate, "pretrain", lambda *args: None)
    data = modicum.load("digits")
    found = estimate.estimate_pretraining("simclr", data, SHORT, modicum.Context())
    assert found.seconds == 1 + (2 * 16 - 2) * 4 / 4
    assert found.trainings == 1


@pytest.mark.slow
def test_the_estimate_is_told_before_the_work(capsys, tmp_path):
    told = []
    modicum.pretrain("digits", METHOD, SHORT, announce=told.append)
    assert told[0].seconds > 0
    words = ("pretrain", "digits", "--method", METHOD, "--folder", tmp_path, *RECIPE)
    assert "the same command goes on after a stop" in command(capsys, *words)[2]
    assert "the same command" not in command(capsys, *words)[2]  # nothing is left to do
