"""The verb distill in a folder, its command, and training on what it made."""

import json
import shutil

import pytest
import torch

import modicum
from modicum.cli import main
from modicum.context import Context
from modicum.distillation import load_distilled, read_source
from modicum.errors import ModicumError
from modicum.ledger import Ledger
from modicum.store import Store
from modicum.training.recipe import Recipe

METHOD = "dm(iterations=4, lr_img='auto', batch_real=8, augment='none', model='mlp(hidden=8)')"
QUICK = Recipe("mlp(hidden=8)", epochs=1)
DATA = "iris"
JUDGED = {"per_class": 1, "recipe": QUICK, "networks": 2, "architectures": ("linear", "mlp(hidden=4)")}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MODICUM_HOME", str(tmp_path / "runs"))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "tiny"
    made = modicum.distill(DATA, METHOD, folder=folder, **JUDGED)
    return folder, made


def command(capsys, *words):
    status = main([*map(str, words)])
    out, err = capsys.readouterr()
    return status, out, err


def test_a_run_has_everything(run):
    folder, made = run
    names = {"distilled.json", "evaluation.json", "history.json", "report.html", "run.json"}
    assert names | {"samples.safetensors", "snapshots.safetensors"} == set(Store(folder).names())
    assert Store(folder).verify() == []
    assert torch.equal(load_distilled(folder).dataset.inputs, made.dataset.inputs)
    result = Store(folder).read_json("run.json")["result"]
    assert result["finished"]
    rows = [(row["trained on"], row["network"], row["networks"]) for row in result["rows"]]
    assert ("the set", "mlp(hidden=8)", 2) in rows
    assert ("the set", "linear", 2) in rows
    assert {"random", "k-center", "soft labels", "full"} <= {row[0] for row in rows}
    assert [int(row["iteration"]) for row in result["curve"]] == [0, 1, 2, 4]
    assert set(result["robust"]) == {"label-robust", "augmentation-robust", "improvement over random", "hard label gap"}
    source = read_source(folder)
    assert (source.data, source.samples, source.span) == ("iris", 90, None)


def test_the_best_moment_is_the_set(run):
    folder, made = run
    curve = Store(folder).read_json("run.json")["result"]["curve"]
    best = max(curve, key=lambda row: (row["accuracy"], row["iteration"]))["iteration"]
    moment = next(s for s in made.snapshots if s.iteration == best)
    assert torch.equal(made.dataset.inputs, moment.dataset.inputs)


def test_the_folder_changes_nothing_but_the_choice(run):
    plain = modicum.distill(DATA, METHOD, per_class=1, recipe=QUICK)
    assert torch.equal(run[1].snapshots[-1].dataset.inputs, plain.dataset.inputs)


def test_every_part_of_the_cost_is_told(run):
    ledger = Ledger()
    modicum.distill(DATA, METHOD, folder=run[0], ctx=Context(ledger=ledger), **JUDGED)  # from what is there
    told = [charge.what for charge in ledger.charges]
    assert told == [
        "dm",
        "choosing the best moment",
        "testing the set",
        "controls",
        "other architectures",
        "robust scores",
    ]
    assert ledger.total("choose").flops > 0
    assert all(charge.forward_flops > 0 for charge in ledger.charges)


def test_what_is_done_is_not_done_again(tmp_path, monkeypatch, run):
    import modicum.comparison.distilling as distilling

    def stopped(*_, **__):
        raise KeyboardInterrupt

    shutil.copytree(run[0], tmp_path / "tiny")
    store = Store(tmp_path / "tiny")
    whole = store.read_json("evaluation.json")
    store.write_json("evaluation.json", {k: v for k, v in whole.items() if k != "architectures"})
    for name in ("best_snapshot", "train_and_test", "controls", "robust_scores"):
        monkeypatch.setattr(distilling, name, stopped)
    made = modicum.distill(DATA, METHOD, folder=tmp_path / "tiny", **JUDGED)
    assert torch.equal(made.dataset.inputs, run[1].dataset.inputs)
    one, other = (Store(f).read_json("run.json")["result"]["rows"] for f in (tmp_path / "tiny", run[0]))
    assert one == other
    with pytest.raises(KeyboardInterrupt):  # other questions are asked anew
        modicum.distill(DATA, METHOD, folder=tmp_path / "tiny", **{**JUDGED, "networks": 3})


def test_stopped_early_and_gone_on_with(tmp_path, run):
    alone = {**JUDGED, "networks": 0}
    stopped = modicum.distill(DATA, METHOD, folder=tmp_path / "tiny", max_seconds=0, **alone)
    assert stopped.history["iteration"] == [1.0]
    assert "Stopped early after 1 iterations" in (tmp_path / "tiny" / "report.html").read_text()
    made = modicum.distill(DATA, METHOD, folder=tmp_path / "tiny", **alone)
    assert torch.equal(made.dataset.inputs, run[1].snapshots[-1].dataset.inputs)
    assert not [name for name in Store(tmp_path / "tiny").names() if name.endswith(".state")]


def test_other_work_in_the_same_folder_replaces_it(tmp_path):
    for seed in (0, 1):
        made = modicum.distill(DATA, METHOD, folder=tmp_path / "t", ctx=Context(seed=seed), **{**JUDGED, "networks": 0})
        assert torch.equal(load_distilled(tmp_path / "t").dataset.inputs, made.dataset.inputs)
    assert "was not measured" in (tmp_path / "t" / "report.html").read_text()


def test_whitened_all_the_way(tmp_path, capsys):
    words = ("distill", "digits", "--method", METHOD, "--per-class", 1, "--zca", 0.1, "--networks", 1, "--no-controls")
    words = (*words, "--limit", 200)
    status, out, err = command(capsys, *words, "--out", tmp_path / "tiny", "--export", tmp_path / "pngs", "--json")
    assert status == 0
    assert err.startswith("About ")
    found = json.loads(out)
    assert found["file"] == str(tmp_path / "pngs")
    made = load_distilled(tmp_path / "tiny")
    assert made.whitening is not None
    assert made.dataset.info.mean == ()
    status, out, _ = command(capsys, "fit", tmp_path / "tiny", "--json")
    assert status == 0
    # one network of another seed than that of the run, on the same whitened test split
    assert abs(100 * json.loads(out)["rows"][0]["test"] - found["rows"][0]["test"]) < 25
    pictures = modicum.load(tmp_path / "pngs", valid=0, test=0).train
    assert pictures.inputs.dtype == torch.uint8
    assert pictures.class_counts().tolist() == [1] * 10


def test_commands(capsys, tmp_path):
    words = ("distill", "iris", "--method", "dm(iterations=3, lr_img='auto')", "--keep", "2/class", "--networks", 1)
    quick = ("--recipe.model", "mlp(hidden=8)", "--recipe.epochs", 1, "--no-controls")
    status, out, err = command(capsys, *words, *quick, "--out", tmp_path / "tiny")
    assert status == 0
    assert "the set" in out
    assert f"Train on it: modicum fit {tmp_path / 'tiny'}" in out
    assert "About" in err
    told = Store(tmp_path / "tiny").read_json("run.json")["result"]["sentence"]
    for again in ("resume", "report"):
        status, out, err = command(capsys, again, tmp_path / "tiny")
        assert status == 0
        assert told in out
        assert err == ""
    assert command(capsys, "verify", tmp_path / "tiny")[0] == 0
    status, out, _ = command(capsys, "fit", tmp_path / "tiny", "--json")
    assert status == 0
    assert json.loads(out)["rows"][0]["test"] > 0.5
    status, out, _ = command(capsys, "fit", tmp_path / "tiny", "--test", "iris", "--recipe.epochs", 2, "--json")
    assert status == 0
    status, _, err = command(capsys, "fit", tmp_path / "tiny", "--test", "wine")
    assert status == 1
    assert "but the model is trained on (4,) of the classes" in err


def test_what_cannot_be_done():
    with pytest.raises(ModicumError, match="networks=-1; expected an integer >= 0"):
        modicum.distill("iris", "dm", per_class=1, networks=-1)
    with pytest.raises(ModicumError, match="max_seconds=-1; expected seconds >= 0"):
        modicum.distill("iris", "dm", per_class=1, max_seconds=-1)


def test_fit_selects_while_it_trains(capsys):
    recipe = Recipe("linear", epochs=4)
    for method in ("infobatch(ratio=0.9)", "adaptive-selection(keep=0.2, method='glister', rounds=2)"):
        one = modicum.fit("iris", recipe, method=method)
        assert one.ledger.total("train").samples < recipe.visits_for(90)
        train = modicum.load("iris").train
        again = modicum.fit(train, recipe, method=modicum.methods.make(method))
        if method.startswith("infobatch"):  # which does not look at the validation split
            assert again.history["loss"] == one.history["loss"]
    words = ("iris", "--method", "hard-samples", "--recipe.model", "linear", "--recipe.epochs", "4")
    status, out, _ = command(capsys, "fit", *words)
    assert status == 0
    assert "hard-samples trained on" in out
    first = json.loads(command(capsys, "fit", *words, "--json")[1])
    assert first["samples"] < recipe.visits_for(90)
    plain = json.loads(command(capsys, "fit", "iris", *words[3:], "--json")[1])
    assert plain["samples"] == recipe.visits_for(90)
    assert plain["folder"] != first["folder"]


def test_what_cannot_select_while_it_trains(run):
    with pytest.raises(ModicumError, match="'craig' does not select while training"):
        modicum.fit("iris", QUICK, method="craig")
    with pytest.raises(ModicumError, match="'short' does not select while training"):
        modicum.fit("iris", QUICK, method="short")
    with pytest.raises(ModicumError, match="both say what is visited"):
        modicum.fit("iris", QUICK, method="infobatch", mixture={"a": 1})
    with pytest.raises(ModicumError, match="method='infobatch' is given, but a distilled set"):
        modicum.fit(run[0], method="infobatch")


def test_methods_for_other_data_are_refused_before_the_work():
    told = "'{}' is for classification .* but scikit-learn diabetes is regression of tabular data; expected "
    with pytest.raises(ModicumError, match=told.format("craig") + "one of .*facility-location"):
        modicum.select("diabetes", "craig", 0.1)
    with pytest.raises(ModicumError, match=told.format("aum") + "one of .*knn-shapley-regression"):
        modicum.score("diabetes", "aum")
    with pytest.raises(ModicumError, match=told.format("dm") + "other data"):
        modicum.distill("diabetes", "dm", per_class=1)
    with pytest.raises(ModicumError, match=told.format("adaptive-selection")):
        modicum.fit("diabetes", QUICK, method="adaptive-selection")
    with pytest.raises(ModicumError, match=told.format("craig")):
        modicum.compare("diabetes", ["craig"], ["10%"], 1, QUICK)
