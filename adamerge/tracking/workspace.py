"""The W&B dashboard that compares methods, as code: Accuracy, Curves, Coefficients, Cost; runs grouped by method."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adamerge.errors import ConfigError, RunError
from adamerge.files import atomic_write_text

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Workspace

FILE = "workspace.json"
# One panel holds methods of different objectives; the run's config names each one's: objective_name.
_LOSS = "each method's own objective, summed over a step's batches"


def workspace(entity: str, project: str, tasks: Sequence[str]) -> Workspace:
    """The dashboard of a project whose runs `WandbMirror` has shown.

    Raises:
        ConfigError: wandb-workspaces is not installed.
    """
    try:
        import wandb_workspaces.reports.v2 as wr
        import wandb_workspaces.workspaces as ws
    except ModuleNotFoundError as error:
        raise ConfigError(f"--wandb-workspace: {error}\n  pip install 'adamerge[dashboard]'") from error

    method = wr.Config("method_name")

    def bars(metric: str, title: str) -> Any:
        return wr.BarPlot(
            title=title,
            metrics=[wr.SummaryMetric(metric)],
            groupby=method,
            orientation="h",
            max_bars_to_show=40,
        )

    def against(metric: str, title: str, log: bool = False) -> Any:
        x, y = wr.SummaryMetric(metric), wr.SummaryMetric("test/average")
        return wr.ScatterPlot(title=title, x=x, y=y, log_x=log)

    def curve(metric: str, title: str) -> Any:
        return wr.LinePlot(
            title=title,
            x="step",
            y=[metric],
            groupby=method,
            smoothing_factor=0.8,
            title_x="step",
            title_y=_LOSS,
        )

    accuracy = [
        bars("test/average", "average accuracy (share)"),
        bars("test/agreement", "agreement with the experts (share)"),
        against("test/agreement", "average accuracy against agreement (shares)"),
        *(bars(f"test/{task}", f"accuracy on {task} (share)") for task in tasks),
        wr.WeavePanelSummaryTable(table_name="tables/tasks"),
    ]
    curves = [curve("loss", "loss"), *(curve(f"loss/{task}", f"loss on {task}") for task in tasks)]
    cost = [
        against("cost/trainable_parameters", "average accuracy (share) against trained parameters", log=True),
        against("cost/seconds_adapt", "average accuracy (share) against seconds of adapting", log=True),
        bars("cost/seconds_adapt", "seconds of adapting"),
        bars("cost/peak_memory_bytes", "peak memory (bytes)"),
    ]
    maps = [wr.MediaBrowser(title="merging coefficients", media_keys=["figures/coefficients"], num_columns=3)]
    sections = {"Accuracy": accuracy, "Curves": curves, "Coefficients": maps, "Cost": cost}
    return ws.Workspace(
        entity=entity,
        project=project,
        name="adamerge: methods",
        sections=[ws.Section(name=name, panels=panels, is_open=True) for name, panels in sections.items()],
        settings=ws.WorkspaceSettings(x_axis="step", max_runs=100),
        runset_settings=ws.RunsetSettings(
            groupby=[ws.Config("method_name")],
            order=[ws.Ordering(ws.Summary("test/average"), ascending=False)],
        ),
    )


def save(dashboard: Workspace, folder: Path) -> str:
    """Save the dashboard at W&B and return its address; with WANDB_MODE=offline, write what would be sent.

    Raises:
        RunError: W&B cannot be reached, or refuses.
    """
    if os.environ.get("WANDB_MODE") == "offline":
        spec = dashboard._to_model().model_dump(mode="json", by_alias=True, exclude_none=True)
        atomic_write_text(folder / FILE, json.dumps(spec, indent=2) + "\n")
        return str(folder / FILE)
    try:
        dashboard.save()
    except Exception as error:  # the library raises whatever its transport does
        raise RunError(f"The workspace could not be saved at W&B: {error}") from error
    return str(dashboard.url)
