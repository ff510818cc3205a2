"""Each method's updates equal a straightforward restatement of the reference's formula (float64, 1e-9)."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from conftest import TASKS
from restating import (
    ADAM,
    DEPTH,
    adapt,
    arithmetic,
    block,
    close,
    embed,
    expert,
    forward,
    images64,
    logits,
    mean_entropy,
    mlp,
    pool64,
    tau,
)
from torch import Tensor
from torch.nn.functional import cross_entropy, l1_loss, mse_loss

from adamerge.losses import Alignment, CrossEntropy, Distillation, Entropy, PseudoLabels, TaskIdentity
from adamerge.merging.masks import uniform_noise
from adamerge.methods import (
    DAM,
    Concrete,
    ElementWise,
    FrankWolfe,
    FullFinetuning,
    SuperMerge,
    Surgery,
    SurgeryV2,
    Tinting,
    Twin,
    WEMoE,
)
from adamerge.rules import Pretrained, TaskArithmetic
from adamerge.training import (
    AlternatingTuning,
    Bilevel,
    BlockByBlock,
    DefenseAware,
    HardSteps,
    Schedule,
    SoftSteps,
)

RULED = TaskArithmetic()


@pytest.fixture(autouse=True)
def double_precision():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def seeded(make):
    torch.manual_seed(3)
    return make().double()


def clones(parameters) -> list[Tensor]:
    return [p.detach().clone().requires_grad_() for p in parameters]


def adapter(x: Tensor, down: Tensor, up: Tensor) -> Tensor:
    return x - torch.relu(x @ down.T) @ up.T


@pytest.mark.parametrize("normalise", [False, True])
def test_surgery(normalise):
    pool, images = pool64(), images64()
    method = seeded(lambda: Surgery(RULED(pool), rank=2, normalize=normalise))
    start = clones(method.parameters())
    adapt(method, Alignment(normalise), images, Schedule(2, batch_size=2, batches_per_task=2, update="batch"))

    optimizer = ADAM(start)
    merged = arithmetic(pool)
    for _ in range(2):
        for k, task in enumerate(TASKS):
            for batch in images[task].split(2):
                feature, target = forward(merged, batch)[1], forward(expert(pool, task), batch)[1]
                if normalise:
                    feature, target = (x / x.norm(dim=1, keepdim=True) for x in (feature, target))
                optimizer.zero_grad()
                l1_loss(adapter(feature, start[2 * k], start[2 * k + 1]), target).backward()
                optimizer.step()
    for own, restated in zip(method.parameters(), start, strict=True):
        close(own, restated)


def test_surgery_v2():
    pool, images = pool64(), images64()
    method = seeded(lambda: SurgeryV2(RULED(pool), rank=2))
    state = {key: value.detach().clone().requires_grad_() for key, value in method.named_parameters()}
    adapt(method, Alignment(), images, Schedule(2, batch_size=4, update="task"))

    optimizer = ADAM(state.values())
    merged = arithmetic(pool)
    for _ in range(2):
        for k, task in enumerate(TASKS):

            def after(index: int, x: Tensor, k: int = k) -> Tensor:
                stem = f"inner.{k}.{index}"
                return adapter(x, state[f"{stem}.down.weight"], state[f"{stem}.up.weight"])

            means, feature = forward(merged, images[task], after)
            feature = adapter(feature, state[f"final.{k}.down.weight"], state[f"final.{k}.up.weight"])
            targets, target = forward(expert(pool, task), images[task])
            loss = sum(
                ((a - b).abs().mean() for a, b in zip(means, targets, strict=True)), l1_loss(feature, target)
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    for key, own in method.named_parameters():
        close(own, state[key])


@pytest.mark.parametrize(("confidence", "soft"), [(False, False), (True, False), (False, True)])
def test_tinting(confidence, soft):
    pool, images = pool64(), images64(8)
    method = Tinting(RULED(pool)).double()
    adapt(method, PseudoLabels(confidence, soft), images, Schedule(2, batch_size=8, update="task"))

    table = torch.full((len(pool.keys), 3), 0.3, dtype=torch.float64, requires_grad=True)
    weights = clones(pool.heads[task].weight for task in TASKS)
    biases = [torch.zeros(len(w), dtype=torch.float64, requires_grad=True) for w in weights]
    optimizer = ADAM([table, *weights, *biases])
    for _ in range(2):
        for k, task in enumerate(TASKS):
            theta = {
                key: pool.base[key]
                + sum(table[row, j].clamp(0, 1) * tau(pool, t)[key] for j, t in enumerate(TASKS))
                for row, key in enumerate(pool.keys)
            }
            z = logits(weights[k], forward(theta, images[task])[1], biases[k])
            teacher = logits(pool.heads[task].weight, forward(expert(pool, task), images[task])[1]).softmax(
                -1
            )
            (p_teacher, y_teacher), (p_own, y_own) = teacher.max(-1), z.softmax(-1).max(-1)
            keep = (
                (y_teacher == y_own) | (p_teacher >= p_own) if confidence else torch.ones(8, dtype=torch.bool)
            )
            if not keep.any():
                continue
            optimizer.zero_grad()
            if soft:
                (-(teacher * z.log_softmax(-1)).sum(-1).mean()).backward()
            else:
                cross_entropy(z[keep], y_teacher[keep]).backward()
            optimizer.step()
    close(method.merging.values, table)
    for own, restated in zip([*method.weights, *method.biases], [*weights, *biases], strict=True):
        close(own, restated)


def test_tinting_of_a_layer_in_the_encoder():
    pool, images = pool64(), images64()
    layer = "visual.transformer.resblocks.1.mlp"
    method = Tinting(RULED(pool), layer, train_coefficients=False, start=None).double()
    adapt(method, PseudoLabels(), images, Schedule(2, batch_size=4, update="task"))

    merged = arithmetic(pool)
    keys = [key for key in pool.keys if key.startswith(layer)]
    own = {task: clones(merged[key] for key in keys) for task in TASKS}
    optimizer = ADAM([p for task in TASKS for p in own[task]])
    for _ in range(2):
        for task in TASKS:
            theta = {**merged, **dict(zip(keys, own[task], strict=True))}
            z = logits(pool.heads[task].weight, forward(theta, images[task])[1])
            target = logits(pool.heads[task].weight, forward(expert(pool, task), images[task])[1]).argmax(-1)
            optimizer.zero_grad()
            cross_entropy(z, target).backward()
            optimizer.step()
    assert len(keys) == 4
    for k, task in enumerate(TASKS):
        for tinted, restated in zip(method.tinted[k], own[task], strict=True):
            close(tinted, restated)


@pytest.mark.parametrize("layers", [0, 1, 2])
@pytest.mark.parametrize("reduce", [False, True])
@pytest.mark.parametrize("shared", [False, True])
def test_wemoe(layers, reduce, shared):
    pool, images = pool64(), images64()
    method = seeded(lambda: WEMoE(RULED(pool), layers, batch_reduce=reduce, shared_router=shared))
    state = {key: value.detach().clone().requires_grad_() for key, value in method.named_parameters()}
    adapt(method, Entropy(), images, Schedule(2, batch_size=2, batches_per_task=2, forward_images=100))

    optimizer = ADAM(state.values())
    theta = arithmetic(pool)

    def gates(index: int, tokens: Tensor) -> Tensor:
        stem = f"routers.{0 if shared else index}"
        if layers == 0:
            return state[f"{stem}.gate"]
        if layers == 2:
            tokens = torch.relu(tokens @ state[f"{stem}.fc1.weight"].T + state[f"{stem}.fc1.bias"])
        return (tokens @ state[f"{stem}.fc2.weight"].T + state[f"{stem}.fc2.bias"]).mean(0)

    def mix(index: int, tokens: Tensor) -> Tensor:
        names = ("c_fc.weight", "c_fc.bias", "c_proj.weight", "c_proj.bias")
        keys = [f"visual.transformer.resblocks.{index}.mlp.{name}" for name in names]
        chosen = [gates(index, sample) for sample in tokens]
        if reduce:
            chosen = [torch.stack(chosen).mean(0)] * len(tokens)
        outputs = []
        for r, sample in zip(chosen, tokens, strict=True):
            own = [
                pool.base[key] + sum(r[k] * tau(pool, t)[key] for k, t in enumerate(TASKS)) for key in keys
            ]
            outputs.append(mlp(sample, *own))
        return torch.stack(outputs)

    for _ in range(2):
        optimizer.zero_grad()
        for task in TASKS:
            for batch in images[task].split(2):
                mean_entropy(logits(pool.heads[task].weight, forward(theta, batch, mix=mix)[1])).backward()
        optimizer.step()
    for key, own in method.named_parameters():
        close(own, state[key])


def concrete(pool, table: Tensor, masks: list[Tensor], seed: int, draw: int) -> dict[str, Tensor]:
    theta = {}
    for row, key in enumerate(pool.keys):
        u = uniform_noise(masks[row], seed, key, draw)
        m = torch.sigmoid((masks[row] + torch.log(u / (1 - u))) / 0.5)
        vectors = [table[row, k].clamp(0, 1) * tau(pool, t)[key] * m / m.mean() for k, t in enumerate(TASKS)]
        theta[key] = pool.base[key] + sum(vectors)
    return theta


def entropy_of(pool, theta, images: dict[str, Tensor]) -> Tensor:
    return sum(mean_entropy(logits(pool.heads[t].weight, forward(theta, x)[1])) for t, x in images.items())


def test_concrete_task_arithmetic():
    pool, images = pool64(), images64()
    method = seeded(lambda: Concrete(RULED(pool)))
    seed = int(method.seed)
    adapt(method, Entropy(), images, Schedule(3, batch_size=4))

    masks = [torch.zeros_like(pool.base[key], requires_grad=True) for key in pool.keys]
    table = torch.full((len(pool.keys), 3), 0.3, dtype=torch.float64)
    optimizer = ADAM(masks)
    for draw in range(3):  # a fresh mask after each update
        optimizer.zero_grad()
        entropy_of(pool, concrete(pool, table, masks, seed, draw), images).backward()
        optimizer.step()
    for own, restated in zip(method.logits_of_mask, masks, strict=True):
        close(own, restated)


def restated_concrete(pool, first, second, seed, steps, meta_steps, attack=None):
    """The published loop, its order of operations included: see the reference, section 9."""
    masks = [torch.zeros_like(pool.base[key], requires_grad=True) for key in pool.keys]
    table = torch.full((len(pool.keys), 3), 0.3, dtype=torch.float64, requires_grad=True)
    outer, inner, final = ADAM(masks), torch.optim.Adam([table], lr=1.0), ADAM([table])
    draw = 0
    for step in range(steps):
        if step < meta_steps:
            # The forward sees the previous round's coefficients; only the step starts from 0.3.
            (gradient,) = torch.autograd.grad(
                entropy_of(pool, concrete(pool, table, masks, seed, draw), first), table
            )
            table.data.fill_(0.3)
            table.grad = gradient
            inner.step()
            draw += 1
            if attack is not None:
                attack.step(concrete(pool, table, masks, seed, draw), second)
            outer.zero_grad()
            theta = concrete(pool, table.detach(), masks, seed, draw)
            loss = entropy_of(pool, theta, second)
            if attack is not None:
                loss = loss + 0.1 * entropy_of(pool, theta, attack.perturbed(second))
            loss.backward()
            outer.step()
            draw += 1
        else:
            if step == meta_steps:
                table.data.fill_(0.3)
            final.zero_grad()
            entropy_of(pool, concrete(pool, table, [m.detach() for m in masks], seed, draw), first).backward()
            final.step()
    return masks, table


def test_concrete_adamerging():
    pool, first, second = pool64(), images64(seed=1), images64(seed=2)
    method = seeded(lambda: Concrete(RULED(pool), train_coefficients=True))
    seed = int(method.seed)
    both = {task: torch.cat([first[task], second[task]]) for task in TASKS}
    schedule = Schedule(5, batch_size=4, batches_per_task=2)
    adapt(method, Entropy(), both, schedule, partial(Bilevel, meta_steps=3))
    masks, table = restated_concrete(pool, first, second, seed, 5, 3)
    close(method.merging.values, table)
    for own, restated in zip(method.logits_of_mask, masks, strict=True):
        close(own, restated)


class Attack:
    """Universal perturbations that maximise the cross-entropy to the clean predictions."""

    def __init__(self, pool) -> None:
        self.pool = pool
        self.deltas = {t: torch.zeros(3, 4, 4, dtype=torch.float64, requires_grad=True) for t in TASKS}
        self.optimizer = torch.optim.Adam(self.deltas.values(), lr=1e-2)

    def step(self, theta, images) -> None:
        theta = {key: value.detach() for key, value in theta.items()}
        self.optimizer.zero_grad()
        for task, x in images.items():
            clean = logits(self.pool.heads[task].weight, forward(theta, x)[1]).argmax(-1)
            z = logits(self.pool.heads[task].weight, forward(theta, x + self.deltas[task])[1])
            (-cross_entropy(z, clean)).backward()
        self.optimizer.step()

    def perturbed(self, images):
        return {task: x + self.deltas[task].detach() for task, x in images.items()}


def test_dam():
    pool, first, second = pool64(), images64(seed=1), images64(seed=2)
    method = seeded(lambda: DAM(RULED(pool), image_size=4))
    seed = int(method.seed)
    both = {task: torch.cat([first[task], second[task]]) for task in TASKS}
    training = partial(DefenseAware, meta_steps=3, perturbation_lr=1e-2)
    adapt(method, Entropy(), both, Schedule(4, batch_size=4, batches_per_task=2), training)
    attack = Attack(pool)
    masks, table = restated_concrete(pool, first, second, seed, 4, 3, attack)
    close(method.merging.values, table)
    for own, restated in zip(method.perturbations, attack.deltas.values(), strict=True):
        close(own, restated)
        assert own.abs().max() > 0
    for own, restated in zip(method.logits_of_mask, masks, strict=True):
        close(own, restated)


def labels64(count: int = 4) -> dict[str, Tensor]:
    return {task: torch.arange(count) % 3 for task in TASKS}


def labeled64(count: int = 4):
    images, labels = images64(count), labels64(count)
    return {task: {"images": images[task], "target": (labels[task],)} for task in TASKS}


def test_supermerge():
    pool = pool64()
    method = SuperMerge(RULED(pool)).double()
    adapt(method, CrossEntropy(), labeled64(), Schedule(2, batch_size=4))
    w = torch.full((len(pool.keys), 3), 0.3, dtype=torch.float64).atanh().requires_grad_()
    optimizer = ADAM([w])
    for _ in range(2):
        theta = {
            key: pool.base[key] + sum(torch.tanh(w[row, k]) * tau(pool, t)[key] for k, t in enumerate(TASKS))
            for row, key in enumerate(pool.keys)
        }
        optimizer.zero_grad()
        sum(
            cross_entropy(logits(pool.heads[t].weight, forward(theta, x)[1]), labels64()[t])
            for t, x in images64().items()
        ).backward()
        optimizer.step()
    close(method.merging.values, w)


def cosine(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum() / (a.norm() * b.norm())


def gradient_at(pool, theta, task: str) -> dict[str, Tensor]:
    leaves = {key: theta[key].detach().clone().requires_grad_() for key in pool.keys}
    z = logits(pool.heads[task].weight, forward({**pool.base, **leaves}, images64()[task])[1])
    cross_entropy(z, labels64()[task]).backward()
    return {key: leaf.grad for key, leaf in leaves.items()}


def test_frank_wolfe_hard():
    pool = pool64()
    method = FrankWolfe(RULED(pool)).double()
    adapt(method, CrossEntropy(), labeled64(), Schedule(3, batch_size=4), HardSteps, optimizer=None)

    theta, start = arithmetic(pool), arithmetic(pool)
    for t in range(3):
        gradients = [gradient_at(pool, theta, task) for task in TASKS]
        for key in pool.keys:
            g = sum(gradient[key] for gradient in gradients) / 3
            vertices = [*(expert(pool, task)[key] for task in TASKS), start[key]]
            vertex = min(vertices, key=lambda v, g=g: float(cosine(g, v)))
            theta[key] = theta[key] + 0.1 * 2 / (t + 2) * 0.3 * (vertex - theta[key])
    merged = method.merge()
    for key in pool.keys:
        close(merged[key], theta[key])


def test_frank_wolfe_soft():
    pool = pool64()
    method = FrankWolfe(RULED(pool)).double()
    training = partial(SoftSteps, iterations=2)
    adapt(method, Entropy(), images64(), Schedule(4, batch_size=4), training, labeled=labeled64())

    theta = {key: pool.base[key] for key in pool.keys}
    for iteration in range(2):
        picked: list[str] = []
        for task in TASKS:
            g = gradient_at(pool, theta, task)
            left = [t for t in TASKS if t not in picked]
            picked.append(
                min(left, key=lambda t: sum(float(cosine(g[k], expert(pool, t)[k])) for k in pool.keys))
            )
        start = 0.3 if iteration == 0 else 1e-8
        table = torch.full((len(pool.keys), 3), start, dtype=torch.float64, requires_grad=True)
        optimizer = ADAM([table])

        def merged(table=table, theta=theta, picked=picked):
            return {
                key: theta[key]
                + sum(table[row, k] * tau(pool, t)[key] for k, t in enumerate(TASKS) if t in picked)
                for row, key in enumerate(pool.keys)
            }

        for _ in range(2):
            optimizer.zero_grad()
            entropy_of(pool, merged(), images64()).backward()
            optimizer.step()
        theta = {key: value.detach() for key, value in merged().items()}
    own = method.merge()
    for key in pool.keys:
        close(own[key], theta[key])


def test_alternating_tuning():
    pool = pool64()
    method = FullFinetuning(Pretrained()(pool)).double()
    sgd = partial(torch.optim.SGD, lr=1e-2, momentum=0.9)
    adapt(method, CrossEntropy(), labeled64(), Schedule(2, batch_size=2), AlternatingTuning, sgd)

    theta = [pool.base[key].clone() for key in pool.keys]
    for _ in range(2):
        differences = [torch.zeros_like(value) for value in theta]
        for task in TASKS:
            local = clones(theta)
            optimizer = sgd(local)
            for x, y in zip(images64()[task].split(2), labels64()[task].split(2), strict=True):
                optimizer.zero_grad()
                state = dict(zip(pool.keys, local, strict=True))
                cross_entropy(logits(pool.heads[task].weight, forward(state, x)[1]), y).backward()
                optimizer.step()
            differences = [
                d + (p.detach() - o) / 3 for d, p, o in zip(differences, local, theta, strict=True)
            ]
        theta = [o + d for o, d in zip(theta, differences, strict=True)]
    for own, restated in zip(method.theta, theta, strict=True):
        close(own, restated)


def test_prodistill():
    pool, images = pool64(), images64()
    method = ElementWise(RULED(pool)).double()
    training = partial(BlockByBlock, minibatch=12)  # all images in one update: their order does not matter
    adapt(method, Distillation(), images, Schedule(2 * 3, batch_size=4), training)

    merged = arithmetic(pool)
    student = {task: embed(merged, images[task]) for task in TASKS}
    teacher = {task: embed(expert(pool, task), images[task]) for task in TASKS}
    scales = {}
    for index in range(DEPTH):
        keys = [key for key in pool.keys if f"resblocks.{index}." in key]
        own = {key: torch.full_like(pool.vectors[key], 0.3).requires_grad_() for key in keys}
        teacher = {task: block(expert(pool, task), index, teacher[task]) for task in TASKS}

        def theta(own=own):
            return {
                k: pool.base[k] + (s * pool.vectors[k]).sum(0).view(pool.base[k].shape)
                for k, s in own.items()
            }

        optimizer = ADAM(own.values())
        for _ in range(3):
            optimizer.zero_grad()
            sum(
                mse_loss(block(theta(), index, student[task]), teacher[task], reduction="sum")
                for task in TASKS
            ).backward()
            optimizer.step()
        student = {task: block(theta(), index, student[task]).detach() for task in TASKS}
        scales.update(own)
    assert len(method.inner) == len(scales)
    for key, own in zip(method.inner, method.scales, strict=True):
        # A key's bias cannot change the attention: its gradient is rounding, which Adam blows up to steps.
        live = slice(16, None) if key.endswith("in_proj_bias") else slice(None)
        close(own[:, live], scales[key][:, live])


def test_full_fine_tuning_by_entropy():
    pool, images = pool64(), images64()
    method = FullFinetuning(RULED(pool)).double()
    adapt(method, Entropy(), images, Schedule(2, batch_size=4))
    theta = clones(arithmetic(pool)[key] for key in pool.keys)
    optimizer = ADAM(theta)
    for _ in range(2):
        optimizer.zero_grad()
        entropy_of(pool, dict(zip(pool.keys, theta, strict=True)), images).backward()
        optimizer.step()
    for own, restated in zip(method.theta, theta, strict=True):
        close(own, restated)


def test_twin():
    pool, images = pool64(), images64()
    method = seeded(lambda: Twin(RULED(pool), rank_share=0.5, hidden=6, dropout=0.0))
    adapt(method, TaskIdentity(), images, Schedule(2, batch_size=4))

    torch.manual_seed(3)
    router = Twin(RULED(pool), rank_share=0.5, hidden=6, dropout=0.0).double().router
    optimizer = ADAM(router.parameters())
    shared = arithmetic(pool)
    for _ in range(2):
        optimizer.zero_grad()
        for k, task in enumerate(TASKS):
            cross_entropy(router(forward(shared, images[task])[1]), torch.full((4,), k)).backward()
        optimizer.step()
    for own, restated in zip(method.router.parameters(), router.parameters(), strict=True):
        close(own, restated)

    def compressed(key: str, task: str) -> Tensor:
        e = expert(pool, task)[key] - shared[key]
        if e.ndim != 2:
            return e
        u, s, v = torch.linalg.svd(e, full_matrices=False)
        kept = max(1, int(0.5 * len(s)))
        return u[:, :kept] @ s[:kept].diag() @ v[:kept]

    sample = images["digits"][:2]
    weights = router(forward(shared, sample)[1]).softmax(-1)
    for n in range(2):
        theta = {
            k: shared[k] + sum(weights[n, j] * compressed(k, t) for j, t in enumerate(TASKS))
            for k in pool.keys
        }
        close(method.features(sample, "digits")[n], forward(theta, sample[n : n + 1])[1][0])
