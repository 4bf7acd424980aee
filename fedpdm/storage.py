"""Atomic file writes, named tensors on disk (safetensors), and trees of values with arrays.

A tree of plain values with arrays in it (a strategy's memory) is split into a JSON text and
named arrays, so that nothing that is read back can run code.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpdm.errors import HistoryError

Arrays = dict[str, NDArray[Any]]

_DTYPES = frozenset(
    {"bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"}
    | {"float16", "float32", "float64", "complex64"}
)
_JSON_INT = 2**63
LARGEST = {".json": 1 << 28, ".yaml": 1 << 24, ".csv": 1 << 30, ".gz": 1 << 28}
"""Bytes of the largest file of a kind that is read whole; tensors have no bound of their own."""
DEEPEST = 64
"""Levels of JSON and YAML in a file that others may have written."""


# Files --------------------------------------------------------------------------------


def write_bytes(path: Path, data: bytes) -> str:
    """Write ``data`` to ``path`` atomically and durably, and return its sha256.

    After a crash the file is the old one or the new one, never a part of either.

    Raises:
        HistoryError: the disk is full, or the folder cannot be written. The old file stays.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise HistoryError(
            f"{path} cannot be written ({error.strerror or error}): free space in {path.parent}, "
            "change its permissions, or choose another folder"
        ) from error
    return hashlib.sha256(data).hexdigest()


def write_tensors(path: Path, tensors: Mapping[str, NDArray[Any]]) -> str:
    """Write ``tensors`` to ``path`` atomically and durably, and return the file's sha256.

    Dtype and shape are kept, the shape ``()`` too; equal tensors give equal files.

    Raises:
        HistoryError: the folder cannot be written, or a dtype has no place in the format.
    """
    from safetensors.numpy import save

    for name, value in tensors.items():
        if value.dtype.name not in _DTYPES or not value.dtype.isnative:
            raise HistoryError(
                f"{path}: tensor {name!r} of dtype {value.dtype.str} cannot be stored; "
                f"use one of {', '.join(sorted(_DTYPES))} in the machine's byte order"
            )
    # The format stores memory as it lies: an array must lie in C order, alone.
    return write_bytes(path, save({k: np.array(v, order="C") for k, v in tensors.items()}))


def read_bytes(path: Path, sha256: str | None = None) -> bytes:
    """Return the content of ``path``, compared with ``sha256`` where that is given.

    Raises:
        HistoryError: the file is missing, unreadable, or not the one with this checksum.
    """
    try:
        # A pipe or a device would never end, and a link shows what is no part of the folder.
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise HistoryError(f"{path} cannot be read (a link, or no regular file)")
        if path.exists() and path.stat().st_size > LARGEST.get(path.suffix, 1 << 40):
            raise HistoryError(f"{path} is too large to be a file of a run")
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise HistoryError(f"{path} is missing") from error
    except OSError as error:
        raise HistoryError(f"{path} cannot be read ({error.strerror or error})") from error
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
        raise HistoryError(
            f"{path} is damaged: its checksum is not the recorded one ({sha256[:12]}…)"
        )
    return content


def sha256_of(path: Path) -> str:
    """Return the hex sha256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_tensors(path: Path, sha256: str | None = None) -> Arrays:
    """Return the tensors in ``path`` by name in alphabetical order, in memory of their own.

    Raises:
        HistoryError: the file is missing, truncated, altered, or not safetensors.
    """
    return parse_tensors(read_bytes(path, sha256), path)


def parse_tensors(content: bytes, where: Path) -> Arrays:
    """Return the tensors in the content of a file, as ``read_tensors`` does.

    Raises:
        HistoryError: it is not safetensors.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        # The library's own order differs from call to call; sums over tensors must not.
        return {name: np.array(value) for name, value in sorted(load(content).items())}
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise HistoryError(f"{where} is damaged: {error}") from error


def sync_folder(folder: Path) -> None:
    """Make names in ``folder`` durable; not every file system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


# JSON --------------------------------------------------------------------------------


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically, keys in order, NaN as null."""
    text = json.dumps(cleaned(content), indent=2, sort_keys=False, allow_nan=False)
    write_bytes(path, (text + "\n").encode())


def read_json(path: Path) -> Any:
    """Read JSON that a run wrote.

    Raises:
        HistoryError: the file is missing or damaged.
    """
    if not path.exists():
        raise HistoryError(f"{path} is missing: {path.parent} is not a fedpdm run")
    content = parse_json(read_bytes(path), path)
    if not isinstance(content, dict):
        raise HistoryError(f"{path} holds no block of settings: it is not what a run wrote")
    return content


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


def parse_json(content: bytes, where: Path) -> Any:
    """Return what JSON text says.

    Args:
        content: the text.
        where: the file, for messages.

    Raises:
        HistoryError: it is no JSON, or deeper than ``DEEPEST``.
    """
    try:
        value = json.loads(content, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise HistoryError(f"{where} cannot be read: {error}") from error
    level = [value]
    for _ in range(DEEPEST):
        inner = [v for v in level if isinstance(v, dict | list)]
        level = [v for part in inner for v in (part.values() if isinstance(part, dict) else part)]
    if level:
        raise HistoryError(f"{where} cannot be read: it is nested more than {DEEPEST} times")
    return value


def cleaned(value: Any) -> Any:
    """Return a value as JSON can hold it: NumPy to Python, NaN and infinity to None."""
    if isinstance(value, dict):
        return {str(k): cleaned(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [cleaned(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


# Blocks -------------------------------------------------------------------------------


def cut(block: NDArray[Any], shapes: Mapping[str, Sequence[int]]) -> Arrays:
    """Return the arrays of these shapes that lie behind each other in a (N,) block: views."""
    arrays: Arrays = {}
    begin = 0
    for name, shape in shapes.items():
        end = begin + math.prod(shape)
        arrays[name] = block[begin:end].reshape(shape)
        begin = end
    return arrays


# Trees --------------------------------------------------------------------------------


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Return a nested mapping by dotted keys; lists and empty mappings are values."""
    if not isinstance(tree, Mapping) or not tree:
        return {prefix: tree} if prefix else {}
    result: dict[str, Any] = {}
    for key, value in tree.items():
        result |= flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return result


def flatten_tree(tree: Any) -> tuple[str, Arrays]:
    """Split a tree into a JSON text and the arrays in it.

    Args:
        tree: dict, list, tuple, str, int, float, bool, None, NumPy arrays and scalars,
            nested at will. Keys of a dict are scalars or tuples of them.

    Returns:
        A text and arrays, which ``restore_tree`` turns back into a tree of the same types
        and the same bits (NaN payloads and the order of keys included).

    Raises:
        TypeError: a value of another type, named with its place in the tree.
    """
    arrays: Arrays = {}

    def encode(value: Any, place: str) -> Any:
        kind = type(value)
        if value is None or kind is bool or kind is str:
            return value
        if kind is int:
            # Python refuses to parse very long decimal numbers; hexadecimal has no limit.
            return value if abs(value) < _JSON_INT else {"int": hex(value)}
        if kind is float:
            return {"float": struct.pack(">d", value).hex()}
        if kind is list or kind is tuple:
            items = [encode(item, f"{place}[{i}]") for i, item in enumerate(value)]
            return items if kind is list else {"tuple": items}
        if kind is dict:
            pairs = [
                [encode(key, f"{place} key"), encode(item, f"{place}[{key!r}]")]
                for key, item in value.items()
            ]
            return {"dict": pairs}
        if kind is np.ndarray or isinstance(value, np.generic):
            name = str(len(arrays))
            arrays[name] = np.asarray(value)
            return {"array" if kind is np.ndarray else "scalar": name}
        raise TypeError(f"{place} is of type {kind.__name__}, which cannot be stored as data")

    return json.dumps(encode(tree, "tree")), arrays


def restore_tree(skeleton: str, tensors: Mapping[str, NDArray[Any]]) -> Any:
    """Return the tree that ``flatten_tree`` split into ``skeleton`` and ``tensors``.

    Raises:
        HistoryError: the two do not belong together, or the text is damaged.
    """

    def decode(node: Any) -> Any:
        if isinstance(node, list):
            return [decode(item) for item in node]
        if not isinstance(node, dict):
            return node
        ((tag, content),) = node.items()
        match tag:
            case "int":
                return int(content, 16)
            case "float":
                return struct.unpack(">d", bytes.fromhex(content))[0]
            case "tuple":
                return tuple(decode(item) for item in content)
            case "dict":
                return {decode(key): decode(item) for key, item in content}
            case "array":
                return np.array(tensors[content])
            case "scalar":
                return tensors[content][()]
        raise ValueError(f"unknown tag {tag!r}")

    try:
        return decode(json.loads(skeleton))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, struct.error) as error:
        raise HistoryError(f"a stored state is damaged: {error}") from error
