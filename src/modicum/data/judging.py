"""Samples as a judge sees them, and what judges say: a file of labels, or a command that reads JSON lines."""

from __future__ import annotations

import base64
import io
import json
import math
import os
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from modicum.data.bundled import BUNDLED
from modicum.data.files import TABLES, open_table
from modicum.data.load import training_file
from modicum.data.raw import Options
from modicum.data.tables import interpret
from modicum.data.text import decode
from modicum.dataset import Dataset
from modicum.errors import DataError, ModicumError

__all__ = ["CommandJudge", "Judge", "checked_scores", "read_judgments", "samples_of"]

Sample: TypeAlias = "dict[str, Any]"
Judge: TypeAlias = "Callable[[list[Sample]], Sequence[float]]"
WORDS = {"good": 1.0, "bad": 0.0, "true": 1.0, "false": 0.0, "yes": 1.0, "no": 0.0}
SCORES = ("label", "score", "quality", "judgment", "good")
TOLD = 300  # characters of what a command printed that an error repeats


def read_judgments(path: str | os.PathLike[str]) -> dict[str, float]:
    """What a file of labels says: a score for each id.

    Args:
        path: .csv, .tsv, .jsonl or .parquet with a column `id` and one of `label`, `score`, `quality`, `judgment`, `good`,
            of numbers, or of the words good and bad, true and false, yes and no.

    Returns:
        Scores by id, ids as texts.

    Raises:
        DataError: The file, a column or a value cannot be used.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "judged.csv"
        >>> _ = file.write_text("id,label\\n7,good\\n9,bad\\n")
        >>> read_judgments(file)
        {'7': 1.0, '9': 0.0}
    """
    file = Path(path)
    if not file.is_file() or file.suffix.lower() not in TABLES:
        raise DataError(
            f"{file} is not there as a file of labels; expected one of {', '.join(TABLES)} with id and label"
        )
    stream = open_table(file, Options(header=True))
    names = {name.lower(): name for name in stream.schema.names}
    column = next((names[name] for name in SCORES if name in names), None)
    if "id" not in names or column is None:
        raise DataError(f"{file} has the columns {stream.schema.names}; expected id and label")
    found: dict[str, float] = {}
    for batch in stream.batches([names["id"], column]):
        for name, value in zip(batch[names["id"]].to_pylist(), batch[column].to_pylist(), strict=True):
            if value is None or value == "":
                continue  # not judged yet
            if str(name) in found:
                raise DataError(f"{file}: id {name!r} stands twice; expected one label a sample")
            found[str(name)] = _score(value, f"{file}: {column} of id {name!r}")
    if not found:
        raise DataError(f"{file} has no labels; expected rows of id and label")
    return found


def _score(value: Any, where: str) -> float:
    if isinstance(value, str) and value.strip().lower() in WORDS:
        return WORDS[value.strip().lower()]
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise DataError(f"{where} is {value!r}; expected a number, or good or bad")
    return number


def checked_scores(given: Any, count: int, who: str) -> list[float]:
    """The scores that a judge gave for so many samples.

    Args:
        given: Numbers, truth values, or the words good and bad.
        count: Of the samples.
        who: The judge, for errors.

    Returns:
        Numbers.

    Raises:
        DataError: Another number of them, or something else.

    Example:
        >>> checked_scores([True, 0.25, "bad"], 3, "the judge")
        [1.0, 0.25, 0.0]
    """
    try:
        scores = list(given)
    except TypeError:
        raise DataError(f"{who} gave a {type(given).__name__}; expected a list of {count} scores") from None
    if len(scores) != count:
        raise DataError(f"{who} gave {len(scores)} scores for {count} samples; expected one for each, in their order")
    return [_score(value, f"{who}: score {i + 1} of {count}") for i, value in enumerate(scores)]


@dataclass(frozen=True)
class CommandJudge:
    """A command that reads a JSON object for each sample, one a line, and writes one score for each, one a line.

    It is started once for each batch, without a shell (`sh -c "..."` gives one), reads until the end of its input and must
    end with the status 0. What it writes to its standard error is shown only when it fails. When it takes too long, or
    this program is interrupted, it is stopped with all that it started.

    Args:
        command: As it would be typed, quotes included.
        timeout: Seconds that a batch may take.

    Raises:
        ModicumError: The command is empty or not to be understood.

    Example:
        >>> import sys
        >>> judge = CommandJudge(f'{sys.executable} -c "import sys; [print(len(line)) for line in sys.stdin]"')
        >>> judge([{"id": 1}, {"id": 22}])
        [10.0, 11.0]
    """

    command: str
    timeout: float = 600.0

    def __post_init__(self) -> None:
        if not self.words:
            raise ModicumError("command='' is empty; expected a program that reads JSON lines and writes scores")
        if not self.timeout > 0:
            raise ModicumError(f"timeout={self.timeout}; expected seconds > 0")

    @property
    def words(self) -> list[str]:
        """The command and its arguments."""
        try:
            return shlex.split(self.command)
        except ValueError as error:
            raise ModicumError(f"command={self.command!r} is not to be understood: {error}") from None

    def __call__(self, samples: list[Sample]) -> list[float]:
        """The scores of some samples.

        Raises:
            ModicumError: It cannot be started, takes too long, fails, or writes something else than scores.
        """
        lines = "".join(json.dumps(_plain(sample), ensure_ascii=False, allow_nan=False) + "\n" for sample in samples)
        who = f"command {self.command!r}"
        # a file and no pipe: a command that ends before it has read all must not end this program too
        try:
            with tempfile.TemporaryFile() as given:
                given.write(lines.encode(errors="replace"))
                given.seek(0)
                status, out, told = _ran(self.words, given, self.timeout)
        except subprocess.TimeoutExpired:
            raise ModicumError(
                f"{who} gave no answer on {len(samples)} samples within {self.timeout:g} s; it was stopped: raise timeout, "
                "or check that it ends when its input does"
            ) from None
        except OSError as error:
            raise ModicumError(f"{who} cannot be started: {error.strerror or error}") from None
        if status:
            end = told.strip()[-TOLD:]
            raise ModicumError(f"{who} ended with the status {status}{f': ...{end}' if end else ''}")
        answers = [line.strip() for line in out.splitlines() if line.strip()]
        return checked_scores(answers, len(samples), who)


def _ran(words: list[str], given: Any, timeout: float) -> tuple[int, str, str]:
    """Status, output and errors of a command, which is the first of its own group of processes."""
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdin=given, stdout=pipe, stderr=pipe, start_new_session=True) as running:
        try:
            out, told = running.communicate(timeout=timeout)
        except BaseException:
            with suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGKILL)
            raise
    return running.returncode, out.decode(errors="replace"), told.decode(errors="replace")


def samples_of(data: Any, dataset: Dataset, positions: Sequence[int], **options: Any) -> list[Sample]:
    """Samples as plain dictionaries: `id` and what they are.

    Rows of a table file come with all their columns as they stand in the file; other texts with `text`, tables with their
    columns, images with `image`, an array (h, w) or (h, w, 3) of bytes. The name of the class is `label`.

    Args:
        data: What the data set was loaded from.
        dataset: The data set.
        positions: Of the samples.
        options: `inputs`, `label` and `header`, as they were given to `modicum.load`.

    Returns:
        A dictionary for each position.

    Example:
        >>> from modicum.data import load
        >>> train = load("iris").train
        >>> sorted(samples_of("iris", train, [0])[0])[:3]
        ['id', 'label', 'petal length (cm)']
    """
    some = dataset[np.asarray(positions, dtype=np.int64)]
    rows: list[Sample] = _file_rows(data, some, options)
    names = some.info.classes
    classified = some.targets is not None and some.info.task == "classification"
    for i, row in enumerate(rows):
        if some.info.modality == "image":
            row["image"] = picture(some, i)
        elif len(row) == 1 and some.info.modality == "text" and some.info.vocabulary:
            row["text"] = decode(some, i)
        elif len(row) == 1:
            values = some.inputs[i].flatten().tolist()
            columns = some.info.columns or [f"column_{j}" for j in range(len(values))]
            row.update(zip(columns, values, strict=True))
        if classified:
            row.setdefault("label", names[int(some.labels[i])])
        elif some.targets is not None and some.targets.ndim == 1:
            row.setdefault("label", float(some.targets[i]))
    return rows


def _file_rows(data: Any, some: Dataset, options: Mapping[str, Any]) -> list[Sample]:
    """The rows as they stand in a table file, with the ids; ids alone where there is none."""
    ids = some.ids.tolist()
    bare: list[Sample] = [{"id": name} for name in ids]
    if not isinstance(data, (str, os.PathLike)) or data in BUNDLED or str(data).startswith("hf:"):
        return bare
    file = training_file(Path(data))
    if file is None or file.suffix.lower() not in TABLES:
        return bare
    inputs = options.get("inputs") or ()
    asked = Options(
        (inputs,) if isinstance(inputs, str) else tuple(inputs), options.get("label"), header=options.get("header")
    )
    stream = open_table(file, asked)
    raw = interpret(stream, asked, labelled=False)
    wanted = {name: i for i, name in enumerate(ids)}
    texts = [field.name for field in stream.schema if not _binary(field.type)]
    if not texts:
        return bare
    start = 0
    for batch in stream.batches(texts):
        names = raw.ids[start : start + len(batch)].tolist()
        start += len(batch)
        for row in [row for row, name in enumerate(names) if name in wanted]:
            bare[wanted[names[row]]] |= {k: v for k, v in batch.slice(row, 1).to_pylist()[0].items() if k != "id"}
    return bare


def _binary(kind: Any) -> bool:
    """Whether a column holds images."""
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return bool(kind.get_field_index("bytes") >= 0)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def picture(dataset: Dataset, row: int) -> np.ndarray[Any, Any]:
    """(h, w) or (h, w, 3) bytes of an image."""
    pixels = dataset.inputs[row].numpy()
    if pixels.dtype != np.uint8:
        low, high = float(min(0, pixels.min())), float(pixels.max())
        high = next((top for top in (1.0, 16.0, 255.0) if high <= top), high)
        pixels = np.rint((pixels - low) / max(high - low, 1e-12) * 255).astype(np.uint8)
    return np.ascontiguousarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))


def _plain(sample: Sample) -> Sample:
    """Images as PNG in base64, the rest as JSON has it."""
    from PIL import Image

    made = dict(sample)
    if isinstance(made.get("image"), np.ndarray):
        buffer = io.BytesIO()
        Image.fromarray(made["image"]).save(buffer, "PNG", compress_level=1)
        made["image"] = base64.b64encode(buffer.getvalue()).decode("ascii")
    return {key: _json(value) for key, value in made.items()}


def _json(value: Any) -> Any:
    """A value as any reader of JSON understands it: null for numbers that are none, texts for dates and the like."""
    if isinstance(value, dict):
        return {str(key): _json(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, (str, int, float, type(None))) else str(value)
