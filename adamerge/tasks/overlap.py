"""Test pictures among the training pictures: a mistake that published numbers of this field have suffered from."""

from __future__ import annotations

import hashlib

from adamerge.errors import DataError
from adamerge.tasks.images import ImageSet

_BATCH = 1024


def refuse_overlap(task: str, train: ImageSet, test: ImageSet) -> None:
    """Check that no test picture equals a training picture, pixel by pixel at the model's resolution.

    Raises:
        DataError: some do; it says how many, with an example.
    """
    known = {digest: row for row, digest in enumerate(_digests(train))}
    shared = [(row, known[digest]) for row, digest in enumerate(_digests(test)) if digest in known]
    if shared:
        row, twin = shared[0]
        raise DataError(
            f"Task '{task}': {len(shared)} of {len(test)} test pictures are training pictures too, e.g. test picture "
            f"{row} is training picture {twin}.\n"
            "  Take a clean split; suite.allow_overlap=true goes on, and the accuracy says less than it seems to."
        )


def _digests(images: ImageSet) -> list[bytes]:
    return [
        hashlib.blake2b(picture.numpy().tobytes(), digest_size=16).digest()
        for batch in images.batches(_BATCH)
        for picture in batch
    ]
