"""Published merging coefficients, in a replica of their file's form."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from conftest import make_vit_pool

from adamerge.__main__ import main
from adamerge.checkpoints.coefficient_tables import TASKS, convert_tables, published_rows
from adamerge.errors import CheckpointError
from adamerge.methods import Static
from adamerge.models.backbone import Backbone
from adamerge.models.coefficient_files import with_start


def source(folder: Path, rows: int) -> Path:
    """A branch per method and model, as in the published file; row r of task k is r + k/10."""
    lists = [[1.0, *(r + k / 10 for k in range(len(TASKS)))] for r in range(rows)]
    text = f"""
def get(method='x', model='y'):
    if method == 'weight_averaging':
        ralpha = [[1.0, avg]]
    elif method == 'lw' and model == 'ViT-B-32':
        ralpha = {lists}
    elif method == 'tw' and model == 'ViT-B-32':
        ralpha = [[1.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]]
    elif method == 'short' and model == 'ViT-B-32':
        ralpha = [[1.0, 0.1]]
"""
    path = folder / "merging_cofficient.py"
    path.write_text(text)
    return path


@pytest.mark.parametrize(("model", "count"), [("ViT-B-32-quickgelu", 158), ("ViT-L-14-quickgelu", 302)])
def test_rows_are_the_state_dict_s_in_its_order(model: str, count: int) -> None:
    rows = published_rows(count)
    assert len(rows) == count
    keys = list(Backbone.of(model).build().state_dict())
    assert rows[3:-3] == keys == published_rows(count - 6)


def test_a_table_is_found_by_name_and_the_text_rows_are_left_out(tmp_path: Path) -> None:
    main(["convert", str(source(tmp_path, 38))])  # two blocks: 6 + 24 + 2 rows and six of the text
    table = json.loads((tmp_path / "lw-ViT-B-32.json").read_text())
    assert not (tmp_path / "short-ViT-B-32.json").exists()
    assert table["tasks"] == list(TASKS)
    pool = make_vit_pool(tasks=("dtd", "sun397"))
    started = with_start(pool, tmp_path / "lw-ViT-B-32.json")
    # Rows 3, 4, ... of the file; DTD is the last of the eight tasks, SUN397 the first.
    expected = torch.arange(3.0, 35.0)[:, None] + torch.tensor([0.7, 0.0])
    torch.testing.assert_close(started.coefficients.values, expected)
    one_row = with_start(pool, tmp_path / "tw-ViT-B-32.json")
    torch.testing.assert_close(one_row.coefficients.values, torch.tensor([[0.8, 0.1]]))
    assert Static(one_row).merged_state_dict().keys() == pool.base.keys()


def test_files_without_tables_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.py"
    path.write_text("x = 1")
    with pytest.raises(CheckpointError, match="no tables of merging coefficients"):
        convert_tables(path)
    path.write_text("def (")
    with pytest.raises(CheckpointError, match="cannot be read as a Python file"):
        convert_tables(path)
    with pytest.raises(CheckpointError, match="100 rows"):
        published_rows(100)
