"""Tensor files are whole, exact and checked; trees come back bit for bit."""

from __future__ import annotations

import errno
import hashlib
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedpdm.data.fleet.folder import FleetFolder
from fedpdm.errors import DataError, HistoryError
from fedpdm.history.schemas import Card
from fedpdm.models.manager import _read_index
from fedpdm.storage import cut, flatten_tree, read_tensors, restore_tree, write_bytes, write_tensors

DTYPES = ["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
          "float16", "float32", "float64", "complex64"]  # fmt: skip

EXAMPLE = {
    "lstm.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "steps": np.array(7, dtype=np.int64),
    "none": np.zeros((0, 5), dtype=np.float16),
}


def identical(a: Any, b: Any) -> bool:
    """Same types, same order of keys, same bits."""
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray | np.generic):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, float):
        return struct.pack("d", a) == struct.pack("d", b)
    if isinstance(a, dict):
        pairs = zip(a.items(), b.items(), strict=False)
        return len(a) == len(b) and all(identical(x, y) for x, y in pairs)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(identical(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


arrays = st.sampled_from(DTYPES).flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0))
)
scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text()
    | st.sampled_from([2**63, -(2**63), struct.unpack(">d", b"\x7f\xf8" + b"\x01" * 6)[0]])
)  # fmt: skip
keys = st.text() | st.integers() | st.booleans() | st.none() | st.tuples(st.integers(), st.text())
trees = st.recursive(
    scalars | arrays | st.floats(width=32).map(np.float32) | st.integers(0, 9).map(np.int64),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(keys, inner, max_size=4)
    ),
    max_leaves=12,
)


@given(trees)
def test_a_tree_comes_back_bit_for_bit(tree):
    skeleton, tensors = flatten_tree(tree)
    assert identical(restore_tree(skeleton, tensors), tree)


@given(trees)
def test_a_tree_survives_the_disk(tmp_path_factory, tree):
    path = tmp_path_factory.getbasetemp() / "tree.safetensors"
    skeleton, tensors = flatten_tree(tree)
    sha256 = write_tensors(path, tensors)
    assert identical(restore_tree(skeleton, read_tensors(path, sha256)), tree)


def test_an_integer_of_any_length_comes_back():
    """Python itself refuses to read decimal numbers of more than 4300 digits."""
    assert restore_tree(*flatten_tree([-(10**5000)]))[0] == -(10**5000)


def test_a_value_that_is_not_data_is_named():
    with pytest.raises(TypeError, match=r"tree\['momentum'\]\[1\] is of type object"):
        flatten_tree({"momentum": [1, object()]})


@pytest.mark.parametrize(
    "skeleton", ["", "{", '{"array": "7"}', '{"soup": 1}', "{}", '{"float": "zz"}', '{"dict": [3]}']
)
def test_a_damaged_tree_is_one_sentence(skeleton):
    with pytest.raises(HistoryError, match="damaged"):
        restore_tree(skeleton, {})


def test_dtype_shape_and_bits_are_kept(tmp_path):
    tensors = {
        **EXAMPLE,
        "turned": np.arange(12, dtype=np.float64).reshape(3, 4).T,
        "every second": np.arange(12, dtype=np.int32)[::2],
        "backwards": np.arange(5, dtype=np.uint8)[::-1],
        "nan": np.frombuffer(bytes.fromhex("010 0c07f 0000807f".replace(" ", "")), np.float32),
    }
    sha256 = write_tensors(tmp_path / "a", tensors)
    found = read_tensors(tmp_path / "a", sha256)
    assert list(found) == sorted(tensors)
    assert all(identical(found[name], tensors[name]) for name in tensors)
    assert all(array.flags.writeable and array.flags.c_contiguous for array in found.values())


def test_the_checksum_is_the_files_and_equal_tensors_give_equal_files(tmp_path):
    first = write_tensors(tmp_path / "a", EXAMPLE)
    assert first == hashlib.sha256((tmp_path / "a").read_bytes()).hexdigest()
    assert first == write_tensors(tmp_path / "b", dict(reversed(EXAMPLE.items())))
    assert os.listdir(tmp_path) == ["a", "b"] or os.listdir(tmp_path) == ["b", "a"]


@pytest.mark.parametrize("dtype", ["<U3", "O", "datetime64[s]", ">f8", "complex128"])
def test_a_dtype_outside_the_format_is_named(tmp_path, dtype):
    with pytest.raises(HistoryError, match="tensor 'odd' of dtype"):
        write_tensors(tmp_path / "a", {"odd": np.zeros(2, dtype=dtype)})
    assert not list(tmp_path.iterdir())


@given(st.data())
def test_every_truncation_is_found_without_a_checksum(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "short.safetensors"
    write_tensors(path, EXAMPLE)
    content = path.read_bytes()
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    with pytest.raises(HistoryError, match=r"short\.safetensors is damaged"):
        read_tensors(path)


@given(st.data())
def test_every_flipped_bit_is_found(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "flipped.safetensors"
    sha256 = write_tensors(path, EXAMPLE)
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    with pytest.raises(HistoryError, match=r"flipped\.safetensors is damaged"):
        read_tensors(path, sha256)
    try:  # without a checksum it may look whole, but never ends in another error
        read_tensors(path)
    except HistoryError as error:
        assert "flipped.safetensors is damaged" in str(error)


@given(st.binary(max_size=200))
def test_any_other_file_is_refused(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "other.safetensors"
    path.write_bytes(content)
    with pytest.raises(HistoryError, match=r"other\.safetensors is damaged"):
        read_tensors(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(HistoryError, match=r"gone\.safetensors is missing"):
        read_tensors(tmp_path / "gone.safetensors")
    with pytest.raises(HistoryError, match="cannot be read"):
        read_tensors(tmp_path)


@pytest.mark.parametrize("step", ["open", "write", "fsync", "replace"])
def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch, step):
    path = tmp_path / "a"
    write_bytes(path, b"old")

    def full(*_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, step, full)
    with pytest.raises(HistoryError, match=rf"{tmp_path}.*No space left.*free space"):
        write_bytes(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert [item.name for item in tmp_path.iterdir()] == ["a"]


def test_a_write_that_takes_only_some_bytes_is_continued(tmp_path, monkeypatch):
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:3]))
    write_bytes(tmp_path / "a", b"ten bytes!")
    assert (tmp_path / "a").read_bytes() == b"ten bytes!"


def test_names_are_made_durable_after_the_content(tmp_path, monkeypatch):
    """A power cut may not leave the new name with content that never reached the disk."""
    steps: list[str] = []
    fsync, replace = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        steps.append("folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "file")
        fsync(descriptor)

    def renamed(source: Path, target: Path) -> None:
        steps.append("name")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    write_bytes(tmp_path / "a", b"content")
    assert steps == ["file", "name", "folder"]


def test_a_block_is_cut_into_views_of_its_arrays() -> None:
    block = np.arange(11.0)
    found = cut(block, {"a": (2, 3), "b": (), "none": (0, 4), "c": (4,)})
    assert {name: array.shape for name, array in found.items()} == {
        "a": (2, 3), "b": (), "none": (0, 4), "c": (4,),
    }  # fmt: skip
    parts = [array.reshape(-1) for array in found.values()]
    assert np.array_equal(np.concatenate(parts), block)
    assert all(np.shares_memory(array, block) for array in found.values() if array.size)


def test_json_nested_a_hundred_thousand_times_is_refused_wherever_it_is_read(
    tmp_path: Path,
) -> None:
    deep = "[" * 100_000 + "]" * 100_000
    for name in ("summary.json", "model.json"):
        (tmp_path / name).write_text(deep)
    with pytest.raises(HistoryError, match="model.json"):
        _read_index(tmp_path / "model.json")
    with pytest.raises(HistoryError, match="model.json"):
        Card.read(deep.encode(), tmp_path / "model.json")
    with pytest.raises(HistoryError):
        restore_tree(deep, {})
    with pytest.raises(DataError, match="summary.json"):
        FleetFolder(tmp_path)
