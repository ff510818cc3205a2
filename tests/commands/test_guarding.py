"""Guarded runs through the command line: what is held back, what is said at the end, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from commands.conftest import QUICK
from composing import settings

from adamerge.__main__ import main
from adamerge.errors import ConfigError, DataError
from adamerge.methods.static import Static
from adamerge.report.table import to_markdown
from adamerge.runs import adapting
from adamerge.runs.guarding import hold_back
from adamerge.runs.protocol import Unlabeled
from adamerge.settings import identify
from adamerge.settings.sections import GuardSection
from adamerge.tasks.images import ImageSet
from adamerge.tasks.subsets import ImageSubset
from adamerge.tracking.journal import Journal


def rows(images: Any) -> set[int]:
    assert isinstance(images, ImageSubset)
    return set(images.rows.tolist())


@pytest.mark.parametrize(
    ("total", "share", "most", "count"), [(40, 0.1, 128, 4), (40, 0.5, 7, 7), (2, 0.1, 128, 1)]
)
def test_what_is_held_back_is_not_adapted_on(total: int, share: float, most: int, count: int) -> None:
    images = ImageSet.of(torch.zeros(total, 3, 4, 4, dtype=torch.uint8))
    given = Unlabeled({"t": images}, {"t": torch.arange(total)})
    left, held = hold_back(given, GuardSection(share=share, images=most), 0)
    assert rows(left.images["t"]) | rows(held["t"]) == set(range(total))
    assert not rows(left.images["t"]) & rows(held["t"])
    assert len(held["t"]) == count
    labels = left.labels["t"]
    assert labels is not None
    assert set(labels.tolist()) == rows(left.images["t"])


def test_one_image_cannot_be_held_back() -> None:
    images = ImageSet.of(torch.zeros(1, 3, 4, 4, dtype=torch.uint8))
    with pytest.raises(DataError, match=r"guard: task t has 1 image to adapt on.*\n.*guard=false"):
        hold_back(Unlabeled({"t": images}, {"t": None}), GuardSection(), 0)


def test_a_guided_run(
    train: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    """On by default; the held-back images stay out of the stream, no round passes images through an expert, and the end
    says what was kept everywhere."""
    seen: dict[str, Any] = {}
    of_run, recorded, stepped, encode = (
        adapting.guard_of,
        adapting.recorded_stream,
        adapting.Adaptation.training_step,
        Static.encode,
    )

    def guard_of(run: Any, pool: Any, held: Any) -> Any:
        seen["held"] = held
        return of_run(run, pool, held)

    def recorded_stream(run: Any, method: Any, pool: Any, of_experts: bool, stream: Any) -> Any:
        seen["stream"] = stream
        return recorded(run, method, pool, of_experts, stream)

    def training_step(self: Any, *args: Any) -> None:
        seen["within"] = True
        stepped(self, *args)
        seen["within"] = False

    def counted(self: Any, *args: Any) -> Any:
        assert not seen.get("within"), "an expert's pass within a round"
        return encode(self, *args)

    monkeypatch.setattr(adapting, "guard_of", guard_of)
    monkeypatch.setattr(adapting, "recorded_stream", recorded_stream)
    monkeypatch.setattr(adapting.Adaptation, "training_step", training_step)
    monkeypatch.setattr(Static, "encode", counted)
    folder, results = train("adamerging_guided", "suite.limit=100", steps=2)
    for task, stream in seen["stream"].image_sets.items():
        assert len(rows(seen["held"][task])) == 10
        assert not rows(stream) & rows(seen["held"][task])
    found = json.loads((folder / "results.json").read_text())["guard"]
    assert set(found) == {"start", "best", "end", "kept", "round", "collapsed"}
    assert results.guard is not None
    assert found["best"] == results.guard.best == max(found["start"], found["end"])
    assert Journal(folder / "journal.jsonl").read()[-1]["guard/best"] == found["best"]
    line = "guard, estimated accuracy on images held back: start"
    assert line in capsys.readouterr().out.replace("\n", " ")
    assert line in to_markdown(results)


def test_a_papers_preset_has_none_unless_asked() -> None:
    assert settings("train", "method=adamerging_layerwise").guarded is None
    assert settings("train", "method=adamerging_layerwise", "guard=true").guarded == GuardSection()
    assert settings("train", "method=wemoe_guided").guarded == GuardSection()
    assert settings("train", "method=wemoe_guided", "guard=false").guarded is None
    assert settings("train", "method=wemoe_guided", "guard={every: 3}").guarded == GuardSection(every=3)


def test_a_guard_is_another_run_and_its_defaults_are_the_same() -> None:
    def id_of(*words: str) -> str:
        return identify(settings("train", "method=adamerging_guided", *words), "train", {}, {}).id

    assert id_of() == id_of("guard={every: 10}") == id_of("guard={}")
    assert len({id_of(), id_of("guard=false"), id_of("guard={every: 5}")}) == 3


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("method=ties", "guard=true"), "guard: ties trains nothing"),
        (("method=supermerge", "guard=true"), "guard: supermerge learns from labels and sees no unlabeled"),
        (("guard={every: 0}",), r"guard: should be .* greater than 0 \(got"),
        (("guard={evry: 3}",), "guard: no such option 'evry'; did you mean 'every'"),
        (("guard=maybe",), "guard: should be true or false"),
    ],
)
def test_a_mistake_is_a_sentence(words: tuple[str, ...], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        settings("train", *words)


def test_with_nothing_to_hold_back_it_says_so(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "method=adamerging_guided", "suite.adapt_images=1", "method.schedule.steps=1", *QUICK])
    assert "Give guard=false, or more images" in capsys.readouterr().err
