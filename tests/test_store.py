"""The store under everything that can go wrong: failing disks, flipped bits, kill -9, foreign and hostile files."""

from __future__ import annotations

import ast
import errno
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from modicum.errors import StoreError
from modicum.store import Store, pack, unpack


def tensors(seed: int = 0) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return {"weight": torch.randn(40, 50, generator=rng), "steps": torch.arange(7)}


def table() -> pa.Table:
    return pa.table({"id": list(range(500)), "score": [0.5 * i for i in range(500)]})


def filled(folder: Path) -> Store:
    store = Store(folder)
    store.write_json("run.json", {"seed": 0, "method": "el2n", "budgets": list(range(200))})
    store.write_tensors("model.safetensors", tensors())
    store.write_table("scores.parquet", table())
    store.write("report.html", b"<p>" + bytes(range(256)) * 40)
    store.write("fit.state", pack({"next": 3, "state": [tensors(1)]}))
    return store


# -- plain use -------------------------------------------------------------------------------------------------------


def test_every_form_comes_back(tmp_path: Path) -> None:
    store = filled(tmp_path / "a" / "b")
    for opened in (store, Store(store.folder)):
        assert opened.read_json("run.json")["method"] == "el2n"
        assert opened.read_table("scores.parquet").equals(table())
        loaded = opened.read_tensors("model.safetensors")
        assert all(torch.equal(loaded[k], v) for k, v in tensors().items())
        assert opened.names() == ["fit.state", "model.safetensors", "report.html", "run.json", "scores.parquet"]
        assert opened.verify() == []
    assert sorted(p.name for p in store.folder.iterdir()) == ["fit.state", "manifest.json", *store.names()[1:]]


def test_tensors_that_share_memory_or_are_not_contiguous(tmp_path: Path) -> None:
    store, x = Store(tmp_path), torch.arange(12.0).reshape(3, 4)
    store.write_tensors("t", {"a": x, "b": x, "row": x[1], "turned": x.T, "none": x[:0]})
    loaded = store.read_tensors("t")
    assert torch.equal(loaded["a"], x)
    assert torch.equal(loaded["b"], x)
    assert torch.equal(loaded["row"], x[1])
    assert torch.equal(loaded["turned"], x.T)
    assert loaded["none"].shape == (0, 4)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc/x", "manifest.json", ".lock", ".a.1.tmp", "a\0b"])
def test_only_plain_names(tmp_path: Path, name: str) -> None:
    with pytest.raises(StoreError, match="is not a plain file name"):
        Store(tmp_path).write(name, b"")


def test_overwrite_and_remove(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write("a", b"1")
    store.write("a", b"22")
    assert Store(tmp_path).read("a") == b"22"
    store.remove("a")
    store.remove("a")
    assert not store.has("a")
    for opened in (store, Store(tmp_path)):
        assert (opened.names(), opened.verify()) == ([], [])
    Store(tmp_path).write("a", b"3")
    assert store.read("a") == b"3"


def test_two_stores_on_one_folder_keep_each_others_files(tmp_path: Path) -> None:
    first, second = Store(tmp_path), Store(tmp_path)
    first.write("a", b"1")
    second.write("b", b"2")
    first.write("c", b"3")
    second.write("a", b"4")
    assert first.read("a") == second.read("a") == b"4"
    for store in (first, second, Store(tmp_path)):
        assert store.verify() == []
        assert store.names() == ["a", "b", "c"]


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match=r"cannot make the folder .*file"):
        Store(tmp_path / "file")


def test_missing_and_foreign_files(tmp_path: Path) -> None:
    store = filled(tmp_path)
    (tmp_path / "stranger.json").write_text("{}")
    (tmp_path / "run.json").unlink()
    with pytest.raises(StoreError, match=r"run\.json cannot be read: No such file"):
        store.read_json("run.json")
    with pytest.raises(StoreError, match=r"stranger\.json is foreign: it is not in .*manifest\.json"):
        store.read_json("stranger.json")
    with pytest.raises(StoreError, match="foreign"):
        store.path("stranger.json")
    assert [(d.name, d.problem.split(":")[0]) for d in store.verify()] == [
        ("run.json", "missing"), ("stranger.json", "foreign"),
    ]  # fmt: skip


def test_not_json(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write("a.json", b"{")
    store.write("deep.json", b"[" * 100_000)
    for name in ("a.json", "deep.json"):
        with pytest.raises(StoreError, match=f"{name} is not JSON"):
            store.read_json(name)


# -- a disk that fails -----------------------------------------------------------------------------------------------


class FailingDisk:
    """Makes the n-th call of the kind fail, or write only a part; counts the calls."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, call: str, n: int, failure: int | None) -> None:
        self.left, real = n, getattr(os, call)

        def stand_in(*args: Any, **kwargs: Any) -> Any:
            self.left -= 1
            if self.left == 0:
                if failure is not None:
                    raise OSError(failure, os.strerror(failure))
                return real(args[0], bytes(args[1])[: max(1, len(args[1]) // 2)])
            return real(*args, **kwargs)

        monkeypatch.setattr(os, call, stand_in)


FAULTS = [(call, code) for call in ("open", "write", "fsync", "replace") for code in (errno.ENOSPC, errno.EIO)]
WRITES: dict[str, Callable[[Store], object]] = {
    "new bytes": lambda store: store.write("new", b"n" * 1000),
    "over bytes": lambda store: store.write("report.html", b"n" * 1000),
    "over tensors": lambda store: store.write_tensors("model.safetensors", tensors(5)),
    "over table": lambda store: store.write_table("scores.parquet", table().slice(3)),
    "remove": lambda store: store.remove("run.json"),
}


@pytest.mark.parametrize("what", WRITES)
@pytest.mark.parametrize("call,failure", [*FAULTS, ("write", None)])
def test_the_nth_call_fails(tmp_path: Path, what: str, call: str, failure: int | None) -> None:
    filled(tmp_path / "done")
    done = Store(tmp_path / "done")
    WRITES[what](done)
    after = {name: done.read(name) for name in done.names()}
    outcomes = []
    for n in range(1, 20):
        folder = tmp_path / str(n)
        store = filled(folder)
        before = {name: store.read(name) for name in store.names()}
        with pytest.MonkeyPatch.context() as patch:
            disk = FailingDisk(patch, call, n, failure)
            try:
                WRITES[what](store)
                text, expected = "", after
            except StoreError as error:
                text, expected = str(error), before
        if expected is before:
            assert failure is not None
            assert str(folder) in text
            assert os.strerror(failure) in text
        for opened in (store, Store(folder)):
            assert opened.verify() == []
            assert {name: opened.read(name) for name in opened.names()} == expected, (call, n)
        assert not list(folder.glob(".*.tmp"))
        WRITES[what](store)  # when the disk is well again, the same object goes on
        assert {name: store.read(name) for name in store.names()} == after
        assert Store(folder).verify() == []
        outcomes.append(expected is after)
        if disk.left > 0:  # the operation makes fewer than n such calls
            break
    else:
        pytest.fail("the operation never succeeded")
    assert outcomes[-1]


def test_a_full_disk_inside_the_writer_of_tensors(tmp_path: Path) -> None:
    store = filled(tmp_path)
    (tmp_path / f".model.safetensors.{os.getpid()}.tmp").mkdir()  # the writer cannot open its file
    with pytest.raises(StoreError, match=r"cannot write .*model\.safetensors.*before is intact"):
        store.write_tensors("model.safetensors", tensors(3))
    assert torch.equal(store.read_tensors("model.safetensors")["weight"], tensors()["weight"])


def test_an_interrupted_writer_leaves_what_was_there(tmp_path: Path) -> None:
    store = filled(tmp_path)

    def interrupted(path: Path) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    for name in ("report.html", "new"):
        with pytest.raises(KeyboardInterrupt):
            store.write(name, interrupted)
    assert Store(tmp_path).verify() == store.verify() == []
    assert not store.has("new")
    assert not list(tmp_path.glob(".*.tmp"))


# -- damage ----------------------------------------------------------------------------------------------------------


def damages(size: int, rng: random.Random, flips: int) -> Iterator[Callable[[bytearray], None]]:
    for _ in range(flips):
        at, bit = rng.randrange(size), rng.randrange(8)
        yield lambda content, at=at, bit=bit: content.__setitem__(at, content[at] ^ (1 << bit))
    for length in {0, 1, size // 2, size - 1}:
        yield lambda content, length=length: content.__delitem__(slice(length, None))
    for start in range(0, size, 4096):
        yield lambda content, start=start: content.__setitem__(
            slice(start, start + 4096), bytes(len(content[start : start + 4096]))
        )
    yield lambda content: content.append(0)


def test_every_damage_is_found_by_name_and_refused(tmp_path: Path) -> None:
    rng = random.Random(0)
    store, count = filled(tmp_path), 0
    for name in [*store.names(), "manifest.json"]:
        path = tmp_path / name
        whole = path.read_bytes()
        for damage in damages(len(whole), rng, flips=60):
            content = bytearray(whole)
            damage(content)
            if content == whole:
                continue
            path.write_bytes(content)
            count += 1
            assert [d.name for d in store.verify()] == [name]
            if name == "manifest.json":
                with pytest.raises(StoreError, match=r"manifest\.json is damaged"):
                    Store(tmp_path)
            else:
                for opened in (store, Store(tmp_path)):
                    for use in (opened.read, opened.path):
                        with pytest.raises(StoreError, match=f"{re.escape(name)} is damaged: its sha256"):
                            use(name)
        path.write_bytes(whole)
        assert store.verify() == []
    assert count > 350


def test_a_missing_manifest_is_named(tmp_path: Path) -> None:
    store = filled(tmp_path)
    (tmp_path / "manifest.json").unlink()
    assert [d.name for d in store.verify()] == ["manifest.json"]
    assert {d.problem for d in Store(tmp_path).verify()} == {"foreign: not in the manifest"}


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b"null", b"\xff\xfe", b"[" * 100_000, b'{"files": {}, "sha256": "0"}']
)
def test_hostile_manifests(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(StoreError, match=r"manifest\.json is damaged"):
        Store(tmp_path)


def test_a_damaged_file_is_not_blessed_by_an_interrupted_write(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write("a", b"old")
    with pytest.MonkeyPatch.context() as patch:
        FailingDisk(patch, "replace", 2, errno.EIO)
        with pytest.raises(StoreError):
            store.write("a", b"new")
    (tmp_path / "a").write_bytes(b"bad")
    with pytest.MonkeyPatch.context() as patch:
        FailingDisk(patch, "replace", 2, errno.EIO)
        with pytest.raises(StoreError):
            store.write("a", b"newer")
    assert [d.name for d in Store(tmp_path).verify()] == [d.name for d in store.verify()] == ["a"]


# -- kill -9 ---------------------------------------------------------------------------------------------------------

WRITER = """
import sys
from modicum.store import Store

store = Store(sys.argv[1])
with store.locked():
    print("go", flush=True)
    for i in range(10**9):
        store.write_json("a.json", {"i": i, "pad": "x" * 20_000})
        store.write("b.bin", lambda path: path.write_bytes(bytes([i % 256]) * 50_000))
        store.write(f"c{i % 3}", str(i).encode())
        store.remove(f"c{(i + 1) % 3}")
"""


def test_kill_at_random_moments(tmp_path: Path) -> None:
    rng, last = random.Random(1), -1
    for _ in range(20):
        child = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE)
        assert child.stdout is not None
        assert child.stdout.readline() == b"go\n"
        time.sleep(rng.uniform(0, 0.12))
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        store = Store(tmp_path)
        with store.locked():
            assert store.verify() == []
            assert not list(tmp_path.glob(".*.tmp"))
            for name in store.names():
                content = store.read(name)
                if name == "a.json":
                    parsed = json.loads(content)
                    assert parsed["pad"] == "x" * 20_000
                    last = max(last, parsed["i"])
                elif name == "b.bin":
                    assert content == content[:1] * 50_000
                else:
                    assert int(content) % 3 == int(name[1])
    assert last > 0


# -- lock ------------------------------------------------------------------------------------------------------------


def test_lock(tmp_path: Path) -> None:
    store, other = Store(tmp_path), Store(tmp_path)
    (tmp_path / ".a.1.tmp").write_bytes(b"left by a killed process")
    with store.locked():
        assert not (tmp_path / ".a.1.tmp").exists()
        with pytest.raises(StoreError, match="is in use by another process; wait for it or stop it"), other.locked():
            pass
        store.write("a", b"1")
    with other.locked():
        assert other.read("a") == b"1"
    assert store.verify() == []


# -- the resumable loop ----------------------------------------------------------------------------------------------


class Walk:
    """A random walk with its state."""

    def __init__(self) -> None:
        self.at, self.trace = torch.zeros(3), []  # type: ignore[var-annotated]

    def state_dict(self) -> dict[str, Any]:
        return {"at": self.at, "trace": self.trace}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.at, self.trace = state["at"], state["trace"]


def walk(store: Store, total: int, stop: int | None, every: float = 0.0, fresh: object = 1) -> tuple[Walk, list[int]]:
    state, rng, done = Walk(), torch.Generator().manual_seed(3), []
    for step in store.loop("walk", total, [state, rng], every, fresh):
        if step == stop:
            break
        state.at = state.at + torch.randn(3, generator=rng)
        state.trace.append(float(torch.rand((), generator=rng)))
        done.append(step)
    return state, done


@pytest.mark.parametrize("stops", [[1], [5], [9], [2, 6], [0, 0, 3]])
def test_loop_resumes_to_the_same_bits(tmp_path: Path, stops: list[int]) -> None:
    whole, steps = walk(Store(tmp_path / "whole"), 10, None)
    assert steps == list(range(10))
    for stop in stops:
        walk(Store(tmp_path / "cut"), 10, stop)
    resumed, rest = walk(Store(tmp_path / "cut"), 10, None)
    assert rest == list(range(stops[-1], 10))
    assert torch.equal(resumed.at, whole.at)
    assert resumed.trace == whole.trace


def test_loop_saves_only_every_so_often(tmp_path: Path) -> None:
    store = Store(tmp_path)
    walk(store, 10, 5, every=1000.0)
    assert not store.has("walk.state")
    assert walk(store, 10, None, every=1000.0)[1] == list(range(10))


def test_loop_starts_afresh_when_the_work_is_another(tmp_path: Path) -> None:
    store = Store(tmp_path)
    walk(store, 10, 5, fresh={"lr": 0.1})
    assert walk(store, 10, None, fresh={"lr": 0.2})[1] == list(range(10))


def test_loop_refuses_a_damaged_or_foreign_state(tmp_path: Path) -> None:
    store = Store(tmp_path)
    walk(store, 10, 5)
    with pytest.raises(StoreError, match=r"walk\.state holds 2 states but the work has 1"):
        next(store.loop("walk", 10, [Walk()], fresh=1))
    store.write("walk.state", pack({"something": "else"}))
    with pytest.raises(StoreError, match=r"walk\.state is not a saved state of a loop"):
        walk(store, 10, None)
    (tmp_path / "walk.state").write_bytes(b"x")
    with pytest.raises(StoreError, match=r"walk\.state is damaged"):
        walk(store, 10, None)


# -- pack and unpack -------------------------------------------------------------------------------------------------

KINDS = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int8, torch.uint8, torch.bool]


@st.composite
def any_tensor(draw: st.DrawFn) -> Tensor:
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    return torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(0)).to(draw(st.sampled_from(KINDS)))


leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5) | any_tensor()
keys = st.text(max_size=4) | st.integers() | st.tuples(st.integers(), st.text(max_size=2))
structures = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3) | st.lists(inner, max_size=3).map(tuple) | st.dictionaries(keys, inner, max_size=3)
    ),
    max_leaves=8,
)


def same(a: Any, b: Any) -> bool:
    if type(a) is not type(b):
        return False
    if isinstance(a, Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


@settings(max_examples=150, deadline=None)
@given(structures)
def test_pack_round_trip(state: Any) -> None:
    content = pack(state)
    assert same(unpack(content), state)
    assert pack(state) == content


def test_pack_keeps_no_views_and_not_a_number() -> None:
    x = torch.arange(4.0)
    a, b, nan = unpack(pack([x, x[1:], float("nan")]))
    a += 1
    assert b.tolist() == [1, 2, 3]
    assert nan != nan


def test_pack_refuses_what_it_cannot_keep() -> None:
    with pytest.raises(StoreError, match="state holds a set; only tensors, numbers"):
        pack({"a": {1, 2}})


def packed(skeleton: str, header: dict[str, Any] | None = None, body: bytes = b"") -> bytes:
    text = json.dumps({"__metadata__": {"skeleton": skeleton}, **(header or {})}).encode()
    return len(text).to_bytes(8, "little") + text + body


def entry(*offsets: int, shape: list[int], dtype: str = "F32") -> dict[str, Any]:
    return {"0": {"dtype": dtype, "shape": shape, "data_offsets": list(offsets)}}


HOSTILE = {
    "empty": b"",
    "short": b"\x01\x02",
    "huge header": (1 << 62).to_bytes(8, "little") + b"{}",
    "largest header": b"\xff" * 8 + b"{}",
    "header of nothing": (0).to_bytes(8, "little"),
    "not JSON": (4).to_bytes(8, "little") + b"abcd",
    "not UTF-8": (4).to_bytes(8, "little") + b"\xff\xfe\xfd\xfc",
    "no metadata": (2).to_bytes(8, "little") + b"{}",
    "a list": (2).to_bytes(8, "little") + b"[]",
    "deep header": (200_000).to_bytes(8, "little") + b"[" * 200_000,
    "deep skeleton": packed("[" * 200_000),
    "skeleton not JSON": packed("{"),
    "skeleton not text": len(b'{"__metadata__":{"skeleton":3}}').to_bytes(8, "little")
    + b'{"__metadata__":{"skeleton":3}}',
    "unknown tensor": packed('{"tensor": "7"}'),
    "tensor of a list": packed('{"tensor": ["7"]}'),
    "pairs of nothing": packed('{"pairs": 3}'),
    "pairs not pairs": packed('{"pairs": [[1]]}'),
    "unhashable key": packed('{"pairs": [[[1], 2]]}'),
    "unknown form": packed('{"what": 1}'),
    "negative offset": packed('{"tensor": "0"}', entry(-4, 4, shape=[2]), bytes(8)),
    "offsets turned": packed('{"tensor": "0"}', entry(8, 0, shape=[2]), bytes(8)),
    "offset beyond": packed('{"tensor": "0"}', entry(0, 1 << 40, shape=[1 << 38]), bytes(8)),
    "shape too large": packed('{"tensor": "0"}', entry(0, 8, shape=[1 << 40]), bytes(8)),
    "shape overflows": packed('{"tensor": "0"}', entry(0, 8, shape=[1 << 62, 1 << 62]), bytes(8)),
    "unknown dtype": packed('{"tensor": "0"}', entry(0, 8, shape=[2], dtype="X9"), bytes(8)),
    "truncated": pack({"a": torch.ones(100)})[:-3],
    "longer": pack({"a": torch.ones(100)}) + b"\0",
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_hostile_states_are_refused_fast_and_with_little_memory(content: bytes) -> None:
    tracemalloc.start()
    started = time.perf_counter()
    with pytest.raises(StoreError, match="not a saved state"):
        unpack(content)
    assert time.perf_counter() - started < 1
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_mutated_states_never_crash(data: st.DataObject) -> None:
    content = bytearray(pack({"next": 3, "state": [{"w": torch.ones(3), "t": (1, "a")}]}))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with suppress(StoreError):  # any other exception fails the test
        unpack(bytes(content))


# -- what is never done ----------------------------------------------------------------------------------------------


def calls_and_imports(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, f"import {alias.name}") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, f"import {node.module}"
        elif isinstance(node, ast.Call):
            yield node.lineno, f"{ast.unparse(node.func)}("
            yield from ((node.lineno, f"{k.arg}={ast.unparse(k.value)}") for k in node.keywords)


def test_nothing_is_unpickled_or_evaluated() -> None:
    forbidden = re.compile(
        r"import (pickle|_pickle|cPickle|dill|cloudpickle|marshal|shelve|joblib)\b|^(builtins\.)?(eval|exec|compile)\($"
        r"|torch\.(load|save|jit\.load|package)\b|allow_pickle=True|weights_only=False"
    )
    source = Path(__file__).parents[1] / "src" / "modicum"
    found = [
        f"{path.relative_to(source)}:{line}: {what}"
        for path in sorted(source.rglob("*.py"))
        for line, what in calls_and_imports(path)
        if forbidden.search(what)
    ]
    assert found == []
