"""Finds finished runs below folders and brings those together that differ in the seed only."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import yaml

from adamerge.errors import RunError
from adamerge.report.evidence import Evidence, Judged, evidence_of
from adamerge.report.names import shortest, told
from adamerge.report.origins import UNKNOWN, Origins, origins, told_apart
from adamerge.tracking.evaluations import with_later_routing
from adamerge.tracking.preset import AgainstPreset, read_preset
from adamerge.tracking.results import FILE, INDEPENDENT, Results, Routing, read_results
from adamerge.tracking.run_record import RunRecord, merged_alone

# What says nothing about the model: where, when, how it was written down.
_SILENT = (
    *("seed", "logger", "outputs", "evaluation", "checkpoint_every", "workers", "trainer", "hydra"),
    *("record", "download", "activation_checkpointing", "maximise", "eval_every", "eval_images", "chooser"),
    "routing",
)
# What names a run already.
_NAMED = ("method.name", "rule.name", "suite.name", "backbone.name")
# What a suite offers to methods: those that use it have it among their own settings. A stream has a table of its own.
_OFFERED = ("suite.tuned.", "suite.chooser", "stream.")
_WORDS = ("summary", "paper", "needs", "trains", "memory")


@dataclass(frozen=True)
class FinishedRun:
    """A finished run; `label` is what its row was to be called (name=...)."""

    folder: Path
    results: Results
    config: dict[str, Any]  # flattened: {"method.model.rank": 16, ...}
    origins: Origins
    made_by: dict[str, str]  # digests of the code that it ran, and of the file that it started from
    # How the settings differ from the preset's; None: the run does not say.
    preset: AgainstPreset | None = None
    label: str | None = None


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation over seeds; None where it is not known."""

    mean: float | None
    sd: float | None = None

    @classmethod
    def of(cls, values: Sequence[float | None]) -> Spread:
        known = [value for value in values if value is not None]
        if not known or len(known) < len(values):
            return cls(None)
        return cls(mean(known), stdev(known) if len(known) > 1 else None)


@dataclass(frozen=True)
class Group:
    """Runs that differ in the seed only.

    Attributes:
        name: the method's, with the options in which it differs from its namesakes.
    """

    name: str
    runs: tuple[FinishedRun, ...]

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(run.results.seed for run in self.runs)

    def spread(self, value: str) -> Spread:
        """Of a number of the results: average, normalized_average, agreement, peak_memory_bytes, ..."""
        return Spread.of([getattr(run.results, value) for run in self.runs])

    def accuracy(self, task: str) -> Spread:
        return self.of_task(task, "accuracy")

    def of_task(self, task: str, value: str) -> Spread:
        """Of a number of one task: accuracy, agreement, ..."""
        return Spread.of([getattr(run.results.tasks[task], value) for run in self.runs])

    def routings(self, router: str) -> list[Routing]:
        """Those of the runs that were evaluated without the task by a router."""
        return [run.results.routing[router] for run in self.runs if router in run.results.routing]

    def routed(self, router: str, value: str, task: str | None = None) -> Spread:
        """Of a number of theirs, the average over the tasks or that of one task: routed, accuracy, hits3, hits5."""
        known = self.routings(router)
        return Spread.of(
            [own.average(value) if task is None else getattr(own.tasks[task], value) for own in known]
        )

    def seconds(self, phase: str) -> Spread:
        return Spread.of([run.results.seconds.get(phase) for run in self.runs])


@dataclass(frozen=True)
class Comparison:
    """Groups on the same suite, tasks, backbone and stream, and on the same pictures, experts and heads; best average
    first, where there is one.

    Attributes:
        stream: the order in which images came to what adapted on them.
        apart: what tells it from another comparison of the same names: "pictures 1a2b3c"; empty where there is none.
    """

    suite: str
    backbone: str
    tasks: tuple[str, ...]
    groups: tuple[Group, ...]
    stream: str = INDEPENDENT
    apart: str = ""

    @property
    def title(self) -> str:
        return f"{self.name}; {self.apart}" if self.apart else self.name

    @property
    def name(self) -> str:
        """What it is called, whatever its runs rest on."""
        stream = "" if self.stream == INDEPENDENT else f", stream: {self.stream}"
        return f"{self.suite}, {self.backbone}{stream}"

    @cached_property
    def evidence(self) -> Evidence:
        """What the runs' predictions say, computed once when it is first asked for."""
        groups = {
            group.name: [Judged(run.folder, run.results) for run in group.runs] for group in self.groups
        }
        return evidence_of(self.tasks, groups)

    def among_as_many_seeds(self) -> tuple[Group, ...]:
        """The groups of the largest number of seeds: a best among means of unlike numbers of seeds would be a favour
        to the fewest."""
        most = max((len(group.runs) for group in self.groups), default=0)
        return tuple(group for group in self.groups if len(group.runs) == most)


@dataclass(frozen=True)
class Collected:
    """What was found: comparisons, and the run folders that are not finished with the reason."""

    comparisons: tuple[Comparison, ...]
    unfinished: tuple[tuple[Path, str], ...]


def collect(folders: Iterable[Path]) -> Collected:
    """Every run in or below the folders.

    Raises:
        RunError: a folder that does not exist, or no run in any.
    """
    runs: list[FinishedRun] = []
    unfinished: list[tuple[Path, str]] = []
    for folder in run_folders(folders):
        if not (folder / FILE).exists():
            unfinished.append((folder, _why_unfinished(folder)))
            continue
        try:
            config = flat_config(folder / "config.yaml")
            label = config.pop("name", None)
            results = with_later_routing(folder, read_results(folder))
            rests_on, made_by = origins(folder, tuple(results.tasks))
            preset = read_preset(folder)
            runs.append(FinishedRun(folder, results, config, rests_on, made_by, preset, label))
        except (RunError, OSError, yaml.YAMLError) as error:
            unfinished.append((folder, str(error).splitlines()[0]))
    if not runs and not unfinished:
        raise RunError(f"There is no run in {', '.join(map(str, folders))}: no folder with a config.yaml.")
    named: dict[tuple[str, str, tuple[str, ...], str], dict[Origins, list[FinishedRun]]] = defaultdict(dict)
    for run in runs:
        found = run.results
        tables = named[found.suite, found.backbone, tuple(found.tasks), found.stream]
        tables.setdefault(run.origins, []).append(run)
    comparisons = [
        Comparison(suite, backbone, tasks, tuple(_grouped(members)), stream, told_apart(own, list(tables)))
        for (suite, backbone, tasks, stream), tables in sorted(named.items())
        for own, members in sorted(tables.items())
    ]
    return Collected(tuple(comparisons), tuple(unfinished))


def apart(comparisons: Sequence[Comparison]) -> list[str]:
    """A line for each name under which there is more than one comparison: what they do not share."""
    by_name: dict[str, list[Comparison]] = defaultdict(list)
    for comparison in comparisons:
        by_name[comparison.name].append(comparison)
    lines = []
    for name, found in by_name.items():
        if len({(c.tasks, c.apart) for c in found}) > len({c.tasks for c in found}):
            kinds = dict.fromkeys(part.split()[0] for c in found for part in c.apart.split(", ") if part)
            lines.append(
                f"{name}: runs on other {' or '.join(kinds)} cannot be compared; they stand in tables of their own."
            )
    return lines


def _why_unfinished(folder: Path) -> str:
    error = RunRecord(folder).error()
    if error is not None:
        return f"failed: {error.splitlines()[0]}"
    return "merged without evaluation" if merged_alone(folder) else "not finished"


def run_folders(folders: Iterable[Path]) -> list[Path]:
    """The folders of runs, finished or not, in and below the folders.

    Raises:
        RunError: a folder that does not exist.
    """
    found: dict[Path, None] = {}
    for folder in folders:
        if not folder.is_dir():
            raise RunError(f"There is no folder {folder}.")
        for config in sorted(folder.rglob("config.yaml")):
            # W&B keeps a config.yaml of its own below a run.
            if "wandb" not in config.relative_to(folder).parts:
                found[config.parent.resolve()] = None
    return [path for path in found if (path / FILE).exists() or not _makes_an_expert(path / "config.yaml")]


def _makes_an_expert(config: Path) -> bool:
    """Whether a folder without results is one of `pretrain` or `finetune`, which have none."""
    try:
        content = yaml.safe_load(config.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError):
        return False
    return isinstance(content, dict) and "method" not in content


def flat_config(path: Path) -> dict[str, Any]:
    """The settings of a config that can make a difference, by dotted key."""
    flat: dict[str, Any] = {}

    def walk(where: str, node: Any) -> None:
        if isinstance(node, dict):
            for key, value in node.items():
                if key not in _WORDS and not (not where and key in _SILENT):
                    walk(f"{where}.{key}" if where else str(key), value)
        else:
            flat[where] = node

    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    walk("", config)
    if flat.get("rule.mask_seed") == config.get("seed"):  # a rule that draws by the run's seed
        flat.pop("rule.mask_seed", None)
    for section in ("trainer", "evaluation"):  # where and how many at a time say nothing, the precision does
        precision = str((config.get(section) or {}).get("precision", "32-true"))
        if precision != "32-true":
            flat[f"{section}.precision"] = precision
    choose = config.get("choose") or "prior"
    flat["choose"] = choose.get("by") if isinstance(choose, dict) else choose
    flat.pop("choose.by", None)
    flat.pop("rule.grid", None)
    if "post" in config:  # their order counts, and that there is none
        flat["post"] = "+".join(config["post"]) or "none"
    return flat


def _grouped(runs: Sequence[FinishedRun]) -> list[Group]:
    """Runs by equal settings, best average first. Namesakes are told apart by the settings that differ.

    A setting that some namesakes do not have at all is of another version of adamerge and says nothing. Of two runs
    that differ in nothing, the seed included, the later one counts. Runs of other code, or from another
    start, are no further seeds.
    """
    namesakes: dict[str, list[FinishedRun]] = defaultdict(list)
    for run in sorted(runs, key=lambda run: (run.folder / FILE).stat().st_mtime):
        namesakes[run.label or run.results.method].append(run)
    groups = []
    for name, members in namesakes.items():
        differing = _differing(members)
        shown = shortest(differing, [run.config for run in members])
        families: dict[str, dict[int, FinishedRun]] = defaultdict(dict)
        by_told: dict[str, list[FinishedRun]] = defaultdict(list)
        for run in members:
            by_told[told(shown, run.config)].append(run)
        for words, same in by_told.items():
            differing_in = [k for k in ("code", "start") if len({run.made_by.get(k) for run in same}) > 1]
            for run in same:
                digests = (f"{k}={run.made_by.get(k, UNKNOWN)[:6]}" for k in differing_in)
                families[", ".join(filter(None, (words, *digests)))][run.results.seed] = run
        for words, by_seed in families.items():
            alike = tuple(by_seed[seed] for seed in sorted(by_seed))
            groups.append(Group(f"{name} ({words})" if words else name, alike))
    return sorted(groups, key=lambda group: -(group.spread("average").mean or 0.0))


def differing(groups: Sequence[Group]) -> list[str]:
    """The settings in which groups differ."""
    firsts = [group.runs[0] for group in groups]
    keys = {key for run in firsts for key in run.config if not key.startswith(_OFFERED)} - set(_NAMED)
    return [key for key in sorted(keys) if len({repr(run.config.get(key)) for run in firsts}) > 1]


def _differing(runs: Sequence[FinishedRun]) -> list[str]:
    """The settings that all have, with different values."""
    # Of one method over several rules the rule is told; of a static merge it is the name.
    common = set.intersection(*(set(run.config) for run in runs)) - (set(_NAMED) - {"rule.name"})
    common -= {key for key in common if key.startswith(_OFFERED)}
    return [key for key in sorted(common) if len({repr(run.config[key]) for run in runs}) > 1]
