"""The page of a synthetic set: what it says for what was found, that it escapes, and that it needs no network."""

import io
import re
from dataclasses import replace

import pytest
import torch
from PIL import Image

from modicum.dataset import Dataset, Info, Splits
from modicum.distillation import Distilled, Snapshot, Teacher, zca
from modicum.evidence import environment
from modicum.ledger import Charge, Ledger
from modicum.report.content import DataSummary, Gallery, Item
from modicum.report.distillation_page import DistillationContent, MomentRow, TrialRow, distillation_page
from modicum.report.write_distillation import write_distillation
from modicum.store import Store
from modicum.training.recipe import Recipe

EVIL = "<script>alert('x')</script>"
PNG = b"\x89PNG\r\n\x1a\nx"


def content(**changes):
    given = {
        "title": "modicum distill",
        "sentence": "It is worth it.",
        "detail": "Nothing else.",
        "facts": (("Cost", "3 FLOP", "in a second"),),
        "data": DataSummary("pets", 90, 5, 400, ("cat", "dog")),
        "gallery": Gallery("The samples", "Two.", (Item("dm-0-0", "cat", png=PNG), Item("dm-1-0", "dog", png=PNG))),
        "classes": ("cat", "dog"),
        "moments": (MomentRow(0, 50.0, (PNG, PNG)), MomentRow(8, 75.5, (PNG, PNG), chosen=True)),
        "loss": tuple((float(i), 100 / (i + 1)) for i in range(1000)),
        "trials": (
            TrialRow("the set", "", (90.0, 92.0), own=True),
            TrialRow("random", "as many", (60.0, 62.0)),
            TrialRow("full", "all", (99.0,)),
        ),
        "tested": 400,
        "architectures": (TrialRow("mlp", "", (80.0, 81.0)),),
        "robust": {"label-robust": 0.3, "improvement over random": 30.0},
        "advice": ("Keep the order.",),
        "command": "modicum distill pets",
        "train_command": "modicum fit tiny",
    }
    return DistillationContent(**{**given, **changes})


def test_everything_is_on_it():
    text = distillation_page(content())
    for words in (
        "91.0\xa0±\xa01.4\xa0%",
        "+30.0",
        "-8.0",
        "99.0\xa0%",
        "0.300",
        "Keep the order.",
        "modicum fit tiny",
    ):
        assert words in text
    assert text.count('class="lines"') == 2
    assert "loss, by its logarithm" in text  # from 100 to 0.1
    assert text.count('iterations"></td>') == 4
    assert '<th scope="col" class=chosen>8</th>' in text
    assert "after 8 iterations, is the set" in text
    assert "{{" not in text


def test_parts_that_are_missing_leave_a_sentence():
    text = distillation_page(content(gallery=None, moments=(), loss=(), trials=(), architectures=(), robust={}))
    for words in ("nothing to look at", "fewer than two moments", "was not judged", "No other network"):
        assert words in text
    assert 'class="evolution"' not in text


def test_nothing_of_the_data_is_markup_and_nothing_is_fetched():
    items = (Item(EVIL, EVIL, EVIL, text=EVIL),)
    text = distillation_page(
        content(
            **{name: EVIL for name in ("title", "sentence", "detail", "command", "train_command", "loss_name")},
            data=DataSummary(EVIL, 1, 1, 1, (EVIL, "b"), warnings=(EVIL,)),
            gallery=Gallery(EVIL, EVIL, items),
            classes=(EVIL, "b"),
            trials=(TrialRow(EVIL, EVIL, (1.0,)),),
            architectures=(TrialRow(EVIL, "", (1.0,)),),
            robust={EVIL: 1.0},
            advice=(EVIL,),
            settings={EVIL: {EVIL: EVIL}},
        )
    )
    assert EVIL not in text
    assert not re.search(r"(src|href)=\"?(https?:)?//", text)
    assert "default-src 'none'" in text


def written(tmp_path, found, finished=True, **changes):
    """A set of two 8 x 8 images written with these findings, and the answer and the text of its page."""
    random = torch.Generator().manual_seed(0)
    info = Info(modality="image", classes=("cat", "dog"), source="pets", mean=(100.0,), std=(60.0,))
    real = (255 * torch.rand(40, 1, 8, 8, generator=random)).to(torch.uint8)
    train = Dataset(real, torch.arange(40) % 2, info=info)
    data = Splits(train, train[:6], train[:10])
    small = Dataset(255 * torch.rand(2, 1, 8, 8, generator=random), torch.tensor([0, 1]), ["a", "b"], info=info)
    made = Distilled(small, Recipe("mlp", steps=9), "dm", history={"iteration": [1.0, 2.0], "loss": [3.0, 2.0]})
    made = replace(made, snapshots=(Snapshot(0, small, made.recipe), Snapshot(2, small, made.recipe)), **changes)
    settings = {
        **{"data": "pets.npz", "method": "dm", "keep": "1/class", "zca": 0.0, "recipe": {}, "seed": 0, "networks": 5},
        **{"controls": True, "architectures": None, "making": {"finished": finished}, "environment": environment()},
    }
    spent = Ledger([Charge("choose", "dm", samples=100, forward_flops=3 * 10**9)])
    store = Store(tmp_path / "tiny")
    write_distillation(made, data, store, settings, spent, {"ledger": [], "finished": True, **found})
    return store.read_json("run.json")["result"], store.read("report.html").decode()


FOUND = {
    "set": [90.0, 92.0],
    "controls": [["random", [60.0, 62.0]], ["soft labels", [70.0, 71.0]], ["full", [98.0]]],
    "architectures": [["linear", [80.0]]],
    "robust": {"label-robust": 0.3},
    "curve": [{"iteration": 0.0, "accuracy": 60.0}, {"iteration": 2.0, "accuracy": 80.0}],
    "costs": {"full": {"flops": 1e9, "seconds": 1.0}, "set": {"flops": 1e8, "seconds": 0.1}},
}


@pytest.mark.parametrize(
    "change, told",
    [
        ({}, "2 synthetic samples train a network to 91.0\xa0%: 30.0 points more than as many random real samples."),
        ({"set": [60.0, 63.0]}, "Not better than random: 2 synthetic samples train a network to 61.5"),
        ({"set": [65.0, 65.1]}, "to 65.0\xa0%, but random samples with soft labels to 70.5\xa0%."),
        (
            {"set": [90.0], "controls": [["random", [60.0]]]},
            "as many random real samples to 60.0\xa0%: one network each.",
        ),
        ({"controls": ()}, "nothing was measured beside it"),
        ({"set": None, "controls": (), "curve": ()}, "what they are worth was not measured"),
    ],
)
def test_the_answer(tmp_path, change, told):
    result, text = written(tmp_path, {**FOUND, **change})
    assert told in result["sentence"]
    assert result["sentence"] in text


def test_what_is_written(tmp_path):
    result, text = written(tmp_path, FOUND)
    assert [(row["trained on"], row["test"]) for row in result["rows"]] == [
        *(("the set", 91.0), ("random", 61.0), ("soft labels", 70.5), ("full", 98.0)),
        ("the set", 80.0),
    ]
    assert "3.00× of what training on all data once costs" in text
    assert "each training on it then costs 0.10× of that" in text
    assert "modicum distill pets.npz --method dm --keep 1/class --seed 0 --out" in text
    pictures = re.findall(r'src="data:image/png;base64,([^"]+)"', text)
    assert len(pictures) == 2 + 4
    import base64

    assert Image.open(io.BytesIO(base64.b64decode(pictures[0]))).size == (8, 8)


def test_stopped_early_is_told(tmp_path):
    result, text = written(tmp_path, {"finished": False}, finished=False)
    assert not result["finished"]
    assert "Stopped early after 2 iterations, and not judged." in text
    assert "Run the same command again to go on." in text


def test_what_a_training_must_keep_to_is_told(tmp_path):
    whitening = zca(torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(0)), 0.1)
    recipe = Recipe("mlp", steps=2, rates=(0.1, 0.2), shuffle=False, loss="mse", augment=("flip",))
    teacher = Teacher(torch.nn.Linear(2, 2), "mlp(hidden=4)")
    _, text = written(tmp_path, FOUND, whitening=whitening, recipe=recipe, seed=3, teacher=teacher)
    for words in (
        "whitened (ZCA)",
        "that of seed 3",
        "must not be shuffled",
        "A teacher (mlp(hidden=4))",
        "augmentation: flip",
    ):
        assert words in text
    assert "with the whitening undone" in text
