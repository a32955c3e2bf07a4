"""The verb mix, its command, and training on what it made."""

import json

import numpy as np
import pytest
import torch

import modicum
from modicum.cli import main
from modicum.cli.mixing import parse_shares, share_text
from modicum.context import Context
from modicum.data import load, save
from modicum.dataset import Splits
from modicum.errors import BudgetError, DataError, ModicumError
from modicum.store import Store
from modicum.training.recipe import Recipe
from modicum.verbs import mix

QUICK = Recipe("mlp(hidden=8)", epochs=2)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MODICUM_HOME", str(tmp_path / "runs"))


@pytest.fixture(scope="module")
def iris():
    data = load("iris", valid=0, test=0).train
    data = data[data.ids != 142]  # which is a copy of 101
    return data[torch.randperm(149, generator=torch.Generator().manual_seed(0))]


def command(capsys, *words):
    status = main([*map(str, words)])
    out, err = capsys.readouterr()
    return status, out, err


def test_what_repeats_is_left_out_and_the_reason_is_told(iris):
    mixed = mix({"web": iris[:60], "books": iris[40:120]}, near=0, valid=0, test=0)
    assert mixed.sizes == {"web": 60, "books": 60}
    assert mixed.weights == {"web": 0.5, "books": 0.5}
    assert mixed.splits.train.ids.tolist()[59:61] == [f"web/{iris.ids[59]}", f"books/{iris.ids[60]}"]
    rows = mixed.samples.to_pylist()
    assert len(rows) == 140
    gone = [row for row in rows if row["status"] == "duplicate"]
    assert [row["id"].partition("/")[2] for row in gone] == [row["of"].partition("/")[2] for row in gone]
    assert gone[0]["reason"] == f"equal to web/{iris.ids[40]}"
    assert {row["same_label"] for row in gone} == {True}
    assert mixed.rows()[1] == {
        **{"source": "books", "samples": 80, "copies": 20, "not drawn": 0, "kept": 60, "weight": 0.5, "epochs": 1.0},
    }


def test_copies_of_test_samples_never_train(iris):
    sides = Splits(iris[:80], iris[80:100], iris[100:120])
    mixed = mix({"own": sides, "leaked": Splits(iris[70:], iris[:0], iris[:0])}, near=0)
    trained = {name.partition("/")[2] for name in mixed.splits.train.ids.tolist()}
    for part in (mixed.splits.valid, mixed.splits.test):
        assert trained.isdisjoint(name.partition("/")[2] for name in part.ids.tolist())
        assert part.info == mixed.splits.train.info
    assert mixed.rows()[1]["copies"] == 50
    assert any(row["of"].startswith("own (test)/") for row in mixed.samples.to_pylist())


def test_a_target_gives_the_samples_to_test_on(iris):
    target = Splits(iris[:50], iris[50:60], iris[60:80])
    mixed = mix({"a": iris[80:120], "b": iris[110:]}, target=target, near=0)
    assert mixed.sizes == {"a": 40, "b": 29}  # nothing is cut off for tests
    assert mixed.splits.test.ids.tolist() == [f"target/{i}" for i in iris.ids[60:80]]
    own = mix({"a": Splits(iris[80:120], iris[:5], iris[5:9]), "b": iris[110:]}, target="a", near=0)
    assert own.splits.test.ids.tolist() == [f"a/{i}" for i in iris.ids[5:9]]
    assert own.sizes["b"] == 29


def test_keep_draws_by_weight_and_says_who_was_not_drawn(iris):
    sources = {"a": iris[:100], "b": iris[100:]}
    mixed = mix(sources, {"a": 1, "b": 3}, keep=40, near=0, valid=0, test=0)
    assert mixed.sizes == {"a": 10, "b": 30}
    assert mixed.rows()[0]["not drawn"] == 90
    again = mix(sources, {"a": 1, "b": 3}, keep=40, near=0, valid=0, test=0)
    assert mixed.splits.train.ids.tolist() == again.splits.train.ids.tolist()
    other = mix(sources, {"a": 1, "b": 3}, keep=40, near=0, valid=0, test=0, ctx=Context(seed=1))
    assert mixed.splits.train.ids.tolist() != other.splits.train.ids.tolist()
    assert mix(sources, {"a": 0, "b": 1}, keep=60, near=0, valid=0, test=0).sizes == {"a": 11, "b": 49}
    with pytest.raises(BudgetError):
        mix(sources, keep=500, valid=0, test=0)


def test_texts_of_two_sources_are_compared_word_by_word():
    # every word beyond the first source's training texts would be unknown to it
    texts = [f"w{i} x{i} y{i} z{i} q{i}" for i in range(40)]
    labels = [0, 1] * 20
    mixed = mix({"a": (texts, labels), "b": (texts[::-1], labels)}, near=0.8)
    assert mixed.sizes["b"] == 0 or not set(mixed.samples["status"].to_pylist()[-28:]) & {"kept"}
    assert len(mixed.copies.found.first) > 40
    # and the vocabulary is learned from what is trained on
    known = set(mixed.splits.train.info.vocabulary)
    assert "<unk>" in known
    assert len(known) == 2 + 5 * len(mixed.splits.train)
    assert (mixed.splits.test.inputs == 1).any()


def test_relevance_gives_the_weights_and_the_target_among_the_sources_counts_one():
    train, valid, test = load("digits")
    wrong = train[400:800].replace(
        targets=train.labels[torch.randperm(400, generator=torch.Generator().manual_seed(0))]
    )
    ctx = Context()
    mixed = mix(
        {"good": train[:400], "bad": wrong},
        "a-mtrl",
        target=Splits(train[800:], valid, test),
        ctx=ctx,
        recipe=Recipe("mlp(hidden=32)", epochs=10),
    )
    assert mixed.weights["good"] > 1.3 * mixed.weights["bad"]
    assert mixed.pilot.residual < 1
    assert ctx.ledger.total("choose").flops > 0
    own = mix(
        {"good": train[:400], "bad": wrong, "own": Splits(train[800:], valid, test)},
        "a-mtrl",
        target="own",
        recipe=QUICK,
    )
    assert own.weights["own"] == pytest.approx(1 / (1 + sum(own.pilot.relevance.values())))


def test_a_fit_on_a_mixture_has_the_epochs_of_every_source(iris):
    mixed = mix({"a": iris[:90], "b": iris[90:120]}, {"a": 1, "b": 1}, near=0, valid=0, test=0)
    done = modicum.fit(mixed, Recipe("linear", epochs=3))
    assert done.ledger.epochs() == pytest.approx(mixed.epochs(3))
    assert done.ledger.epochs() == pytest.approx({"a": 2.0, "b": 6.0})
    other = modicum.fit(mixed.splits.train, Recipe("linear", epochs=1), mixture={"a": 0, "b": 1})
    assert other.ledger.epochs() == {"a": 0.0, "b": 4.0}


@pytest.mark.parametrize("suffix", [".npz", ".parquet", ".csv", ".jsonl", ".tsv"])
def test_sources_survive_writing(iris, suffix):
    mixed = mix({"web": iris[:60], "books": iris[60:]}, near=0, out=f"mixture{suffix}")
    file = f"mixture{suffix}" if suffix == ".npz" else f"mixture-train{suffix}"
    for before, after in zip(mixed.splits, load(file)):
        assert after.info.sources == ("web", "books")
        assert after.sources.tolist() == before.sources.tolist()
        assert after.ids.tolist() == before.ids.tolist()
        assert torch.equal(after.inputs, before.inputs)


def test_a_folder_of_images_has_no_place_for_sources():
    digits = load("digits").train
    with pytest.raises(DataError, match="without weights or sources"):
        mix({"a": digits[:60], "b": digits[60:99]}, out="images")


def test_the_command_and_a_fit_on_its_mixture(iris, capsys):
    save(iris[:80], "a.npz")
    save(iris[60:], "b.npz")
    status, out, err = command(
        capsys, "mix", "a.npz", "more=b.npz", "--weights", "a=1,more=3", "--folder", "run", "--near", 0
    )
    assert (status, err) == (0, "")
    assert "Train on it: modicum fit run/mixture.npz --mixture a=0.25,more=0.75" in " ".join(out.split())
    assert set(Store("run").names()) == {"mixture.npz", "report.html", "run.json", "samples.parquet"}
    assert Store("run").verify() == []
    table = Store("run").read_table("samples.parquet")
    assert (np.array(table["status"].to_pylist()) == "duplicate").sum() > 5
    status, out, _ = command(
        capsys,
        "fit",
        "run/mixture.npz",
        "--mixture",
        "a=1,more=3",
        "--out",
        "fit",
        "--recipe.model",
        "linear",
        "--recipe.epochs",
        2,
        "--json",
    )
    epochs = json.loads(out)["epochs"]
    sizes = json.loads(Store("run").path("run.json").read_text())["result"]["rows"]
    n = sum(row["kept"] for row in sizes)
    exact = {row["source"]: row["weight"] * 2 * n / row["kept"] for row in sizes}
    assert epochs == pytest.approx(exact, abs=0.05)
    status, out, _ = command(
        capsys,
        "fit",
        "run/mixture.npz",
        "--mixture",
        "a=1,more=3",
        "--out",
        "fit",
        "--recipe.model",
        "linear",
        "--recipe.epochs",
        2,
    )
    assert "Epochs elapsed: a " in out
    before = Store("run").path("samples.parquet").read_bytes()
    status, _, err = command(capsys, "resume", "run")
    assert (status, err) == (0, "")
    assert Store("run").path("samples.parquet").read_bytes() == before


def test_shares_are_of_sources_that_give_something(iris):
    mixed = mix({"a": iris[:70], "b": iris[70:]}, {"a": 1, "b": 1}, keep=1, near=0, valid=0, test=0)
    assert (mixed.sizes, mixed.weights) == ({"a": 1, "b": 0}, {"a": 1.0, "b": 0.0})
    assert len(mixed.sampler().order(0)[0]) == 1
    with pytest.raises(DataError, match="source 'b' has the weight 2, but every sample of it repeats another one"):
        mix({"a": iris, "b": iris[:50]}, {"a": 1, "b": 2}, near=0, valid=0, test=0)


def test_a_text_that_is_cut_in_one_source_is_found_in_the_other():
    short = [f"a{i} b c d" for i in range(60)]
    long = [" ".join(f"q{i}_{j}" for j in range(40)) for i in range(60)]
    sources = {"a": ([*short, long[0]], [0, 1] * 30 + [0]), "b": (long, [0, 1] * 30)}
    mixed = mix(sources, valid=0, test=0)
    assert mixed.rows()[1]["copies"] == 1
    assert (
        str(mixed.copies)
        == "1 training samples repeat another one and 0 nearly so: 1 of them samples of another source"
    )


def test_the_page_shows_copies_side_by_side(capsys):
    words = [f"word{i} goes before many other ones here {i} {i + 1}" for i in range(80)]
    lines = ["text,label", *(f"{text},{i % 2}" for i, text in enumerate(words))]
    with open("web.csv", "w") as file:
        file.write("\n".join(lines) + "\n")
    with open("books.csv", "w") as file:
        file.write("\n".join([*lines[:1], *lines[41:], f"{words[3]},0"]) + "\n")
    status, out, err = command(capsys, "mix", "web.csv", "books.csv", "--folder", "run", "--inputs", "text")
    assert (status, err) == (0, "")
    assert "Report: run/report.html" in out
    page = Store("run").path("report.html").read_text()
    assert "Copies of validation and test samples" in page
    assert "Equal, of another source" in page
    assert "With another label" in page
    assert page.count("<figure>") >= 6
    saved = Store("run").read_json("run.json")
    table = Store("run").read_table("samples.parquet").to_pylist()
    gone = [row for row in table if row["status"] == "duplicate"]
    assert saved["inputs"] == ["text"]
    assert saved["result"]["duplicates"].startswith(f"{len(gone)} training samples repeat another one")
    before = Store("run").path("samples.parquet").read_bytes()
    assert command(capsys, "resume", "run")[0] == 0
    assert Store("run").path("samples.parquet").read_bytes() == before


def test_shares_on_the_command_line():
    odd = {"a": 1 / 3, "b": 2 / 3}
    assert parse_shares(share_text(odd)) == odd
    assert parse_shares("a=1,b=2.5") == {"a": 1.0, "b": 2.5}
    for text in ("a", "a=", "=1", "a=x", "a=1,a=2", ""):
        with pytest.raises(ModicumError, match="is not a share for each source; expected for example 'web=3,books=1'"):
            parse_shares(text)


@pytest.mark.parametrize(
    "call, text",
    [
        (lambda d: mix("digits"), "sources='digits' is one text"),
        (lambda d: mix([d]), "sources hold a Dataset, which has no name; give them as {name: data}"),
        (lambda d: mix([]), "sources are empty"),
        (lambda d: mix({"a/b": d}), "source name 'a/b'; expected one without"),
        (lambda d: mix({"a": d}, "best"), "weights='best'; expected numbers by source, or one of size, equal, a-mtrl"),
        (lambda d: mix({"a": d}, {"b": 1}), r"weights=\{'b': 1\}; expected one number >= 0 for each of \('a',\)"),
        (lambda d: mix({"a": d}, "a-mtrl"), "weights='a-mtrl' weighs sources by what they tell of a target"),
        (lambda d: mix({"a": d}, "a-mtrl", target="a"), "needs a source beside the target; got a"),
        (lambda d: mix({"a": d, "b": load("digits").train}), "source 'b.*' is classification of image"),
        (lambda d: mix({"a": Splits(d, d[:0], d)}), "nothing is left to train on"),
    ],
)
def test_what_cannot_be_mixed_is_said(iris, call, text):
    with pytest.raises(ModicumError, match=text):
        call(iris)
