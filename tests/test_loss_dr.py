"""DR loss against the authors' numbers, worked arithmetic and the supplement's formulas, pooled and image by image."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from reference import golden_files, loss_inputs, value_and_gradient

from rankdet.losses.dr import DRLoss, dr_loss

# golden README: loss absolute, gradient absolute, gradient relative to its largest element
TOLERANCES = {torch.float64: (1e-10, 1e-12, 1e-9), torch.float32: (5e-6, 2e-6, 2e-5)}
DEFAULTS = {"pos_lambda": 1.0, "neg_lambda": 0.1 / math.log(3.5), "L": 6.0, "tau": 4.0, "margin": 0.5}


def one_hot(targets, num_classes):
    """int8 [A, C] labels of class ids 1..C, 0 for background and -1 for an ignored anchor."""
    labels = (np.asarray(targets)[:, None] == np.arange(1, num_classes + 1)).astype(np.int8)
    labels[np.asarray(targets) == -1] = -1
    return labels


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_golden(dtype):
    """Every file and row of parameters: loss, gradient, its sums over both sides and its norm, and exact zeros."""
    loss_atol, grad_atol, grad_rtol = TOLERANCES[dtype]
    visited = expected = without_positives = 0
    for file in golden_files("dr"):
        z = np.load(file)
        labels = one_hot(z["targets"], z["logits"].shape[1])
        flat = labels.reshape(-1)
        expected += z["loss"].size
        for i, loss in enumerate(z["loss"]):
            parameters = dict(zip(z["param_names"].tolist(), z["params"][i].tolist(), strict=True))
            case = f"{file.name} {parameters}"
            value, gradient = value_and_gradient(
                dr_loss, z["logits"], torch.from_numpy(labels), dtype=dtype, **parameters
            )
            assert abs(value - loss) <= loss_atol, case
            tolerance = grad_atol + grad_rtol * np.abs(z["grad"][i]).max()
            assert np.abs(gradient[z["grad_idx"]] - z["grad"][i]).max() <= tolerance, case
            assert (gradient[flat == -1] == 0).all(), case
            for name, total in (("pos", gradient[flat == 1].sum()), ("neg", gradient[flat == 0].sum())):
                assert abs(total - z[f"grad_sum_{name}"][i]) <= max(loss_atol, grad_rtol), case
            assert abs(np.linalg.norm(gradient) - z["grad_l2"][i]) <= max(loss_atol, grad_rtol), case
            visited += 1
            without_positives += not (flat == 1).any()
    assert visited == expected >= 2
    assert without_positives >= 4


def test_arithmetic():
    """Positive 1/2, negatives 3/4 and 1/4 (logits 0, log 3, -log 3); neg_lambda 1/(2 log 3), margin 3/8, L 2, tau 3.

    exp(p / neg_lambda) differs by exp(log 3) = 3 between the negatives: q = 3/4 and 1/4, P- = 9/16 + 1/16 = 5/8. P+ is
    1/2, so z = 1/2, the loss 3/2 log(1 + e), and its slope in z is 3 s, s = 1/(1 + 1/e). By the supplement the slopes
    in p are -3 s for the positive and 3 s q (1 + (p - P-) 2 log 3) for the negatives, where q (...) is
    3/4 (1 + log 3 / 4) and 1/4 (1 - 3/4 log 3). p (1 - p) takes them to the logits: 1/4, 3/16, 3/16.
    """
    log3 = math.log(3)
    value, gradient = value_and_gradient(
        dr_loss,
        [0.0, log3, -log3, 5.0],
        torch.tensor([1, 0, 0, -1]),
        pos_lambda=1.0,
        neg_lambda=1 / (2 * log3),
        L=2.0,
        tau=3.0,
        margin=3 / 8,
    )
    assert value == pytest.approx(1.5 * math.log(1 + math.e), abs=1e-14)
    slope = 3 / (1 + math.exp(-1))
    expected = [-1 / 4, 9 / 64 * (1 + log3 / 4), 3 / 64 * (1 - 3 / 4 * log3), 0]
    np.testing.assert_allclose(gradient, slope * np.array(expected), atol=1e-15)


def twin(probabilities, labels, images, pos_lambda, neg_lambda, L, tau, margin):
    """The supplement's loss of the probabilities, image by image; holds for complex ones too."""
    total = 0
    for image in sorted(set(images)):
        p_neg = [p for p, y, g in zip(probabilities, labels, images, strict=True) if g == image and y == 0]
        p_pos = [p for p, y, g in zip(probabilities, labels, images, strict=True) if g == image and y == 1]
        if not p_neg and not p_pos:
            continue
        hardest_neg, hardest_pos = 0.0, 1.0
        if p_neg:
            weights = [np.exp(p / neg_lambda) for p in p_neg]
            hardest_neg = sum(w * p for w, p in zip(weights, p_neg, strict=True)) / sum(weights)
        if p_pos:
            weights = [np.exp(-p / pos_lambda) for p in p_pos]
            hardest_pos = sum(w * p for w, p in zip(weights, p_pos, strict=True)) / sum(weights)
        total += tau / L * np.log(1 + np.exp(L * (hardest_neg - hardest_pos + margin)))
    return total


def twin_gradient(probabilities, *args, **kwargs):
    """d twin / d p by a complex step: exact to rounding, since nothing is subtracted."""
    gradient = np.zeros(len(probabilities))
    for i in range(len(probabilities)):
        moved = np.asarray(probabilities, dtype=complex)
        moved[i] += 1e-30j
        gradient[i] = np.imag(twin(moved, *args, **kwargs)) / 1e-30
    return gradient


LOGITS = st.one_of(st.integers(-8, 8).map(lambda i: i / 2), st.floats(-6, 6, width=32), st.sampled_from([-1e4, 1e4]))
PARAMETERS = st.fixed_dictionaries(
    {
        "pos_lambda": st.sampled_from([1.0, 0.5, 0.05]),
        "neg_lambda": st.sampled_from([0.1 / math.log(3.5), 1.0, 0.02]),
        "L": st.sampled_from([6.0, 1.0, 40.0]),
        "tau": st.sampled_from([4.0, 1.0]),
        "margin": st.sampled_from([0.5, 0.0, 0.3]),
    }
)


@st.composite
def problems(draw, max_size=14):
    """Logits with ties and saturated ones, labels and images, some without positives, negatives or anything at all."""
    logits = draw(st.lists(LOGITS, max_size=max_size))
    labels = draw(st.lists(st.sampled_from([1, 0, 0, -1]), min_size=len(logits), max_size=len(logits)))
    images = draw(st.lists(st.integers(0, 3), min_size=len(logits), max_size=len(logits)))
    return np.array(logits, dtype=np.float64), torch.tensor(labels, dtype=torch.int8), torch.tensor(images).long()


@settings(max_examples=100, deadline=None)
@given(problem=problems(), parameters=PARAMETERS, pooled=st.booleans())
def test_equals_its_twin(problem, parameters, pooled):
    logits, labels, images = problem
    with np.errstate(over="ignore"):
        p = 1 / (1 + np.exp(-logits))
    arguments = (labels.tolist(), [0] * len(p) if pooled else images.tolist())
    loss = twin(p, *arguments, **parameters)
    gradient = twin_gradient(p, *arguments, **parameters) * p * (1 - p)
    for dtype, atol in ((torch.float64, 1e-11), (torch.float32, 3e-5)):
        value, computed = value_and_gradient(
            dr_loss, logits, labels, **parameters, images=None if pooled else images, dtype=dtype
        )
        assert abs(value - loss) <= atol
        np.testing.assert_allclose(computed, gradient, atol=atol * (1 + np.abs(gradient).max(initial=0)))


class TestSupplement:
    """DR-Q1 to DR-Q4: the supplement's Section 1 in double precision, two images, for several parameters."""

    @pytest.fixture(params=[(1.0, 0.0798, 6.0, 1.0, 0.5), (0.5, 0.05, 4.0, 1.0, 0.3), (2.0, 3.0, 20.0, 1.0, 0.0)])
    def problem(self, request):
        """Logits [2, 30], labels, parameters; p, q, z and sigmoid(L z) by the formulas."""
        random = np.random.default_rng(3)
        logits, labels = random.normal(size=(2, 30)), np.zeros((2, 30), dtype=np.int8)
        labels[:, 0], labels[0, 1:7], labels[:, 25:] = 1, 1, -1
        pos_lambda, neg_lambda, L, _, margin = request.param
        p = 1 / (1 + np.exp(-logits))
        neg = np.exp(p / neg_lambda) * (labels == 0)
        pos = np.exp(-p / pos_lambda) * (labels == 1)
        neg, pos = neg / neg.sum(1, keepdims=True), pos / pos.sum(1, keepdims=True)
        mean_neg, mean_pos = (neg * p).sum(1, keepdims=True), (pos * p).sum(1, keepdims=True)
        z = mean_neg - mean_pos + margin
        slope = 1 / (1 + np.exp(-L * z))
        formulas = {
            "loss": (np.log1p(np.exp(L * z)) / L).sum(),
            "neg": neg * slope * (1 + p / neg_lambda - mean_neg / neg_lambda),
            "pos": pos * slope * (-1 + p / pos_lambda - mean_pos / pos_lambda),
            "slope": slope,
        }
        return logits, labels, p, request.param, formulas

    @pytest.fixture
    def computed(self, problem):
        """Value and gradient with respect to p, the loss's own, image by image."""
        logits, labels, p, parameters, _ = problem
        value, gradient = value_and_gradient(
            dr_loss, logits, torch.from_numpy(labels), *parameters, images=torch.arange(2)
        )
        return value, gradient.reshape(logits.shape) / (p * (1 - p))

    def test_q1_value(self, problem, computed):
        assert abs(computed[0] - problem[-1]["loss"]) <= 1e-13

    def test_q2_q3_gradients(self, problem, computed):
        _, labels, p, parameters, formulas = problem
        np.testing.assert_allclose(computed[1], formulas["neg"] + formulas["pos"], atol=1e-12)
        images = np.repeat([0, 1], p.shape[1])
        differences = twin_gradient(p.reshape(-1), labels.reshape(-1), images, *parameters)
        np.testing.assert_allclose(computed[1].reshape(-1), differences, atol=1e-12)

    def test_q4_sums(self, problem, computed):
        labels, slope = problem[1], problem[-1]["slope"]
        for side, sign in ((0, 1), (1, -1)):
            sums = (computed[1] * (labels == side)).sum(1, keepdims=True)
            np.testing.assert_allclose(sums, sign * slope, atol=1e-12)

    def test_a_low_negative_is_pulled_up(self, problem, computed):
        """Where p is below the weighted mean by more than neg_lambda, and only there, the formula's sign turns."""
        labels, p, neg_lambda = problem[1], problem[2], problem[3][1]
        q = np.exp(p / neg_lambda) * (labels == 0)
        mean = (q * p).sum(1, keepdims=True) / q.sum(1, keepdims=True)
        low = (p < mean - neg_lambda) & (labels == 0)
        assert (computed[1][low] < 0).all()
        assert (computed[1][~low & (labels == 0)] > 0).all()
        assert low.any() == (neg_lambda < 0.5)


def test_derivative():
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(2, 3, 4, generator=generator, dtype=torch.float64).requires_grad_()
    labels = torch.randint(-1, 2, (2, 3, 4), generator=generator, dtype=torch.int8)
    for images in (None, torch.tensor([1, 0]), torch.tensor([[0, 1, 1], [2, 2, 0]])):
        assert torch.autograd.gradcheck(lambda x, images=images: dr_loss(x, labels, images=images), logits)


def random_problem(seed, shape=(4, 30, 3)):
    random = np.random.default_rng(seed)
    labels = random.choice([1, 0, 0, 0, -1], shape)
    labels[0], labels[1] = labels[0].clip(max=0), labels[1].clip(min=1)  # no positives; no negatives
    return random.normal(size=shape), torch.from_numpy(labels).to(torch.int8)


def test_images_add_up_however_they_are_given():
    """[B], [B, A], one per element, flat and shuffled: the sum of the images' own losses, not the pooled loss."""
    logits, labels = random_problem(5)
    alone = [value_and_gradient(dr_loss, logits[b], labels[b]) for b in range(4)]
    loss, gradient = sum(value for value, _ in alone), np.concatenate([gradient for _, gradient in alone])
    shuffle = np.random.default_rng(0).permutation(logits.size)
    every = torch.arange(4)[:, None, None].expand(4, 30, 3)
    forms = [torch.tensor([2, 0, 3, 1]), every[..., 0], every, torch.tensor([9, 0, 2, 5])]
    for images in forms:
        value, computed = value_and_gradient(dr_loss, logits, labels, images=images)
        assert value == pytest.approx(loss, abs=1e-12)
        np.testing.assert_allclose(computed, gradient, atol=1e-13)
    flat = (logits.reshape(-1)[shuffle], labels.reshape(-1)[shuffle])
    value, computed = value_and_gradient(dr_loss, *flat, images=every.reshape(-1)[shuffle], num_images=7)
    assert value == pytest.approx(loss, abs=1e-12)
    np.testing.assert_allclose(computed, gradient[shuffle], atol=1e-13)
    assert dr_loss(torch.tensor(logits), labels).item() != pytest.approx(loss, abs=0.1)


def test_one_image_is_the_pooled_loss():
    logits, labels = random_problem(6)
    value, gradient = value_and_gradient(dr_loss, logits, labels)
    for images in (torch.zeros(4).long(), torch.zeros(4, 30).long()):
        again, computed = value_and_gradient(dr_loss, logits, labels, images=images, num_images=2)
        assert again == pytest.approx(value, abs=1e-13)
        np.testing.assert_allclose(computed, gradient, atol=1e-14)


@pytest.mark.parametrize("images", [None, torch.zeros(3).long()], ids=["pooled", "image"])
def test_one_side_alone(images):
    """Logits 0, so both means are 1/2. No positives: z = 1/2 - 1 + 1/2; no negatives: z = 0 - 1/2 + 1/2: both 0.

    The loss is then 4/6 log 2, and its slope in z is 2, in p spread over three equal elements, times p (1 - p) = 1/4.
    """
    for label, sign in ((0, 1), (1, -1)):
        value, gradient = value_and_gradient(dr_loss, np.zeros(3), torch.full((3,), label), images=images)
        assert value == pytest.approx(4 / 6 * math.log(2))
        np.testing.assert_allclose(gradient, sign * 2 / 3 / 4 * np.ones(3))


@pytest.mark.parametrize("shape", [(3,), (0,), (0, 5, 2), (2, 0, 3)])
@pytest.mark.parametrize("pooled", [True, False])
def test_nothing_takes_part_is_zero_with_a_gradient_path(shape, pooled):
    images = None if pooled else torch.arange(shape[0])
    value, gradient = value_and_gradient(dr_loss, np.ones(shape), torch.full(shape, -1), images=images)
    assert value == 0
    assert (gradient == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extremes_stay_finite(dtype):
    """Probabilities of exactly 1 and 0, temperatures that overflow exp(p / lambda), a steep logistic.

    Wrong by 1e4: P- = 1, P+ = 0, z = 3/2, loss 4 (3/2) to within exp(-L z). All equal: z = 1/2, loss 4 (1/2). The three
    negatives alone: z = p - 1 + 1/2 = -0.45, loss 4 exp(-450) / 1000.
    """
    parameters = {"pos_lambda": 1e-4, "neg_lambda": 1e-4, "L": 1000.0}
    logits, labels = [-1e4, 1e4, -1e4, 1e4], torch.tensor([1, 1, 0, 0])
    value, gradient = value_and_gradient(dr_loss, logits, labels, **parameters, dtype=dtype)
    assert value == pytest.approx(6, abs=1e-6)
    assert (gradient == 0).all()  # the sigmoid is flat there
    for labels, loss in (([1, 0, 0], 2), ([0, 0, 0], 0)):
        value, gradient = value_and_gradient(dr_loss, [-3.0] * 3, torch.tensor(labels), **parameters, dtype=dtype)
        assert value == pytest.approx(loss, abs=1e-5)
        assert np.isfinite(gradient).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_are_computed_in_float32(dtype):
    logits, labels = random_problem(7)
    half = torch.tensor(logits).to(dtype)
    loss = dr_loss(half, labels)
    assert loss.dtype == torch.float32
    assert loss.item() == dr_loss(half.float(), labels).item()


def test_millions_of_scores_lose_nothing_in_float32():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3_000_000, generator=generator) - 4
    labels = (torch.rand(len(logits), generator=generator) < 1e-4).to(torch.int8)
    value, gradient = value_and_gradient(dr_loss, logits, labels, dtype=torch.float32)
    loss, expected = value_and_gradient(dr_loss, logits, labels)
    assert value == pytest.approx(loss, abs=1e-6)
    np.testing.assert_allclose(gradient, expected, atol=1e-5 * np.abs(expected).max())


def test_shuffling_moves_the_gradient_along_and_positives_may_be_given():
    logits, labels = random_problem(8, (60,))
    value, gradient = value_and_gradient(dr_loss, logits, labels)
    shuffle = np.random.default_rng(1).permutation(60)
    again, shuffled = value_and_gradient(
        dr_loss, logits[shuffle], labels[shuffle], positives=(labels[shuffle] == 1).nonzero().squeeze(1)
    )
    assert again == pytest.approx(value, abs=1e-13)
    np.testing.assert_allclose(shuffled, gradient[shuffle], atol=1e-14)


def test_compiles_into_one_graph():
    logits, labels = random_problem(9)
    positives = (labels.reshape(-1) == 1).nonzero().squeeze(1)
    compiled = torch.compile(dr_loss, backend="aot_eager", fullgraph=True)
    for images in (None, torch.arange(4)):
        arguments = {"images": images, "num_images": images if images is None else 4, "positives": positives}
        value, gradient = value_and_gradient(dr_loss, logits, labels, **arguments)
        again, computed = value_and_gradient(compiled, logits, labels, **arguments)
        assert again == pytest.approx(value, abs=1e-13)
        np.testing.assert_allclose(computed, gradient, atol=1e-14)


LOGITS_3, LABELS_3 = torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.int8)


@pytest.mark.parametrize(
    ("logits", "labels", "arguments", "message"),
    [
        (LOGITS_3, LABELS_3, {"pos_lambda": 0.0}, "pos_lambda must be positive"),
        (LOGITS_3, LABELS_3, {"neg_lambda": math.nan}, "neg_lambda must be positive"),
        (LOGITS_3, LABELS_3, {"L": -1.0}, "L must be positive"),
        (LOGITS_3, LABELS_3, {"tau": 0.0}, "tau must be positive"),
        (LOGITS_3, LABELS_3[0], {}, "labels must have the shape of logits"),
        (LOGITS_3, LABELS_3 + 2, {}, "labels must be 1, 0 or -1"),
        (LOGITS_3.int(), LABELS_3, {}, "logits must be floating point"),
        (LOGITS_3 + math.inf, LABELS_3, {}, "logits must be finite"),
        (LOGITS_3 * math.nan, LABELS_3 - 1, {}, "logits must be finite"),
        (LOGITS_3, LABELS_3, {"images": torch.arange(3)}, "images must be int64 with the leading axes"),
        (LOGITS_3, LABELS_3, {"images": torch.zeros(2)}, "images must be int64 with the leading axes"),
        (LOGITS_3, LABELS_3, {"images": torch.arange(2) - 1}, "images must lie between 0 and 0, got -1 to 0"),
        (LOGITS_3, LABELS_3, {"images": torch.arange(2), "num_images": 1}, "images must lie between 0 and 0"),
    ],
)
def test_bad_input(logits, labels, arguments, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        dr_loss(logits, labels, **arguments)


def test_module_passes_its_arguments_on():
    logits, labels = random_problem(10)
    logits = torch.tensor(logits, requires_grad=True)
    numbers = {"pos_lambda": 0.5, "neg_lambda": 0.2, "L": 3.0, "tau": 2.0, "margin": 0.1}
    for per_image, images in ((False, None), (True, torch.arange(4))):
        total, parts = DRLoss(**numbers, per_image=per_image, weight=3.0)(loss_inputs(logits, labels))
        torch.testing.assert_close(parts, {"dr": dr_loss(logits, labels, **numbers, images=images).detach()})
        torch.testing.assert_close(total.detach(), 3 * parts["dr"])
        assert total.requires_grad
    with pytest.raises(ValueError, match=r"^neg_lambda must be positive"):
        DRLoss(neg_lambda=0.0)


def test_its_config_holds_the_released_numbers(repo):
    config = OmegaConf.to_container(OmegaConf.load(repo / "configs" / "loss" / "dr.yaml"))
    assert {name: config[name] for name in DEFAULTS} == DEFAULTS
