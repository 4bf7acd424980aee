"""Every notebook is executed: some shorter each time, all as they are where ``long`` tests run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SHORTER: Mapping[str, Mapping[str, str]] = {
    "01_first_federation": {
        '"rounds=5"': '"rounds=3", "model=mlp", "data.days=160", "sites.detroit.machines=8"',
    },
    "05_swap_strategies": {
        '"rounds=6"': '"rounds=2", "data.days=160"', "weights(6)": "weights(2)",
        "(1, 2, 3)": "(1, 2)", "machines=10": "machines=5",
    },
    "06_privacy_budget": {
        '"rounds=12"': '"rounds=2", "data.days=160"', "replicas=15": "replicas=4",
        "(30, 10, 3)": "(10, 3)", "machines=20": "machines=8",
    },
}  # fmt: skip
"""What is put in place of what, so that the same cells take seconds. The other notebooks show what
is tested elsewhere, too: several seeds, the source systems, and the way from a file to a site."""


@pytest.fixture(scope="module")
def kernel() -> Iterator[NotebookClient]:
    """One kernel for all notebooks: most of a short one's seconds would be imports."""
    client = NotebookClient(
        nbformat.v4.new_notebook(), timeout=300, resources={"metadata": {"path": str(ROOT)}}
    )
    yield client
    client.nb = nbformat.v4.new_notebook()
    client.execute()  # and ends the kernel


def run(kernel: NotebookClient, path: Path, changes: Mapping[str, str]) -> None:
    """Execute a notebook in a kernel that remembers no name of the one before."""
    notebook = nbformat.read(path, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs for cell in cells), "outputs are not committed"
    for old, new in changes.items():
        assert any(old in cell.source for cell in cells), old
        for cell in cells:
            cell.source = cell.source.replace(old, new)
    notebook.cells.insert(0, nbformat.v4.new_code_cell("%reset -f"))
    kernel.nb = notebook
    kernel.execute(cleanup_kc=False)
    assert any(cell.outputs for cell in cells)


@pytest.mark.parametrize("name", SHORTER)
def test_a_shorter_notebook_runs(name: str, kernel: NotebookClient) -> None:
    run(kernel, ROOT / "notebooks" / f"{name}.ipynb", SHORTER[name])


@pytest.mark.long
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_as_it_is(path: Path, kernel: NotebookClient) -> None:
    run(kernel, path, {})
