"""Weights & Biases as a mirror of the run folder."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from adamerge.errors import RunError
from adamerge.tracking.journal import Record
from adamerge.tracking.results import Results
from adamerge.tracking.run_record import RunRecord, Weights, scalars

if TYPE_CHECKING:
    import wandb

Mode = Literal["online", "offline", "disabled"]
_SMALL = ("config.yaml", "results.json", "coefficients.json", "lineage.json")
_LARGE = ("merged.safetensors", "state.safetensors", "heads.safetensors")
_COLUMNS = ("accuracy", "agreement", "estimate", "expert", "pretrained", "normalized", "entropy", "n")


class WandbMirror:
    """Shows a run as the W&B run of the same id, in the group of its experiment.

    What W&B has of the run already (from a part that was interrupted) is not sent again. A run without results is
    marked failed. The experts are its input artifacts, the merged model is its output; weights stay on this machine,
    as references with checksum, unless `upload`. Offline, W&B cannot note inputs: `compare <folder> --wandb`
    replays the run with them once there is a network.

    Args:
        save_dir: the run folder; W&B writes below it, into `wandb`.
        project: the W&B project.
        entity: the team or user; the login's own by default.
        mode: online, offline (nothing is sent; `wandb sync` does it later) or disabled; $WANDB_MODE by default.
        tags: any words.
        upload: send the weights too.
    """

    def __init__(
        self,
        save_dir: Path,
        project: str = "adamerge",
        entity: str | None = None,
        mode: Mode | None = None,
        tags: list[str] | None = None,
        upload: bool = False,
    ) -> None:
        self.recorded = RunRecord(save_dir)
        self._project, self._entity, self._tags = project, entity, tags
        self._mode: str | None = mode or os.environ.get("WANDB_MODE")
        self._upload = upload
        self._run: wandb.Run | None = None

    @property
    def run(self) -> wandb.Run:
        """The W&B run, between `start` and `finish`."""
        if self._run is None:
            raise RuntimeError("the mirror was not started")
        return self._run

    def start(self) -> None:
        """Open the W&B run.

        Raises:
            RunError: W&B cannot be reached, or has no such project or no key.
        """
        import wandb

        own, config = self.recorded, self.recorded.config()
        seed = config.get("seed")
        try:
            self._run = wandb.init(
                project=self._project,
                entity=self._entity,
                id=own.id,
                group=own.experiment,
                job_type=own.method,
                name=own.method if seed is None else f"{own.method}, seed {seed}",
                config={**config, **own.names()},
                tags=self._tags,
                dir=str(own.folder.absolute()),
                mode=self._mode,  # type: ignore[arg-type]
                # Offline, W&B knows no earlier part and would warn.
                resume=None if self._mode in ("offline", "disabled") else "allow",
                reinit="create_new",
                save_code=False,
                settings=wandb.Settings(console="off", quiet=True),
            )
        except (wandb.errors.Error, OSError) as error:
            raise RunError(
                f"W&B could not be started: {error}\n"
                "  Set WANDB_MODE=offline to record without a network, or logger=none; "
                "`compare <folder> --wandb <entity/project>` shows the run later."
            ) from error
        self._run.define_metric("step", hidden=True)
        self._run.define_metric("*", step_metric="step")

    def step(self, record: Record) -> None:
        if record["step"] >= self.run.starting_step:
            known = {key: value for key, value in record.items() if value is not None}
            self.run.log(known, step=record["step"])

    def finish(self) -> None:
        state = self.recorded.state()
        self.run.summary["state"] = state
        if error := self.recorded.error():
            self.run.summary["error"] = error
        if results := self.recorded.results():
            self._show(results)
        self._link("uses")
        self._link("makes")
        self.run.finish(exit_code=0 if state == "finished" else 1)
        self._run = None

    def _show(self, results: Results) -> None:
        """Numbers, the table of tasks, pictures, and the merged model."""
        import wandb

        self.run.summary.update(scalars(results))
        rows = [[name, *(asdict(task)[c] for c in _COLUMNS)] for name, task in results.tasks.items()]
        shown: dict[str, object] = {"tables/tasks": wandb.Table(columns=["task", *_COLUMNS], data=rows)}
        shown |= {f"figures/{path.stem}": wandb.Image(str(path)) for path in self.recorded.figures()}
        self.run.log(shown)
        experts = {name: weights.identity for name, weights in self.recorded.weights("uses").items()}
        model = wandb.Artifact(f"merged-{self.recorded.id}", type="merged", metadata={"uses": experts})
        for name in (*_SMALL, *_LARGE):
            path = self.recorded.folder / name
            if path.exists():
                self._add(model, path, upload=self._upload or name in _SMALL)
        self.run.log_artifact(model)

    def _link(self, kind: Literal["uses", "makes"]) -> None:
        """Note the run's input or output files as artifacts, named by task and content."""
        if kind == "uses" and (self.run.offline or self.run.disabled):
            return
        for name, weights in self.recorded.weights(kind).items():
            if (artifact := self._artifact(name, weights)) is not None:
                (self.run.use_artifact if kind == "uses" else self.run.log_artifact)(artifact)

    def _artifact(self, name: str, weights: Weights) -> wandb.Artifact | None:
        """None for weights that are not on this machine (any more)."""
        import wandb

        path = Path(weights.path)
        if not path.exists():
            return None
        title = f"{name.replace('/', '-')}-{weights.identity[:12]}"
        artifact = wandb.Artifact(title, type=name.partition("/")[0].removesuffix("s"))
        self._add(artifact, path, upload=self._upload)
        return artifact

    @staticmethod
    def _add(artifact: wandb.Artifact, path: Path, upload: bool) -> None:
        if not upload:
            artifact.add_reference(path.absolute().as_uri(), name=path.name)
        elif path.is_dir():
            artifact.add_dir(str(path), name=path.name)
        else:
            artifact.add_file(str(path))
