"""A run writes down how it differs from its preset and what it starts from."""

from __future__ import annotations

import json
from pathlib import Path

from commands.conftest import QUICK, finished

from adamerge.__main__ import main
from adamerge.tracking.preset import coefficients_digest, read_preset


def test_a_run_and_one_that_starts_from_it(home: Path) -> None:
    main(["train", "method=adamerging_layerwise", "method.schedule.steps=2", *QUICK])
    folder = finished(home)["adamerging_layerwise"]
    told = read_preset(folder)
    assert told.deviations["method.schedule.steps"] == [2, 150]
    assert told.start is None
    main(["train", "method=surgery", "method.schedule.steps=2", f"start={folder}", *QUICK])
    start = read_preset(finished(home)["surgery"]).start
    assert start.digest == coefficients_digest(folder / "coefficients.json")
    run = {key: start.run[key] for key in ("method", "rule", "checkpoints")}
    assert run == {"method": "adamerging_layerwise", "rule": "none", "checkpoints": "mini"}
    assert start.deviations["method.schedule.steps"] == [2, 150]
    table = home / "lw_adamerging-ViT-B-32.json"
    table.write_text((folder / "coefficients.json").read_text())
    main(["merge", f"start={table}", *QUICK[:3]])
    (merged,) = [f for n, f in finished(home).items() if n not in ("surgery", "adamerging_layerwise")]
    start = read_preset(merged).start
    assert (start.run, start.deviations) == (None, None)
    assert start.digest == coefficients_digest(folder / "coefficients.json")
    assert json.loads((folder / "preset.json").read_text())["start"] is None
