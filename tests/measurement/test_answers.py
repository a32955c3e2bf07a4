import subprocess
import sys

import pytest
import torch

from modicum.context import Context
from modicum.errors import StoreError
from modicum.ledger import Ledger
from modicum.measurement.answers import FILE, Answer, Answers

ANSWER = Answer(0.5, 2.0, 100.0, 30.0)


def memory(cache, about="x"):
    return Answers(Context(cache=cache, checkpoint_seconds=0.0), about)


def keys(n, start=0):
    bits = (torch.arange(start, start + n)[:, None] >> torch.arange(12)) % 2 == 1
    return memory(None).keys(bits)


def test_another_process_knows_what_was_saved(tmp_path):
    first = memory(tmp_path)
    for i, key in enumerate(keys(20)):
        first.remember(key, Answer(i / 3, i, 2.0 * i, 3.0 * i, i % 2))
    first.save()
    assert memory(tmp_path).known == first.known
    assert len(memory(tmp_path, "y").known) == 0
    assert first.store.verify() == []


def test_without_a_description_or_a_cache_nothing_is_written(tmp_path):
    for made in (memory(tmp_path, None), memory(None)):
        made.remember(keys(1)[0], ANSWER)
        made.save(now=True)
        assert made.recall(keys(1)[0]) == ANSWER
    assert list(tmp_path.iterdir()) == []


def test_it_is_saved_every_so_many_seconds(tmp_path):
    slow = Answers(Context(cache=tmp_path, checkpoint_seconds=1000.0), "x")
    slow.remember(keys(1)[0], ANSWER)
    slow.save()
    assert len(memory(tmp_path).known) == 0
    slow.save(now=True)
    assert len(memory(tmp_path).known) == 1


def test_what_others_wrote_meanwhile_is_kept_and_the_first_answer_stays(tmp_path):
    first, second = memory(tmp_path), memory(tmp_path)
    a, b, c = keys(3)
    first.remember(a, ANSWER)
    first.remember(b, Answer(0.25))
    first.save()
    second.remember(b, Answer(0.75))
    second.remember(c, ANSWER)
    second.save()
    assert memory(tmp_path).known == second.known == {a: ANSWER, b: Answer(0.25), c: ANSWER}


def test_two_processes_lose_nothing(tmp_path):
    code = """
import sys, torch
from pathlib import Path
from modicum.context import Context
from modicum.measurement.answers import Answer, Answers
memory = Answers(Context(cache=Path(sys.argv[1]), checkpoint_seconds=0.0), "x")
start = int(sys.argv[2])
bits = (torch.arange(start, start + 12)[:, None] >> torch.arange(12)) % 2 == 1
for key in memory.keys(bits):
    memory.remember(key, Answer(1.0))
    memory.save()
"""
    runs = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(start)]) for start in (0, 8)]
    assert [run.wait(60) for run in runs] == [0, 0]
    whole = memory(tmp_path)
    assert set(whole.known) == set(keys(20))
    assert whole.store.verify() == []


def test_a_reader_pays_once_and_every_reader_pays():
    made, (a, b) = memory(None), keys(2)
    one, other = Ledger(), Ledger()
    with made.paid_by(one, "x") as payer:
        assert made.recall(a) is None
        made.remember(a, ANSWER)
        assert made.recall(a) == ANSWER
        assert payer.recalled == []
    for ledger, what, bill in ((one, "x", []), (one, "y", [ANSWER]), (other, "x", [ANSWER]), (other, "x", [])):
        with made.paid_by(ledger, what) as payer:
            made.recall(a)
            made.recall(a)
            assert payer.recalled == bill
            payer.recalled.clear()
    made.remember(b, ANSWER)  # outside: nobody has paid
    with made.paid_by(one, "x") as payer:
        made.recall(b)
        assert payer.recalled == [ANSWER]


def test_a_damaged_file_is_refused(tmp_path):
    made = memory(tmp_path)
    made.remember(keys(1)[0], ANSWER)
    made.save()
    path = made.store.folder / FILE
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"answers\.safetensors is damaged: its sha256 is .*delete it and run"):
        memory(tmp_path)


def test_a_file_of_another_form_is_refused(tmp_path):
    made = memory(tmp_path)
    made.store.write_tensors(FILE, {"keys": torch.zeros(2, 32, dtype=torch.uint8), "answers": torch.zeros(1, 5)})
    with pytest.raises(StoreError, match=r"does not hold answers of this version; delete it to make them anew"):
        memory(tmp_path)
