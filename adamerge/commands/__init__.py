"""The commands. This table is all that is read for the help; a command's module is imported when it runs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    """One command.

    Args:
        summary: what it does.
        config: its primary config; None where it takes plain words instead.
        word: the option that a plain word among its overrides is a value of.
        lenient: mistakes in the config are handed to it instead of stopping it: `run(config, mistakes)`.
        over: the option that names a config of its own, over which the others are laid: with it the command gets what
            was typed instead of a composed config, `run_over(typed)`.
    """

    summary: str
    config: str | None = None
    word: str | None = None
    lenient: bool = False
    over: str | None = None


COMMANDS = {
    "train": Command("adapt a merged model on unlabeled images, then evaluate it", "train", over="rerun"),
    "merge": Command("merge with a static rule, then evaluate", "merge", over="rerun"),
    "evaluate": Command("evaluate a finished run, or one checkpoint, on a suite", "evaluate", over="run"),
    "compare": Command("compare finished runs, over seeds"),
    "pretrain": Command("make a small CLIP where no public weights serve", "pretrain"),
    "finetune": Command("make experts from a base", "finetune"),
    "convert": Command("turn any supported checkpoint into safetensors"),
    "export": Command(
        "write a run's merged model for open_clip, Hugging Face, ONNX or torch.export", "export"
    ),
    "predict": Command("classify pictures with a finished run", "predict"),
    "doctor": Command("check environment, config, data, checkpoints and memory", "doctor", lenient=True),
    "cache": Command("list what is kept on this machine, or clear it"),
    "show": Command("list methods, rules, suites, backbones, or print one YAML"),
    "bench": Command("measure a step against the straightforward formulation", "bench", word="name"),
}
