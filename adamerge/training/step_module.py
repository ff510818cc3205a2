"""What every training of adamerge shares: it is counted in steps, and step i's data is a pure function of i.

That makes resuming exact: the module knows its next step, the loader starts there, and nothing else has a memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from adamerge.errors import RunError


class StepModule(pl.LightningModule):
    """A LightningModule that counts its steps and describes the last one in `record` for the journal.

    Attributes:
        stopped: it ends here, before all steps are done.
    """

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.step = 0
        self.stopped = False
        self.record: dict[str, float] = {}
        self._rng: dict[str, Any] | None = None  # of the checkpoint that is resumed from

    def finish_step(self, losses: dict[str, Tensor]) -> None:
        """Count the step and note its losses: their sum as "loss", and "loss/<name>" each."""
        # Empty where no batch held anything to learn from. One copy from the device for all.
        values = torch.stack([v.detach().float() for v in losses.values()]).tolist() if losses else []
        self.record = {"step": self.step, "loss": sum(values)}
        self.record |= {f"loss/{name}": value for name, value in zip(losses, values, strict=True)}
        if self._trainer is not None:
            self.log("loss", self.record["loss"], prog_bar=True, logger=False, batch_size=1)
        self.step += 1

    @property
    def scaler(self) -> torch.amp.GradScaler | None:
        """The loss scaler of precision 16-mixed; None in every other."""
        trainer = self._trainer
        return None if trainer is None else getattr(trainer.precision_plugin, "scaler", None)

    def take_step(self, optimizer: Any) -> None:
        """One step of the optimiser; under loss scaling none where the gradient overflowed.

        Raises:
            RunError: numbers that are not finite, in the step or in what is trained.
        """
        try:
            if self.scaler is None or isinstance(optimizer, LightningOptimizer):
                optimizer.step()
            else:  # Lightning does not know this optimiser, so its gradients are still scaled
                self.scaler.step(optimizer)
                self.scaler.update()
        except RuntimeError as error:
            if "without overflow" not in str(error):  # torch's words for a learning rate beyond float32
                raise
            raise RunError(self._of_lr(optimizer, f"cannot be taken: {error}")) from error
        trained = [p for group in optimizer.param_groups for p in group["params"]]
        finite = torch.stack([p.detach().isfinite().all() for p in trained])
        if not finite.all():
            names = {id(p): name.removeprefix("loop.") for name, p in self.named_parameters()}
            first = next(p for p, good in zip(trained, finite.tolist(), strict=True) if not good)
            raise RunError(self._of_lr(optimizer, f"left numbers in {names[id(first)]} that are not finite"))

    def _of_lr(self, optimizer: Any, what: str) -> str:
        rates = ", ".join(f"{group['lr']:g}" for group in optimizer.param_groups)
        return (
            f"The update of step {self.step} with lr={rates} {what}.\n"
            "  Lower the optimizer's lr; 1e-3 to 1e-2 is usual."
        )

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        # Only now: setting up the training draws random numbers of its own.
        if self._rng is not None:
            torch.set_rng_state(self._rng["cpu"])
            if "cuda" in self._rng and torch.cuda.is_available():
                torch.cuda.set_rng_state_all(self._rng["cuda"])
            self._rng = None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        rng: dict[str, Any] = {"cpu": torch.get_rng_state()}
        if torch.cuda.is_available():
            rng["cuda"] = torch.cuda.get_rng_state_all()
        checkpoint["adamerge"] = {"step": self.step, "stopped": self.stopped, "rng": rng}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.step = checkpoint["adamerge"]["step"]
        self.stopped = checkpoint["adamerge"].get("stopped", False)
        self._rng = checkpoint["adamerge"]["rng"]


class _Remaining(Sampler[int]):
    """The steps still to do. Its length is that of the whole run, as Lightning's progress counts."""

    def __init__(self, module: StepModule, steps: int) -> None:
        self.module = module
        self.steps = steps

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.module.step, self.module.step if self.module.stopped else self.steps))

    def __len__(self) -> int:
        return self.steps


def step_loader(dataset: Dataset[Any], module: StepModule, steps: int, workers: int = 0) -> DataLoader[Any]:
    """Loads dataset[step] for every step that the module has not done."""
    return DataLoader(dataset, sampler=_Remaining(module, steps), batch_size=None, num_workers=workers)
