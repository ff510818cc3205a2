"""A cache that cannot be written is said before anything is computed for it."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands.conftest import QUICK

from adamerge.__main__ import main


def test_a_cache_that_cannot_be_written_is_no_silent_loss(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADAMERGE_CACHE", "/proc/x")
    with pytest.raises(SystemExit) as stop:
        main(["merge", *QUICK[:3]])
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert "Nothing can be written into the cache, /proc/x" in said
    assert "Set ADAMERGE_CACHE=<folder>" in said
    assert (home / "outputs").exists()
