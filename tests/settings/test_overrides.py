"""What is typed: unreadable words, unknown choices and keys, sweeps; and what Hydra is given in the end."""

from __future__ import annotations

from typing import Any

import pytest

from adamerge.commands.config_folders import ConfigFolders, opened_folders
from adamerge.commands.overrides import read_overrides
from adamerge.settings.mistakes import Mistakes
from adamerge.settings.paths import conf_dir


@pytest.mark.parametrize(
    ("word", "line"),
    [
        (
            "method=adamergin_layerwis",
            "method: no method 'adamergin_layerwis'; did you mean 'adamerging_layerwise'",
        ),
        ("suite=qqq", "suite: no suite 'qqq'; there is "),
        ("sede=1", "sede: no such option; did you mean 'seed'?"),
        ("suit=mini", "suit: no such option; did you mean 'suite'?"),
        ("lr=0.1", "lr: no such option here; did you mean 'method.optimizer.lr' or 'suite.lr'?"),
        (
            "method.schedule.setps=3",
            "method.schedule.setps: method.schedule has no such option; did you mean 'steps'?",
        ),
        (
            "evaluation.size=3",
            "evaluation.size: evaluation has no such option; it has batch_size, precision, keep_predictions.",
        ),
        ("seed.x=1", "seed.x: seed is 0 here, it has no options."),
        ("+seed=1", "+seed: is there already; leave out the '+' to change it: seed=..."),
        ("~seedd", "seedd: no such option; did you mean 'seed'?"),
        ("seed", "'seed': is not key=value."),
        ("seed=a=b", "seed: cannot read 'a=b'; if that is one text, write 'seed=\"a=b\"'."),
        ("suite.tasks=[digits", "suite.tasks: cannot read '[digits'"),
        ("seed=0,1", "seed: has several values (0,1); add -m to run each, or write 'seed=[0,1]' for a list."),
    ],
)
def test_a_mistyped_word_is_echoed_with_what_was_meant(check: Any, word: str, line: str) -> None:
    (found,) = check(word)
    assert found.startswith(line)


def test_all_mistakes_of_a_command_line_are_found_at_once(check: Any) -> None:
    found = check(
        "method=adamergin",
        "sede=1",
        "a=b=c",
        "suite.tasks=[digits,textres]",
        "method.model.ranks=3",
        "seed=-1",
    )
    assert [line.split(":")[0] for line in found] == [
        "a",
        "method",
        "sede",
        "seed",
        "suite.tasks[1]",
        "method.model.ranks",
    ]


def test_the_words_of_the_design(check: Any) -> None:
    found = check("method.model.ranks=3", "suite.tasks=[digits, signs, textres]")
    assert found == [
        "suite.tasks[2]: no task 'textres'; did you mean 'textures'?",
        "method.model.ranks: AdaMerging has no such option; it has granularity, start, clamp, layout.",
    ]


def test_every_value_of_a_sweep_is_checked(check: Any) -> None:
    found = check("method=adamerging_layerwise,nope", "rule=none,tis", "seed=0,1,-2", sweeping=True)
    assert [line.split(";")[0] for line in found] == [
        "method: no method 'nope'",
        "rule: no rule 'tis'",
        "seed: should be greater than or equal to 0 (got -2).",
    ]


def test_a_range_and_a_wildcard_are_sweeps_too(check: Any) -> None:
    assert check("seed=range(0,5)", "rule=glob(t*)", sweeping=True) == []
    assert check("seed=range(0,-5,-1)", sweeping=True) == [
        "seed: should be greater than or equal to 0 (got -4)."
    ]


def test_a_sweep_over_choices_checks_each_composed_config(check: Any) -> None:
    (line,) = check("suite=mini,folders", "suite.tasks=[digits,nope]", sweeping=True)
    assert line.startswith("suite.tasks[1]: no task 'nope'")  # `folders` takes any task


def test_a_choice_that_the_command_has_no_place_for(check: Any) -> None:
    (line,) = check("method=adamerging_layerwise", command="pretrain")
    assert line.startswith("method: Could not override 'method'.")


def test_options_of_components_and_of_the_trainer_need_no_plus(folders: ConfigFolders) -> None:
    mistakes = Mistakes()
    typed = ["method.optimizer.betas=[0.9,0.99]", "trainer.max_time=00:01:00:00", "seed=1"]
    words, (config,) = read_overrides(folders, "train", typed, False, mistakes)
    assert words == ["++method.optimizer.betas=[0.9,0.99]", "++trainer.max_time=00:01:00:00", "seed=1"]
    assert config.method.optimizer.betas == [0.9, 0.99]
    assert mistakes.lines == []


@pytest.mark.parametrize("path", ["/data/é/x.pt", "experts/{task}/finetuned.pt", "/a (1)/b.pt"])
def test_a_path_needs_no_quotes(folders: ConfigFolders, path: str) -> None:
    typed = ["checkpoints=files", "checkpoints.base=b.pt", f"checkpoints.experts={path}"]
    _, (config,) = read_overrides(folders, "train", typed, False, Mistakes())
    assert config.checkpoints.experts == path


def test_the_users_own_folder_adds_to_the_choices(own: Any, check: Any) -> None:
    folder = own("method/mine", "defaults: [adamerging_layerwise, _self_]\nname: mine\n")
    mistakes = Mistakes()
    with opened_folders(conf_dir(), folder, ()) as both:
        _, (config,) = read_overrides(both, "train", ["method=mine"], False, mistakes)
        assert "mine" in both.choices("method")
    assert config.method.name == "mine"
    assert config.method.schedule.batch_size == 16
    assert mistakes.lines == []


def test_a_rule_of_the_users_is_a_method_too_and_only_where_it_is_known(own: Any, check: Any) -> None:
    folder = own("rule/mine", "name: mine\nsummary: my own\n_target_: adamerge.rules.ties.Ties\ntop_k: 0.5\n")
    with opened_folders(conf_dir(), folder, ()) as both:
        assert {"mine", "ties"} < set(both.choices("method"))
        _, configs = read_overrides(both, "train", ["method=mine,ties,surgery"], True, mistakes := Mistakes())
    assert mistakes.lines == []
    assert [cfg.rule.name for cfg in configs] == ["mine", "ties", "none"]
    assert [cfg.method.name for cfg in configs] == ["mine", "ties", "surgery"]
    assert configs[0].method.summary == "my own"
    assert configs[0].method.schedule is None
    with opened_folders(conf_dir(), None, ()) as shipped:
        assert "mine" not in shipped.choices("method")
        assert shipped.choices("method").count("doge_am") == 1
        assert shipped.compose("train", ["method=doge_am"]).method.schedule is not None


def test_a_sweep_that_an_experiment_asks_for_is_checked(own: Any) -> None:
    sweep = (
        '# @package _global_\nhydra: {mode: MULTIRUN, sweeper: {params: {seed: "1,-1", rule: "none,tis"}}}\n'
    )
    folder = own("experiment/table", sweep)
    mistakes = Mistakes()
    with opened_folders(conf_dir(), folder, ()) as both:
        words, configs = read_overrides(both, "train", ["experiment=table", "seed=3,4"], False, mistakes)
    assert words == ["experiment=table", "seed=3,4"]  # the experiment's own values come from the experiment
    assert [line.split(";")[0] for line in mistakes.lines] == ["rule: no rule 'tis'"]
    assert [config.seed for config in configs] == [3, 4]


@pytest.mark.parametrize("method", ["adamerging_layerwise_pp", "adamerging_taskwise_pp"])
def test_plusplus_puts_ties_below_unless_a_rule_is_chosen(compose: Any, method: str) -> None:
    assert compose("train", f"method={method}").rule.name == "ties"
    assert compose("train", f"method={method}", "rule=none").rule.name == "none"
