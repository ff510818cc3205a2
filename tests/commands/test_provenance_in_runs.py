"""The record of what made a run is written where a run's work begins and ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from adamerge.errors import RunError
from adamerge.runs.folder import at_work_in, clear, rename, start_folder
from adamerge.settings.commands import PoolSettings
from adamerge.tracking.provenance import read_sittings
from adamerge.tracking.run_record import Lineage, RunRecord


def test_work_in_a_run_folder_is_a_sitting_and_rerun_begins_a_new_record(tmp_path: Path) -> None:
    settings = PoolSettings.model_construct()
    with pytest.raises(RunError), at_work_in(tmp_path):
        start_folder(settings, tmp_path, Lineage({}))
        raise RunError("mine")
    with at_work_in(tmp_path):
        start_folder(settings, tmp_path, Lineage({}))
        assert read_sittings(tmp_path)[-1].ended is None
    with at_work_in(tmp_path):
        pass  # a finished run is shown again
    assert [one.outcome for one in read_sittings(tmp_path)] == ["RunError", "finished"]
    clear(tmp_path)
    assert read_sittings(tmp_path) == []


def test_a_finished_run_is_called_otherwise_and_nothing_else_of_it_changes(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("method: {name: ties}\nname: null\nseed: 3\n")
    rename(tmp_path, "TIES, ours")
    assert RunRecord(tmp_path).config() == {"method": {"name": "ties"}, "name": "TIES, ours", "seed": 3}
