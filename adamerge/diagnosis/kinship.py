"""Whether the experts come from the base."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from adamerge.checkpoints import compare_states, open_checkpoint
from adamerge.diagnosis.findings import Finding
from adamerge.errors import AdamergeError
from adamerge.models.kinship import ADVICE, Kinship, kinship


def experts_and_base(base: str, experts: Mapping[str, str]) -> Iterator[Finding]:
    """One line for all that look related, one for each that does not. Files that cannot be opened or do not fit are
    left to the checks of files.

    Args:
        base, experts: files on this machine, the experts' by task.
    """
    try:
        origin = open_checkpoint(base).image_encoder()
    except AdamergeError:
        return
    related: list[Kinship] = []
    for task, path in experts.items():
        try:
            state = open_checkpoint(path).image_encoder()
        except AdamergeError:
            continue
        if compare_states({key: value for key, value in origin.items() if key in state}, state):
            continue
        found = kinship(origin, state)
        if found.doubt:
            yield Finding("warning", f"expert {task} and base", found.doubt, ADVICE)
        else:
            related.append(found)
    if related:
        most, least = max(k.distance for k in related), min(k.cosine for k in related)
        text = f"{len(related)} moved by at most {most:.2f} of the base's norm, cosine {least:.2f} or more"
        yield Finding("ok", "experts and base", text)
