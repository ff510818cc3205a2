"""What the expert thinks of a prediction: the label-free estimate of the accuracy, and its differentiable form."""

from __future__ import annotations

from torch import Tensor

from adamerge.objectives.objective import Classifier, Representation, Target, widened


def judged(predicted: Tensor, expert: Tensor) -> Tensor:
    """The probability that the expert gives to a prediction: of how likely it is right, as far as the expert is
    calibrated.

    Args:
        predicted: (n,) classes, or (n, classes) probabilities: then what a class drawn from them would get on average,
            sum_c p[c] q[c], which has a gradient.
        expert: (n, classes) probabilities q of the task's expert on the same images.

    Returns:
        (n,) between 0 and 1.
    """
    if predicted.ndim == expert.ndim:
        return (predicted * expert).sum(dim=-1)
    return expert.gather(1, predicted.view(-1, 1)).squeeze(1)


class NegativeEstimate:
    """Minus the label-free estimate of the accuracy in its differentiable form, -sum_c q_c p_c, averaged over a batch.

    Between -1 and 0. p are the merged model's probabilities, q the expert's. Where agreement pulls p to q, this pulls p
    to the expert's most likely class, and an image on which the expert is unsure counts for little.

    Source: this project's own (docs/label_free.md): what ranks finished runs without labels is minimised.
    """

    name = "minus the estimated accuracy"
    target: Target = "expert"

    def __call__(
        self, method: Classifier, representation: Representation, task: str, target: Representation
    ) -> Tensor:
        own = widened(method.classify(representation[-1], task)).softmax(dim=-1)
        expert = widened(method.pool.heads[task].logits(target[-1])).softmax(dim=-1)
        return -judged(own, expert).mean()
