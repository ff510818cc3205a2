"""Opens base, experts and heads, checks that they fit together, and makes the pool."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from adamerge.architecture import OPEN_CLIP
from adamerge.checkpoints import (
    Checkpoint,
    compare_states,
    describe_misfits,
    open_checkpoint,
)
from adamerge.checkpoints.misfits import Difference
from adamerge.checkpoints.trunks import feature_width
from adamerge.errors import PoolError
from adamerge.merging import Head, Pool
from adamerge.merging.pool import stack_task_vectors
from adamerge.models.backbone import Backbone
from adamerge.models.clip import Model
from adamerge.models.guessing import guess
from adamerge.models.heads import HeadSource, head_fault, open_head
from adamerge.models.kinship import ADVICE, Kinship, kinship
from adamerge.models.likeness import Lookalikes
from adamerge.models.pictures import PictureRules
from adamerge.models.positions import resized
from adamerge.models.settling import settle, stated_of

Source = str | Path | Mapping[str, Tensor]
Change = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
# {"<task> (<file>)": (where it differs, its tensors)}
Misfits = dict[str, tuple[list[Difference], Mapping[str, Tensor]]]
NOTHING_CHANGED = "Every expert equals the base model: there are no task vectors to merge."
log = logging.getLogger(__name__)


def open_pool(
    base: Source,
    experts: Mapping[str, Source],
    heads: Mapping[str, HeadSource],
    backbone: Model | None = None,
    dtype: torch.dtype = torch.float32,
    without_task: Sequence[str] = (),
    pictures: PictureRules | None = None,
    resize_positions: bool = False,
    normalize: bool | None = None,
) -> Pool:
    """Open the base, its experts and their heads as one pool.

    Args:
        base: the pre-trained model; a path in any supported format or a state dict (open_clip or HF keys).
        experts: {task: checkpoint} in the order of the tasks.
        heads: {task: weight (classes, d) with the logit scale in it, (weight, bias), an nn.Linear, a Head, or a
            checkpoint of one}. Features are normalised before it unless the head or its file says otherwise.
        backbone: open_clip model name or configuration; when left out, that of the base's shapes and of the
            configuration files beside it, and what neither tells is guessed, with a warning.
        dtype: storage type of the task vectors: float32, bfloat16, or int8, int4, int3 for that many bits an entry.
        without_task: experts that belong to no task and need no head: candidates that may be of no use.
        pictures: mean and deviation of the pictures; when left out, those that the files state, or CLIP's.
        resize_positions: bring positional embeddings of another image size to the backbone's, as open_clip does.
        normalize: whether features are brought to length 1 before heads that are files or state dicts; None: as these
            say, or as is usual.

    A head without an expert belongs to an unseen task.

    Raises:
        PoolError: files that do not fit; one error that names all of them. Or settings stated beside the weights that
            contradict the backbone or each other.
        CheckpointError: a file that cannot be opened.
    """
    opened = open_checkpoint(base)
    found, origin, resize = fit_to_backbone(
        opened, opened.image_encoder(), experts, backbone, pictures, resize_positions
    )
    # In the experts' order, which trained parts are kept in: heads from the cache come in the alphabet's.
    order = [task for task in dict.fromkeys([*experts, *heads]) if task in heads]
    opened_heads = {task: open_head(heads[task], normalize) for task in order}
    check_heads(
        opened_heads, heads, tuple(task for task in experts if task not in without_task), found.embed_dim
    )
    vectors = stack_task_vectors(
        origin, _fitting(experts, heads, opened, origin, resize), len(experts), dtype
    )
    if not vectors:
        raise PoolError(NOTHING_CHANGED)
    unseen = tuple(task for task in opened_heads if task not in experts)
    return Pool(found.build(), origin, vectors, tuple(experts), opened_heads, unseen)


def fit_to_backbone(
    opened: Checkpoint,
    origin: Mapping[str, Tensor],
    experts: Mapping[str, Source],
    backbone: Model | None,
    pictures: PictureRules | None,
    resize_positions: bool,
) -> tuple[Backbone, dict[str, Tensor], Change]:
    """The backbone, the base's tensors in the order of its encoder, and what brings an expert's to its image size.

    Args:
        opened: the base's checkpoint.
        origin: its image encoder, whose numbers may be missing (on the meta device).

    Raises:
        PoolError: as `open_pool`.
    """
    if feature_width(origin) is None:
        raise PoolError(
            f"The base model {opened.source} has no projection, so its features do not reach the heads.\n"
            "  Give the whole CLIP, or Hugging Face's CLIPVisionModelWithProjection (experts may go without)."
        )
    stated = {"the base": opened.stated, **{task: stated_of(source) for task, source in experts.items()}}
    model = backbone if backbone is not None else guess(origin, opened.stated, pictures)
    given = {} if pictures is None else {"mean": pictures.mean, "std": pictures.std, **pictures.fit.rules()}
    settled = settle(model, stated, resize_positions=resize_positions, **given)
    found = Backbone.of(settled.model, settled.pictures)
    encoder = found.build()
    resize: Change = partial(resized, encoder=encoder) if resize_positions else dict[str, Tensor]
    origin = resize(origin)
    _check({"the base model": (opened.source, origin)}, dict(encoder.state_dict()), what="the backbone")
    # The rows of the coefficient table follow the module's order, whatever order the file has.
    return found, {key: origin[key] for key in encoder.state_dict() if key in origin}, resize


def _fitting(
    experts: Mapping[str, Source],
    heads: Mapping[str, HeadSource],
    base: Checkpoint,
    origin: Mapping[str, Tensor],
    resize: Change,
) -> Iterator[Mapping[str, Tensor]]:
    """The experts' encoders, one open at a time; at the end one error for all that do not fit, and one warning for all
    that are no experts of their own."""
    seen, twins = Lookalikes(), []
    seen.like("the base model", origin)
    misfits: Misfits = {}
    for task, source in experts.items():
        own_head = isinstance(source, str | Path) and heads.get(task) == source
        where, state = _expert(task, source, base, origin, own_head)
        state = resize(state)
        if found := differences(origin, state):
            # Of a misfit the shapes are enough, to tell what it looks like.
            shapes = {key: torch.empty_like(value, device="meta") for key, value in state.items()}
            misfits[f"{task} ({where})"] = (found, shapes)
        else:
            if (other := seen.like(task, state)) is not None:
                twins.append(f"{task} equals {other}")
            warn_of_kinship(task, kinship(origin, state))
            yield state
    refuse_misfits(misfits, origin)
    warn_of_twins(twins)


def refuse_misfits(misfits: Misfits, origin: Mapping[str, Tensor]) -> None:
    """Raise one PoolError for all experts that do not fit the base."""
    if misfits:
        raise PoolError(describe_misfits(misfits, origin, "the base model"))


def warn_of_twins(twins: Sequence[str]) -> None:
    """Say which experts are no experts of their own."""
    if twins:
        log.warning("Up to rounding, %s. Are these the right files?", ", ".join(twins))


def warn_of_kinship(task: str, found: Kinship) -> None:
    """Say where an expert does not look fine-tuned from the base."""
    if found.doubt:
        log.warning("%s: %s. %s", task, found.doubt, ADVICE)


def _expert(
    task: str, source: Source, base: Checkpoint, origin: Mapping[str, Tensor], head_is_used: bool
) -> tuple[str, dict[str, Tensor]]:
    checkpoint = open_checkpoint(source).on(origin, base.source)
    text = base.text_leftovers()
    changed = [k for k, v in checkpoint.text_leftovers().items() if k in text and not torch.equal(v, text[k])]
    warn_of_text_vectors(task, changed)
    return checkpoint.source, checkpoint.image_encoder(head_is_used)


def warn_of_text_vectors(task: str, changed: Sequence[str]) -> None:
    """Checkpoints of the task-vectors family carry text tensors that fine-tuning should not have touched."""
    if changed:
        log.warning("%s: text tensors differ from the base's and are ignored: %s", task, ", ".join(changed))


def _check(
    states: Mapping[str, tuple[str, Mapping[str, Tensor]]], reference: Mapping[str, Tensor], what: str
) -> None:
    misfits = {}
    for name, (source, state) in states.items():
        if found := differences(reference, state):
            misfits[f"{name} ({source})"] = (found, state)
    if misfits:
        raise PoolError(describe_misfits(misfits, reference, what))


def differences(reference: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[Difference]:
    """Where an encoder is not as the reference."""
    # Hugging Face's CLIPVisionModel has no projection; the base's is used then.
    return compare_states(
        {k: v for k, v in reference.items() if k in state or k != OPEN_CLIP.projection}, state
    )


def check_encoder(
    source: str, state: Mapping[str, Tensor], base: Mapping[str, Tensor], what: str = "the base model"
) -> None:
    """Raise a PoolError unless one encoder has the base's tensors and shapes."""
    _check({"the checkpoint": (source, state)}, base, what)


def check_heads(
    heads: Mapping[str, Head],
    sources: Mapping[str, HeadSource],
    experts: tuple[str, ...],
    embed_dim: int,
) -> None:
    """Raise one PoolError for every expert without a head, and every head that cannot classify such features."""
    lines = [f"  {task}: no head." for task in experts if task not in heads]
    for task, head in heads.items():
        if fault := head_fault(head, embed_dim):
            source = sources[task]
            lines.append(f"  {task}: {fault}" + (f" ({source})" if isinstance(source, str | Path) else ""))
    if lines:
        raise PoolError("These heads cannot be used with the base model.\n" + "\n".join(lines))
