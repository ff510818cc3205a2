"""The composed config: sections, references, missing values; and that what ships is free of mistakes."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf, open_dict
from pydantic import ValidationError

from adamerge.commands import COMMANDS
from adamerge.commands.composed import find_mistakes_in, settings_of
from adamerge.commands.config_folders import opened_folders
from adamerge.commands.overrides import read_overrides
from adamerge.errors import ConfigError
from adamerge.settings.groups import choices
from adamerge.settings.mistakes import Mistakes
from adamerge.settings.paths import conf_dir
from adamerge.settings.sections import BackboneSection, CheckpointsSection, SuiteSection


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["objective=labels"],
            "method.objective: CrossEntropy learns from labels, which adamerging_layerwise does not get.",
        ),
        (
            ["method=supermerge", "stream=class_by_class"],
            "stream: supermerge learns from labelled training images and sees no stream; give stream=independent.",
        ),
        (
            ["method=supermerge", "stream=mixed_tasks"],
            "stream: supermerge learns from labelled training images and sees no stream; give stream=independent.",
        ),
        (["seed=true"], "seed: should be a whole number (got True)."),
        (["seed=1.5"], "seed: should be a whole number (got 1.5)."),
        (["checkpoint_every=0"], "checkpoint_every: should be greater than 0 (got 0)."),
        (["evaluation.batch_size='9'"], "evaluation.batch_size: should be a whole number (got '9')."),
        (["method.schedule.batch_size=0"], "method.schedule.batch_size: should be greater than 0 (got 0)."),
        (
            ["method.schedule.update=rond"],
            "method.schedule.update: should be 'round', 'task' or 'batch' (got 'rond').",
        ),
        (["+method.schedule.stps=1"], "method.schedule.stps: no such option; did you mean 'steps'?"),
        (
            ["method.schedule=3"],
            "method.schedule: is a group of options (got 3); give method.schedule.steps=3 for as many rounds.",
        ),
        (
            ["method.objective=alignment"],
            "method.objective: is a class with its options (got 'alignment'), which a choice of objective has; give "
            "objective=alignment.",
        ),
        (
            ["method.objective=entropie"],
            "method.objective: is a class with its options (got 'entropie'), which a choice of objective has; give "
            "objective=<name>; did you mean 'entropy'",
        ),
        (
            ["method.optimizer=adam"],
            "method.optimizer: is an optimiser's class with its options (got 'adam'); give "
            "method.optimizer._target_=torch.optim.Adam",
        ),
        (
            ["method.model=surgery"],
            "method.model: is a class with its options (got 'surgery'), which a choice of method has; give "
            "method=surgery.",
        ),
        (
            ["method.objective=null"],
            "method.schedule: says when to update, but method.objective, the loss, is null; give objective=<name>, or "
            "a method that trains nothing, such as method=task_arithmetic.",
        ),
        (
            ["method.schedule=null"],
            "method.schedule: is null, so that nothing is trained, but there is a method.objective; give that as null "
            "too.",
        ),
        (["evaluation=3"], "evaluation: is a group of options (got 3)."),
        (
            ["suite.tasks=[]"],
            "suite.tasks: List should have at least 1 item after validation, not 0 (got []).",
        ),
        (
            ["suite.tasks=digits"],
            "suite.tasks: should be a list (got 'digits'); write 'suite.tasks=[digits]'.",
        ),
        (
            ["suite.tasks=[digits,signs,digits]"],
            "suite.tasks: each task once; digits is repeated (got ['digits', 'signs', 'digits']).",
        ),
        (
            ["suite.corruption=motion_blurr"],
            "suite.corruption: no such corruption; did you mean 'motion_blur'? (got 'motion_blurr').",
        ),
        (["suite.severity=6"], "suite.severity: should be less than or equal to 5 (got 6)."),
        (["suite.tasks=[digits,3]"], "suite.tasks[1]: should be text (got 3)."),
        (["trainer.devices=2"], "trainer.devices: should be 1"),
        (
            ["trainer.precission=16"],
            "trainer.precission: no such option; did you mean 'precision'",
        ),
        (
            ["checkpoints.dtype=half"],
            "checkpoints.dtype: should be 'float32', 'bfloat16', 'int8', 'int4' or 'int3' (got 'half').",
        ),
        (["checkpoints.base=null"], "checkpoints.base: should be text (got None)."),
        (["method.model.clamp=${nope}"], "method.model.clamp: Interpolation key 'nope' not found"),
        (["method._target_=x"], "method._target_"),
        (["+method.traning.x=1"], "method.traning: no such option; did you mean 'training'"),
        (["+method.lables=100"], "method.lables: no such option; did you mean 'labels'"),
        (["+method.labels=0"], "method.labels: should be greater than 0 (got 0)."),
        (["+method.optimiser.lr=1"], "method.optimiser: no such option; did you mean 'optimizer'?"),
        (["+rule.papr=1"], "rule.papr: no such option; did you mean 'paper'?"),
        (
            ["+rule.scale=1"],
            "rule.scale: no such option; it has name, paper, needs, adapt_on, images, grid, _target_.",
        ),
        (["rule=ties", "rule.scal=1"], "rule.scal: Ties has no such option; did you mean 'scale'?"),
        (["rule=ties", "rule.scale=many"], "rule.scale: should be a number (got 'many')."),
        (["rule=ties", "rule.top_k=2"], "rule: top_k is the share of entries to keep, in (0, 1], not 2."),
        (["method=tis"], "method: no method 'tis'; did you mean 'ties'"),
        (["+suite.tuned.wemo.lr=1.0"], "suite.tuned.wemo.lr: no method reads it; did you mean 'wemoe.lr'"),
        (["+suite.tuned.wemoe.rl=1.0"], "suite.tuned.wemoe.rl: no method reads it; did you mean 'wemoe.lr'"),
        (["suite.tuned.wemoe=1"], "suite.tuned.wemoe: should be a"),
        (["+attack.taget=1"], "attack.taget: no such option; did you mean 'target'?"),
        (["+logger.mine=3"], "logger.mine: should be a group of options (got 3)."),
        (["+logger.mine.project=a"], "logger.mine: should name its class or function: _target_"),
        (["++method.optimizer._partial_=false"], "method.optimizer: should have _partial_: true"),
        (["~method.objective._target_"], "method.objective: should name its class or function: _target_"),
        (["~method.schedule"], "method.schedule: has no value; give method.schedule=..."),
        (["method.optimizer.lr=-1"], "method.optimizer: Invalid learning rate: -1."),
        (["+method.optimizer.betas=[2,3]"], "method.optimizer: Invalid beta parameter at index 0: 2."),
        (["seed=99999999999999999999999"], "seed: should be less than"),
        (["trainer.accelerator=tpu"], "trainer.accelerator: should be 'auto', 'cpu', 'gpu', 'cuda' or 'mps'"),
        (["+experiment_name=../up"], "experiment_name: should be the name of one folder"),
        (["rule=null"], "rule: no rule 'null'; "),
        (["~method"], "~method: cannot be left out; there is "),
        (["+evalution.batch_size=5"], "evalution: no such option; did you mean 'evaluation'?"),
        (["+checkpoint_evry=5"], "checkpoint_evry: no such option; did you mean 'checkpoint_every'"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_expected(check: Any, words: list[str], line: str) -> None:
    found = check(*words)
    assert found[0].startswith(line), found


def test_a_yaml_of_the_users_with_a_misspelt_key_is_refused(own: Any) -> None:
    """Composing a file adds any key it has: only the check of the whole config can find it."""
    text = "defaults: [adamerging_layerwise, _self_]\nname: mine\nlables: 100\n"
    text += "traning: {_target_: adamerge.methods.frank_wolfe.SoftSteps}\n"
    folder = own("method/mine", text)
    own("rule/own", "name: own\n_target_: adamerge.rules.ties.Ties\nscal: 0.3\n")
    own("experiment/e", "# @package _global_\nexperiment_nam: e\nevalution: {batch_size: 3}\n")
    mistakes = Mistakes()
    words = ["method=mine", "rule=own", "experiment=e"]
    with opened_folders(conf_dir(), folder, words) as folders:
        _, (config,) = read_overrides(folders, "train", words, False, mistakes)
        with open_dict(config):
            del config["hydra"]
        find_mistakes_in(config, "train", mistakes)
    assert [line.partition(";")[0] for line in sorted(mistakes.lines)] == [
        "evalution: no such option",
        "experiment_nam: no such option",
        "method.lables: no such option",
        "method.traning: no such option",
        "rule.scal: Ties has no such option",
    ]
    hints = " ".join(line.partition("; ")[2] for line in mistakes.lines)
    assert all(f"did you mean '{name}'" in hints for name in ("evaluation", "training", "labels"))


def test_missing_values_are_named_once_with_the_way_to_give_them(check: Any) -> None:
    assert check("checkpoints=files") == [
        "checkpoints.base: has no value; give checkpoints.base=...",
        "checkpoints.experts: has no value; give checkpoints.experts=...",
    ]


def test_what_refers_to_a_missing_value_is_no_mistake_of_its_own(check: Any) -> None:
    found = check("checkpoints=files", "checkpoints.experts=e", command="pretrain")
    assert found == ["checkpoints.base: has no value; give checkpoints.base=..."]


def test_a_suite_that_takes_any_task(check: Any) -> None:
    assert check("suite=folders", "suite.tasks=[birds,tools]", "suite.data=/d") == []
    assert check("suite=folders") == ["suite.tasks: has no value; give suite.tasks=..."]


def test_the_error_counts_and_indents(compose: Any) -> None:
    config = compose("train", "seed=-1", "checkpoint_every=0")
    with pytest.raises(ConfigError) as caught:
        settings_of(config, "train")
    assert str(caught.value) == (
        "2 mistakes in the config, nothing was started.\n"
        "  seed: should be greater than or equal to 0 (got -1).\n"
        "  checkpoint_every: should be greater than 0 (got 0)."
    )


def test_the_check_leaves_the_config_as_it_is(compose: Any) -> None:
    config = compose("train")
    before = OmegaConf.to_yaml(config)
    settings_of(config, "train")
    assert OmegaConf.to_yaml(config) == before


CHOICES = [
    f"{path.parent.name}={path.stem}"
    for path in sorted(conf_dir().glob("*/*.yaml"))
    if path.parent.name in ("method", "rule", "backbone", "trainer", "logger") and path.stem[0] != "_"
]


@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_that_ships_is_free_of_mistakes(compose: Any, choice: str) -> None:
    open_values = ["backbone.model=ViT-B-32"] if choice == "backbone=own" else []
    settings_of(compose("train", choice, *open_values), "train")


@pytest.mark.parametrize(
    ("group", "section"),
    [("suite", SuiteSection), ("checkpoints", CheckpointsSection), ("backbone", BackboneSection)],
)
def test_the_base_of_a_group_shows_each_option_at_its_section_s_default(group: str, section: Any) -> None:
    shown = yaml.safe_load((conf_dir() / group / "_base.yaml").read_text())
    assert {name: section.model_fields[name].get_default() for name in shown} == shown


@pytest.mark.parametrize("suite", [name for name in choices("suite") if name != "folders"])
def test_every_suite_takes_every_option_of_the_base(check: Any, suite: str) -> None:
    words = ("suite.limit=3", "suite.corruption=jpeg", "suite.validation=true", "suite.adapt_images=4")
    assert check(f"suite={suite}", "checkpoints=random", *words) == []


@pytest.mark.parametrize("method", ["surgery", "task_arithmetic", "concrete_layerwise"])
def test_a_debug_run_is_a_short_one(settings: Any, method: str) -> None:
    found = settings("train", "debug=default", f"method={method}")
    assert (found.suite.limit, found.suite.steps, found.trainer.detect_anomaly) == (32, 3, True)
    assert found.experiment_name == "debug"


def test_settings_are_frozen(settings: Any) -> None:
    with pytest.raises(ValidationError):
        settings("train").suite.steps = 3


# What a command cannot do without.
REQUIRED = {"export": ("run=r", "out=o"), "predict": ("run=r", "images=i", "task=t")}


@pytest.mark.parametrize("command", [name for name, command in COMMANDS.items() if command.config])
def test_every_command_that_ships_is_free_of_mistakes(compose: Any, command: str) -> None:
    settings_of(compose(command, *REQUIRED.get(command, ())), command)
