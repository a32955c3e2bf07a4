"""A folder that never lies: atomic writes, a sha256 for every file, and the one resumable loop."""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from modicum.errors import StoreError

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Generator, Tensor

__all__ = ["Damage", "Stateful", "Store", "pack", "unpack"]

MANIFEST = "manifest.json"
LOCK = ".lock"


@runtime_checkable
class Stateful(Protocol):
    """Anything whose state is a nested structure of tensors, numbers, strings, lists and dictionaries."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any], /) -> Any: ...


@dataclass(frozen=True)
class Damage:
    """A file that is not what was written: its name and what is wrong with it."""

    name: str
    problem: str


class Store:
    """A run folder or an entry of the cache.

    Every write goes to a temporary file that is flushed to disk and renamed, after the manifest has learned the new
    sha256 beside the old one: whenever the process dies, each file is the new one or the old one, and known.

    Args:
        folder: Where; made when missing.

    Raises:
        StoreError: The folder cannot be made, or its manifest is damaged.

    Example:
        >>> import tempfile
        >>> store = Store(tempfile.mkdtemp())
        >>> _ = store.write_json("run.json", {"seed": 0})
        >>> store.read_json("run.json"), store.verify()
        ({'seed': 0}, [])
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self._checked: dict[str, tuple[int, ...]] = {}
        self._manifest_seen: tuple[int, ...] = ()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"cannot make the folder {self.folder}: {error.strerror}") from error
        self._files = self._load_manifest()

    def __repr__(self) -> str:
        return f"Store({str(self.folder)!r})"

    # -- files -----------------------------------------------------------------------------------------------------

    def names(self) -> list[str]:
        """Names of the files that are there and known, sorted."""
        return sorted(name for name in self._files if (self.folder / name).is_file())

    def has(self, name: str) -> bool:
        """Whether the file is there and was written by this store."""
        return name in self._files and (self.folder / name).is_file()

    def write(self, name: str, content: bytes | Callable[[Path], object]) -> Path:
        """Write a file whole or not at all.

        Args:
            name: File name, without folders, not starting with a dot.
            content: The bytes, or a function that writes them to the path it is given.

        Returns:
            The path of the file.

        Raises:
            StoreError: The name is not a plain one, or the disk refuses; what was there before is intact.
        """
        if not name or name.startswith(".") or name == MANIFEST or "/" in name or "\0" in name:
            raise StoreError(f"{name!r} is not a plain file name")
        path, temporary = self.folder / name, self.folder / f".{name}.{os.getpid()}.tmp"
        try:
            if callable(content):
                content(temporary)
                with _opened(temporary, os.O_RDWR) as handle:
                    os.fsync(handle)
                digest = _sha256(temporary)
            else:
                _write_file(temporary, content)
                digest = hashlib.sha256(content).hexdigest()
            self._refresh()
            before = self._files.get(name)
            try:
                self._files[name] = [digest, self._digest_now(name)]
                self._save_manifest()
                os.replace(temporary, path)
            except BaseException:
                if before is None:
                    del self._files[name]
                else:
                    self._files[name] = [*before, digest]  # whichever of them the file is, it is known
                raise
            self._files[name] = [digest]
            with suppress(OSError):  # the rename is done; should it not last, the old file is known as well
                _sync_folder(self.folder)
        except OSError as error:
            raise StoreError(
                f"cannot write {path}: {error.strerror or error}; what was there before is intact"
            ) from error
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        self._checked.pop(name, None)
        return path

    def _digest_now(self, name: str) -> str:
        """The known sha256 that the file has now; empty when there is none."""
        path, known = self.folder / name, self._files.get(name, [""])
        if not path.is_file():
            return ""
        if len(known) > 1:  # a rename that may not have happened: ask the file
            digest = _sha256(path)
            return digest if digest in known else known[0]
        return known[0]

    def path(self, name: str) -> Path:
        """The path of a file, after its bytes were checked against the manifest (once, until it changes).

        Raises:
            StoreError: It is missing, foreign or damaged.
        """
        path = self.folder / name
        try:
            stat = path.stat()
            seen = (*_identity(stat), stat.st_ctime_ns)
            if name not in self._files or self._checked.get(name) != seen:
                self._check(name, lambda: _sha256(path))
        except OSError as error:
            raise StoreError(f"{path} cannot be read: {error.strerror}") from error
        self._checked[name] = seen
        return path

    def read(self, name: str) -> bytes:
        """The bytes of a file, checked.

        Raises:
            StoreError: It is missing, foreign or damaged.
        """
        path = self.folder / name
        try:
            content = path.read_bytes()
        except OSError as error:
            raise StoreError(f"{path} cannot be read: {error.strerror}") from error
        self._check(name, lambda: hashlib.sha256(content).hexdigest())
        return content

    def _check(self, name: str, digest_of: Callable[[], str]) -> None:
        path = self.folder / name
        if name not in self._files:
            self._refresh()
        if name not in self._files:
            raise StoreError(f"{path} is foreign: it is not in {self.folder / MANIFEST}")
        digest = digest_of()
        if digest not in self._files[name]:
            self._refresh()  # another process may have written it
        if digest not in self._files[name]:
            raise StoreError(
                f"{path} is damaged: its sha256 is {digest[:12]}..., expected {self._files[name][0][:12]}...; "
                "delete it and run the same command again to make it anew"
            )

    def remove(self, name: str) -> None:
        """Forget a file; removing one that is not there is no error.

        Raises:
            StoreError: The disk refuses; the file is still there.
        """
        self._refresh()
        known = self._files.get(name)
        if known is None:
            return
        self._files[name] = [*known, ""]  # from here on it may be missing
        try:
            self._save_manifest()
            (self.folder / name).unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(f"cannot remove {self.folder / name}: {error.strerror or error}") from error
        del self._files[name]
        self._checked.pop(name, None)

    def verify(self) -> list[Damage]:
        """Every file against the manifest, and every file that the manifest does not know; nothing is changed."""
        damages = []
        try:
            self._refresh()
        except StoreError as error:
            damages.append(Damage(MANIFEST, str(error)))
        if self._manifest_seen and not (self.folder / MANIFEST).is_file():
            damages.append(Damage(MANIFEST, "missing"))
        for name, digests in sorted(self._files.items()):
            path = self.folder / name
            if not path.is_file():
                if "" not in digests:  # it is there where a first write or a removal never finished
                    damages.append(Damage(name, "missing"))
            elif _sha256(path) not in digests:
                damages.append(Damage(name, f"damaged ({path.stat().st_size} bytes)"))
        for path in sorted(self.folder.iterdir()):
            ours = path.name in (MANIFEST, LOCK) or (path.name.startswith(".") and path.name.endswith(".tmp"))
            if path.is_file() and path.name not in self._files and not ours:
                damages.append(Damage(path.name, "foreign: not in the manifest"))
        return damages

    @contextmanager
    def locked(self, wait: bool = False) -> Iterator[None]:
        """Hold the folder for this process.

        Args:
            wait: Until another process lets go, instead of raising.

        Raises:
            StoreError: Another process holds it.
        """
        try:
            handle = open(self.folder / LOCK, "w")  # noqa: SIM115  # closed below
        except OSError as error:
            raise StoreError(f"cannot lock {self.folder}: {error.strerror}") from error
        with handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except OSError as error:
                raise StoreError(f"{self.folder} is in use by another process; wait for it or stop it") from error
            for left in self.folder.glob(".*.tmp"):
                left.unlink(missing_ok=True)
            self._files = self._load_manifest()
            yield

    # -- forms -----------------------------------------------------------------------------------------------------

    def write_json(self, name: str, value: Any) -> Path:
        """Write JSON text."""
        return self.write(name, json.dumps(value, indent=1, sort_keys=True).encode())

    def read_json(self, name: str) -> Any:
        """Read JSON text, checked."""
        try:
            return json.loads(self.read(name))
        except (ValueError, RecursionError) as error:
            raise StoreError(f"{self.folder / name} is not JSON: {error}") from error

    def write_table(self, name: str, table: pa.Table) -> Path:
        """Write a pyarrow table as Parquet."""
        import pyarrow.parquet as pq

        buffer = io.BytesIO()
        pq.write_table(table, buffer)
        return self.write(name, buffer.getvalue())

    def read_table(self, name: str) -> pa.Table:
        """Read a Parquet table, checked."""
        import pyarrow.parquet as pq

        return pq.read_table(self.path(name))

    def write_tensors(self, name: str, tensors: dict[str, Tensor]) -> Path:
        """Write tensors as safetensors; only those that share memory or are not contiguous are copied."""
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        whole: dict[str, Tensor] = {}
        storages: set[int] = set()
        for key, value in tensors.items():
            tensor = value.detach().cpu().contiguous()
            pointer = tensor.untyped_storage().data_ptr()
            whole[key] = tensor.clone() if pointer in storages else tensor
            storages.add(pointer)

        def save(path: Path) -> None:
            try:
                save_file(whole, path)
            except SafetensorError as error:
                raise OSError(str(error)) from error

        return self.write(name, save)

    def read_tensors(self, name: str) -> dict[str, Tensor]:
        """Read safetensors, checked; the tensors are mapped from the file."""
        from safetensors.torch import load_file

        return dict(load_file(self.path(name)))

    # -- the resumable loop ----------------------------------------------------------------------------------------

    def loop(
        self,
        name: str,
        total: int,
        state: Sequence[Stateful | Generator],
        every: float = 30.0,
        fresh: object = None,
        stop: Callable[[], bool] | None = None,
    ) -> Iterator[int]:
        """Steps 0..total-1 of long work, or the rest of them after an interruption.

        The state is saved every so many seconds between two steps and loaded again when the loop starts, so whoever
        is killed continues from the last save to the same bits. Call `remove(f"{name}.state")` when the result of the
        work is written.

        Args:
            name: Of the work; the state is `{name}.state` in this folder.
            total: Number of steps.
            state: What the steps change: `Stateful` things and `torch.Generator`s.
            every: Seconds between two saves.
            fresh: A description of the work; a saved state with another description is not continued but replaced.
            stop: Asked after every step: when it says so, the state is saved and the loop ends.

        Yields:
            The number of the step to do now.

        Raises:
            StoreError: The saved state is damaged or is that of something else.
        """
        first, file = 0, f"{name}.state"
        if self.has(file):
            saved = unpack(self.read(file))
            if not isinstance(saved, dict) or set(saved) != {"work", "next", "state"}:
                raise StoreError(f"{self.folder / file} is not a saved state of a loop; delete it to start afresh")
            if saved["work"] == repr(fresh):
                if len(saved["state"]) != len(state):
                    raise StoreError(
                        f"{self.folder / file} holds {len(saved['state'])} states but the work has {len(state)}; "
                        "delete it to start afresh"
                    )
                for part, loaded in zip(state, saved["state"]):
                    _load_state(part, loaded)
                first = saved["next"]
        last_save = time.monotonic()
        for step in range(first, total):
            yield step
            stopped = stop is not None and stop()
            if stopped or (time.monotonic() - last_save >= every and step + 1 < total):
                content = {"work": repr(fresh), "next": step + 1, "state": [_state_of(part) for part in state]}
                self.write(file, pack(content))
                last_save = time.monotonic()
            if stopped:
                return

    # -- manifest --------------------------------------------------------------------------------------------------

    def _load_manifest(self) -> dict[str, list[str]]:
        path = self.folder / MANIFEST
        try:
            with open(path, "rb") as handle:
                content, seen = handle.read(), _identity(os.fstat(handle.fileno()))
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise StoreError(f"{path} cannot be read: {error.strerror}") from error
        try:
            parsed = json.loads(content)
            files = parsed["files"]
            if parsed["sha256"] != _digest_of(files):
                raise ValueError("its checksum is wrong")
            found = {str(name): [str(digest) for digest in digests] for name, digests in files.items()}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise StoreError(f"{path} is damaged ({error}); the files in this folder cannot be trusted") from error
        self._manifest_seen = seen
        return found

    def _refresh(self) -> None:
        """Learn what another writer of the same folder has entered since."""
        try:
            seen = _identity(os.stat(self.folder / MANIFEST))
        except OSError:
            return
        if seen != self._manifest_seen:
            self._files = self._load_manifest()

    def _save_manifest(self) -> None:
        temporary = self.folder / f".{MANIFEST}.{os.getpid()}.tmp"
        content = {"sha256": _digest_of(self._files), "files": self._files}
        try:
            _write_file(temporary, json.dumps(content, indent=1, sort_keys=True).encode())
            seen = _identity(os.stat(temporary))
            os.replace(temporary, self.folder / MANIFEST)
            self._manifest_seen = seen
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def _identity(stat: os.stat_result) -> tuple[int, ...]:
    return stat.st_ino, stat.st_mtime_ns, stat.st_size


def _state_of(part: Stateful | Generator) -> Any:
    return part.state_dict() if isinstance(part, Stateful) else part.get_state()


def _load_state(part: Stateful | Generator, state: Any) -> None:
    if isinstance(part, Stateful):
        part.load_state_dict(state)
    else:
        part.set_state(state)


def pack(state: Any) -> bytes:
    """A nested structure as safetensors bytes: the tensors, and a JSON skeleton with their places.

    Example:
        >>> import torch
        >>> unpack(pack({"step": 3, "weights": [torch.ones(2)]}))
        {'step': 3, 'weights': [tensor([1., 1.])]}
    """
    from safetensors.torch import save

    tensors: dict[str, Tensor] = {}
    skeleton = json.dumps(_skeleton(state, tensors))
    return bytes(save(tensors, metadata={"skeleton": skeleton}))


def unpack(content: bytes) -> Any:
    """The inverse of `pack`.

    Raises:
        StoreError: The bytes are not such a structure.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        size = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + size])
        return _fill(json.loads(header["__metadata__"]["skeleton"]), load(content))
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise StoreError(f"not a saved state: {error}") from error


def _skeleton(value: Any, tensors: dict[str, Tensor]) -> Any:
    import torch

    if isinstance(value, torch.Tensor):
        key = str(len(tensors))
        tensors[key] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
        return {"tensor": key}
    if isinstance(value, dict):
        return {"pairs": [[_skeleton(k, tensors), _skeleton(v, tensors)] for k, v in value.items()]}
    if isinstance(value, tuple):
        return {"tuple": [_skeleton(v, tensors) for v in value]}
    if isinstance(value, list):
        return [_skeleton(v, tensors) for v in value]
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    raise StoreError(
        f"state holds a {type(value).__name__}; only tensors, numbers, strings, lists and dictionaries are saved"
    )


def _fill(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_fill(v, tensors) for v in value]
    if isinstance(value, dict):
        if "tensor" in value:
            return tensors[value["tensor"]]
        if "tuple" in value:
            return tuple(_fill(v, tensors) for v in value["tuple"])
        return {_fill(k, tensors): _fill(v, tensors) for k, v in value["pairs"]}
    return value


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    handle = os.open(path, flags, 0o644)
    try:
        yield handle
    finally:
        os.close(handle)


def _write_file(path: Path, content: bytes) -> None:
    with _opened(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as handle:
        view = memoryview(content)
        while view:
            view = view[os.write(handle, view) :]
        os.fsync(handle)


def _sync_folder(folder: Path) -> None:
    with _opened(folder, os.O_RDONLY) as handle:
        os.fsync(handle)


def _sha256(path: Path) -> str:
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _digest_of(files: dict[str, list[str]]) -> str:
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
