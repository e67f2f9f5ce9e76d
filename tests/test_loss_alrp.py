"""aLRP loss against the authors' numbers, worked arithmetic, a slow twin, and its self-balancing."""

import json

import numpy as np
import pytest
import torch
import torch.distributed as dist
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from reference import GOLDEN, golden_files, loss_inputs, split, step_value

from rankdet.losses.alrp import ALRPLoss, alrp_loss
from rankdet.losses.ap import ap_loss
from rankdet.losses.overlap import paired_giou, paired_iou
from rankdet.losses.self_balance import SelfBalance

# golden README: loss absolute, gradient absolute, gradient relative to its largest element
TOLERANCES = {torch.float64: (1e-10, 1e-12, 1e-9), torch.float32: (1e-6, 1e-8, 5e-6)}


def parts_and_gradients(logits, labels, errors, dtype=torch.float64, *args, **kwargs):
    """Both values, the classification part's gradient to the logits and the localisation part's to the errors."""
    logits = torch.as_tensor(np.asarray(logits)).to(dtype).requires_grad_()
    errors = torch.as_tensor(np.asarray(errors)).to(dtype).requires_grad_()
    classification, localisation = alrp_loss(logits, torch.as_tensor(labels), errors, *args, **kwargs)
    (to_logits,) = torch.autograd.grad(classification, logits)
    (to_errors,) = torch.autograd.grad(localisation, errors)
    return (
        classification.item(),
        localisation.item(),
        to_logits.double().reshape(-1).numpy(),
        to_errors.double().numpy(),
    )


def assert_close(computed, expected, tolerance, case):
    _, atol, rtol = tolerance
    assert np.abs(computed - expected).max(initial=0) <= atol + rtol * np.abs(expected).max(initial=0), case


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_golden(dtype):
    """Every file and delta: both parts and their gradients, and the soft form."""
    tolerance = TOLERANCES[dtype]
    visited = ties = expected_cases = 0
    for file in golden_files("alrp"):
        z = dict(np.load(file))
        expected_cases += len(z["deltas"])
        flat = z["labels"].reshape(-1)
        for d, delta in enumerate(z["deltas"]):
            case = f"{file.name} delta {delta}"
            arguments = (z["logits"], z["labels"], z["reg_loss"], dtype, float(delta))
            cls, loc, to_logits, to_errors = parts_and_gradients(*arguments)
            soft_cls, soft_loc, soft_to_logits, soft_to_errors = parts_and_gradients(*arguments, soft_localisation=True)
            assert abs(cls - z["cls_loss"][d]) <= tolerance[0], case
            assert (soft_cls, soft_to_logits.tolist()) == (cls, to_logits.tolist()), case
            assert_close(to_logits[z["grad_idx"]], z["grad"][d], tolerance, case)
            assert (to_logits[flat == -1] == 0).all(), case
            assert abs(soft_loc - z["loc_loss_soft"][d]) <= tolerance[0], case
            assert_close(soft_to_errors, z["grad_reg_soft"][d], tolerance, case)
            if z["pos_ties"]:  # the released program's order of equal scores is nobody's business
                ties += 1
            else:
                assert abs(loc - z["loc_loss"][d]) <= tolerance[0], case
                assert_close(to_errors, z["grad_reg"][d], tolerance, case)
            visited += 1
    assert visited == expected_cases > ties


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_golden_boxes(dtype):
    """The chain to the boxes, errors 1 - GIoU; their eps is 1e-6, ours 1e-7: float64 is held to what float32 is."""
    tolerance = TOLERANCES[torch.float32]
    visited = 0
    files = [file for file in golden_files("alrp") if not np.load(file)["pos_ties"]]
    for file in files:
        z = dict(np.load(file))
        for d, delta in enumerate(z["deltas"]):
            case = f"{file.name} delta {delta}"
            pred = torch.from_numpy(z["pred_boxes"]).to(dtype).requires_grad_()
            errors = 1 - paired_giou(pred, torch.from_numpy(z["gt_boxes"]).to(dtype))
            np.testing.assert_allclose(errors.detach(), z["reg_loss"], atol=tolerance[0], err_msg=case)
            logits = torch.from_numpy(z["logits"]).to(dtype)
            alrp_loss(logits, torch.from_numpy(z["labels"]), errors, float(delta))[1].backward()
            assert_close(pred.grad.double().numpy(), z["grad_boxes"][d], tolerance, case)
            visited += 1
    assert visited >= len(files) >= 1


def test_arithmetic():
    """Positives at 4 and 0 with errors 1/2 and 1/5, negative at 2, delta 1: no difference is smaller than delta.

    Ranks 1 and 3, F 0 and 1, classification (0 + 1/3) / 2 = 1/6. The lower positive pushes (1 + 1/2) / 3 = 1/2, the
    upper nothing: gradient (0, -1/4, 1/4). Localisation ((1/2) / 1 + (1/2 + 1/5) / 3) / 2 = 11/30; the errors' shares
    are (1 + 1/3) / 2 and (1/3) / 2. Differences being what they are, the soft order is the hard one.
    """
    for soft in (False, True):
        cls, loc, to_logits, to_errors = parts_and_gradients(
            [4.0, 0.0, 2.0], [1, 1, 0], [0.5, 0.2], soft_localisation=soft
        )
        assert (cls, loc) == pytest.approx((1 / 6, 11 / 30), abs=1e-15)
        np.testing.assert_allclose(to_logits, [0, -1 / 4, 1 / 4], atol=1e-15)
        np.testing.assert_allclose(to_errors, [2 / 3, 1 / 6], atol=1e-15)


def test_arithmetic_of_ties():
    """Two positives and a negative, all 0, errors 0.4 and 1, delta 1: every f is 1/2, both ranks 1 + 1/2 + 1/2 = 2.

    Classification 1/4; pushes (1/2 + 1/2 * 1) / 2 and (1/2 + 1/2 * 0.4) / 2, halved: gradient (-0.25, -0.175, 0.425).
    Soft: (0.4 + 0.5) / 2 and (1 + 0.2) / 2, mean 0.525, each share (1/2 + 1/4) / 2. Hard, the earlier is the lower:
    1.4 / 2 and 1 / 2, mean 0.6, shares (1/2) / 2 and (1/2 + 1/2) / 2.
    """
    arguments = ([0.0, 0.0, 0.0], [1, 1, 0], [0.4, 1.0])
    cls, loc, to_logits, to_errors = parts_and_gradients(*arguments)
    assert (cls, loc) == pytest.approx((0.25, 0.6), abs=1e-15)
    np.testing.assert_allclose(to_logits, [-0.25, -0.175, 0.425], atol=1e-15)
    np.testing.assert_allclose(to_errors, [0.25, 0.5], atol=1e-15)
    _, soft_loc, _, soft_to_errors = parts_and_gradients(*arguments, soft_localisation=True)
    assert soft_loc == pytest.approx(0.525, abs=1e-15)
    np.testing.assert_allclose(soft_to_errors, [0.375, 0.375], atol=1e-15)


def test_hardly_a_false_positive_pushes_nothing():
    """Positive at 1 - x, negative at 0, delta 1: F = x/2. At F = 5e-6 the value counts it and the gradient does not."""
    for x, gradient in ((1e-5, 0.0), (4e-5, 2e-5 / (1 + 2e-5))):
        cls, _, to_logits, _ = parts_and_gradients([1 - x, 0.0], [1, 0], [0.7])
        assert cls == pytest.approx(x / 2 / (1 + x / 2), rel=1e-9)
        np.testing.assert_allclose(to_logits, [-gradient, gradient], rtol=1e-9)


def alrp_twin(scores, labels, errors, delta=1.0, soft_localisation=False):
    """Both parts and their gradients, pair by pair (Eq. 11, 14; the localisation's hard order as released)."""
    s, pos, neg = split(scores, labels)
    cls, loc, to_logits, to_errors = 0.0, 0.0, np.zeros_like(s), np.zeros(len(pos))
    for i, at in enumerate(pos):
        false = np.array([step_value(s[n] - s[at], "linear", delta) for n in neg])
        true = np.array([1.0 if k == at else step_value(s[k] - s[at], "linear", delta) for k in pos])
        rank = true.sum() + false.sum()
        cls += false.sum() / rank / len(pos)
        if false.sum() > 1e-5:
            push = (false.sum() + true @ errors - errors[i]) / rank / len(pos)
            to_logits[at] -= push
            to_logits[neg] += push * false / false.sum()
        counted = true if soft_localisation else np.array([(s[k], k) >= (s[at], at) for k in pos])
        loc += counted @ errors / rank / len(pos)
        to_errors += counted / rank / len(pos)
    return cls, loc, to_logits, to_errors


LEVELS = st.one_of(st.integers(-12, 12).map(lambda i: i / 4), st.floats(-3, 3, width=32), st.sampled_from([-1e4, 1e4]))
DELTAS = st.sampled_from([0.25, 0.3, 1.0, 4.0])


@st.composite
def problems(draw, max_size=24):
    """Scores with many ties and differences of exactly delta, labels, either side of which may be empty, and errors."""
    scores = draw(st.lists(LEVELS, max_size=max_size))
    labels = np.array(draw(st.lists(st.sampled_from([1, 0, 0, -1]), min_size=len(scores), max_size=len(scores))))
    errors = np.random.default_rng(draw(st.integers(0, 99))).uniform(0, 2, (labels == 1).sum())
    return np.array(scores, dtype=np.float64), labels.astype(np.int8), errors


@settings(max_examples=120, deadline=None)
@given(problem=problems(), delta=DELTAS, soft=st.booleans())
def test_equals_its_twin(problem, delta, soft):
    expected = alrp_twin(*problem, delta, soft)
    for dtype, atol in ((torch.float64, 1e-10), (torch.float32, 2e-6)):
        for computed, truth in zip(parts_and_gradients(*problem, dtype, delta, soft), expected, strict=True):
            np.testing.assert_allclose(computed, truth, atol=atol)


@pytest.mark.full
@settings(max_examples=600, deadline=None)
@given(problem=problems(max_size=60), delta=DELTAS, soft=st.booleans())
def test_equals_its_twin_on_more_problems(problem, delta, soft):
    for computed, truth in zip(
        parts_and_gradients(*problem, torch.float64, delta, soft), alrp_twin(*problem, delta, soft), strict=True
    ):
        np.testing.assert_allclose(computed, truth, atol=1e-10)


@settings(max_examples=60, deadline=None)
@given(problem=problems(), delta=DELTAS, soft=st.booleans(), shift=st.integers(-400, 400), seed=st.integers(0, 9))
def test_shift_and_permutation(problem, delta, soft, shift, seed):
    """Neither changes a value, and gradients follow their scores; of the hard order only where no positives tie."""
    scores, labels, errors = problem
    scores = np.round(scores * 2**20) / 2**20  # so that a shift rounds nothing
    positives = scores[labels == 1]
    assume(soft or len(set(positives)) == len(positives))
    expected = parts_and_gradients(scores, labels, errors, torch.float64, delta, soft)
    shifted = parts_and_gradients(scores + shift / 4, labels, errors, torch.float64, delta, soft)
    for computed, truth in zip(shifted, expected, strict=True):
        np.testing.assert_allclose(computed, truth, atol=1e-10)
    order = np.random.default_rng(seed).permutation(len(scores))
    number = np.full(len(scores), -1)  # of a positive, in order of appearance
    number[labels == 1] = np.arange(len(errors))
    order_of_positives = number[order][labels[order] == 1]
    cls, loc, to_logits, to_errors = parts_and_gradients(
        scores[order], labels[order], errors[order_of_positives], torch.float64, delta, soft
    )
    assert (cls, loc) == pytest.approx(expected[:2], abs=1e-12)
    np.testing.assert_allclose(to_logits, expected[2][order], atol=1e-12)
    np.testing.assert_allclose(to_errors, expected[3][order_of_positives], atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(problem=problems(), delta=DELTAS)
def test_theorem_2_and_the_split(problem, delta):
    """Summed gradient magnitudes are equal on both sides; the classification part is AP-loss without interpolation.

    Eq. 9-11 with errors in [0, 1]: the sum of both parts lies in [0, 1].
    """
    scores, labels, errors = problem
    cls, loc, to_logits, _ = parts_and_gradients(scores, labels, errors / 2, torch.float64, delta, True)
    magnitudes = np.abs(to_logits)
    assert magnitudes[labels == 1].sum() == pytest.approx(magnitudes[labels == 0].sum(), abs=1e-10)
    assert (to_logits[labels == 1] <= 0).all()
    assert (to_logits[labels == 0] >= -1e-15).all()
    plain = ap_loss(torch.from_numpy(scores), torch.from_numpy(labels), delta, interpolate=False)
    assert cls == pytest.approx(plain.item(), abs=1e-12)
    assert 0 <= cls + loc <= 1 + 1e-12


def test_box_weights():
    """A positive's weight is the sum of 1/rank over those at or below it, over P: it falls with the score (4.1)."""
    scores, labels = torch.arange(40.0).flip(0), torch.tensor([1, 0, 0, 1] * 10)
    _, _, _, to_errors = parts_and_gradients(scores, labels, torch.ones(20), torch.float64, 0.5)
    ranks = np.flatnonzero(labels.numpy() == 1) + 1  # scores descend by 1: a positive's rank is its place
    expected = [(1 / ranks[k:]).sum() / 20 for k in range(20)]
    np.testing.assert_allclose(to_errors, expected, rtol=1e-12)
    assert (np.diff(to_errors) < 0).all()


class TestToy:
    """Fig. 1's ten anchors with three sets of boxes."""

    @pytest.fixture(autouse=True)
    def read(self):
        self.toy = json.loads((GOLDEN / "alrp_toy.json").read_text())

    def parts(self, boxes, kind, delta):
        toy = self.toy
        labels = torch.zeros(10, dtype=torch.int8)
        labels[toy["positive_index"]] = 1
        errors = (1 - torch.tensor(toy["ious"][boxes])) / (1 - toy["tau"])
        return parts_and_gradients(torch.tensor(toy[kind], dtype=torch.float64), labels, errors.double(), delta=delta)

    def test_printed_digits(self):
        """With a hard step, delta tiny on logits: AP-loss 0.36; aLRP 0.53, 0.69 and 0.89."""
        printed = {}
        for boxes in ("R1", "R2", "R3"):
            cls, loc, _, _ = self.parts(boxes, "logits", 1e-3)
            expected = self.toy["equation_values"]["step"][boxes]
            assert (cls, loc) == pytest.approx((expected["cls"], expected["loc"]), abs=1e-7)
            assert f"{cls:.2f}" == f"{self.toy['paper']['ap_loss']:.2f}" == "0.36"
            printed[boxes] = float(f"{cls + loc:.2f}")
        assert printed == self.toy["paper"]["alrp"] == {"R1": 0.53, "R2": 0.69, "R3": 0.89}

    def test_released_program(self):
        """Three deltas, on scores and on logits; the IoUs of the JSON pass through float32 here."""
        visited = 0
        for setting, results in self.toy["official_code"].items():
            kind, _, delta = setting.partition("_delta")
            for boxes in ("R1", "R2", "R3"):
                cls, loc, to_logits, _ = self.parts(boxes, kind, float(delta))
                expected = results[boxes]
                assert (cls, loc) == pytest.approx((expected["cls"], expected["loc"]), abs=1e-7), setting
                np.testing.assert_allclose(to_logits, expected["grad"], atol=1e-7, err_msg=setting)
                visited += 1
        assert visited == 3 * len(self.toy["official_code"]) >= 3


def test_each_part_has_its_own_upstream_gradient():
    logits, labels = torch.randn(30, dtype=torch.float64, requires_grad=True), torch.tensor([1, 0, 0] * 10)
    errors = torch.rand(10, dtype=torch.float64, requires_grad=True)
    _, _, to_logits, to_errors = parts_and_gradients(logits.detach(), labels, errors.detach())
    classification, localisation = alrp_loss(logits, labels, errors)
    (3 * classification + 5 * localisation).backward()
    np.testing.assert_allclose(logits.grad, 3 * to_logits, rtol=1e-12)
    np.testing.assert_allclose(errors.grad, 5 * to_errors, rtol=1e-12)
    classification, localisation = alrp_loss(logits, labels, errors)
    assert torch.autograd.grad(classification, errors, allow_unused=True, retain_graph=True) == (None,)
    assert torch.autograd.grad(localisation, logits, allow_unused=True) == (None,)


@pytest.mark.parametrize("labels", [[], [0, 0], [-1, -1], [1, 1, 1], [-1, 1]])
def test_an_empty_side(labels):
    """Classification 0; P positives alone, 10 apart, errors 1: localisation (1/1 + 2/2 + ...) / P = 1."""
    count = labels.count(1)
    scores = np.arange(len(labels)) * 10.0
    cls, loc, to_logits, to_errors = parts_and_gradients(scores, np.array(labels, dtype=np.int8), np.ones(count))
    assert (cls, loc) == (0, pytest.approx(1) if count else 0)
    assert to_logits.tolist() == [0] * len(labels)
    assert to_errors.sum() == pytest.approx(min(1, count))


def test_half_types_and_shapes():
    """bfloat16 logits and errors of a [2, 3, 4] head are computed in float32; gradients go back in bfloat16."""
    logits, labels = torch.randn(2, 3, 4).bfloat16().requires_grad_(), torch.tensor([1, 0, 0, -1] * 6).view(2, 3, 4)
    errors = torch.rand(6).bfloat16().requires_grad_()
    classification, localisation = alrp_loss(logits, labels, errors)
    assert classification.dtype == localisation.dtype == torch.float32
    (classification + localisation).backward()
    assert (logits.grad.dtype, logits.grad.shape, errors.grad.dtype) == (torch.bfloat16, (2, 3, 4), torch.bfloat16)
    full = alrp_loss(logits.detach().float(), labels, errors.detach().float())
    assert (classification.item(), localisation.item()) == (full[0].item(), full[1].item())


def test_bad_input():
    with pytest.raises(ValueError, match=r"^localisation_errors must be \[2\], one for each positive, got \(3,\)"):
        alrp_loss(torch.zeros(3), torch.tensor([1, 0, 1]), torch.zeros(3))
    with pytest.raises(ValueError, match=r"^delta must be"):
        alrp_loss(torch.zeros(3), torch.tensor([1, 0, 1]), torch.zeros(2), delta=0.0)
    mistakes = {"delta": 0.0, "overlap": "diou", "localisation_weight": 0.0, "initial_weight": -1.0}
    for argument, value in (mistakes | {"ranking_scope": "all"}).items():
        with pytest.raises(ValueError, match=f"^{argument} must be"):
            ALRPLoss(**{argument: value})


class TestSelfBalance:
    @pytest.fixture(autouse=True)
    def read(self):
        self.golden = json.loads((GOLDEN / "alrp_selfbalance.json").read_text())

    def parts(self):
        return [
            torch.tensor(parts, dtype=torch.float64)
            for parts in zip(self.golden["cls"], self.golden["loc"], strict=True)
        ]

    def test_golden(self):
        balance = SelfBalance(self.golden["initial_weight"], self.golden["period"])
        weights = [balance(*parts).item() for parts in self.parts()]
        assert weights == pytest.approx(self.golden["weight"], abs=1e-10)
        assert len(weights) > self.golden["period"]

    def test_a_resumed_one_goes_on_in_the_middle_of_an_epoch(self):
        """The new one has another initial weight and is told the period, as a training does; bits are the same."""
        period = self.golden["period"]
        middle = period + period // 2
        whole, first, second = SelfBalance(50.0, period), SelfBalance(50.0, period), SelfBalance(1.0)
        expected = [whole(*parts).item() for parts in self.parts()]
        before = [first(*parts).item() for parts in self.parts()[:middle]]
        second.load_state_dict(first.state_dict())
        second.set_epoch_length(period)
        assert before + [second(*parts).item() for parts in self.parts()[middle:]] == expected
        assert len(set(expected)) > 2

    def test_arithmetic(self):
        """Epochs of two steps. cls 3, 1 and loc 1, 0: (4 + 1) / 1 = 5 from the second step on, then 2 of 1, 1 / 1, 1.

        An epoch without positives, all parts 0, leaves it as it is.
        """
        balance = SelfBalance(9.0, 2)
        steps = [(3.0, 1.0), (1.0, 0.0), (1.0, 1.0), (1.0, 1.0), (0.0, 0.0), (0.0, 0.0)]
        weights = [balance(torch.tensor(cls), torch.tensor(loc)).item() for cls, loc in steps]
        assert weights == [9, 5, 5, 2, 2, 2]

    def test_mistakes(self):
        with pytest.raises(RuntimeError, match="length of an epoch is not known"):
            SelfBalance()(torch.tensor(1.0), torch.tensor(1.0))
        with pytest.raises(ValueError, match=r"^initial_weight must be positive"):
            SelfBalance(0.0)
        with pytest.raises(ValueError, match=r"^period must be at least 1"):
            SelfBalance(1.0, 0)

    @pytest.mark.full
    def test_processes_share_their_means(self, tmp_path):
        """Two processes with cls 3 and 1, loc 1 and 0: both get (4 + 1) / 1 = 5, though one has no positives."""
        torch.multiprocessing.spawn(_balance_in_a_process, (str(tmp_path),), nprocs=2)
        assert [float((tmp_path / f"{rank}.txt").read_text()) for rank in range(2)] == [5.0, 5.0]


def _balance_in_a_process(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    weight = SelfBalance(9.0, 1)(torch.tensor([3.0, 1.0][rank]), torch.tensor([1.0, 0.0][rank]))
    with open(f"{folder}/{rank}.txt", "w") as file:  # noqa: PTH123 - one line
        file.write(str(weight.item()))
    dist.destroy_process_group()


class TestModule:
    """One positive at 5 far above a negative at -5: rank 1, so the localisation part is its error."""

    @pytest.mark.parametrize(
        ("overlap", "apart", "error"),
        [("giou", 2.0, 1 / 3), ("iou", 2.0, 2 / 3), ("giou", 20.0, 4 / 3), ("iou", 20.0, 2.0)],
    )
    def test_errors_reach_the_deltas(self, overlap, apart, error):
        """Boxes of side 10, 2 apart: IoU and GIoU 80/120. 20 apart: IoU 0 without a gradient, GIoU -100/300 with one.

        The error 1 - GIoU, or 2 (1 - IoU); total 2 x 4 x the error.
        """
        inputs = loss_inputs(torch.tensor([[[5.0], [-5.0]]]), [[[1], [0]]], apart)
        total, parts = ALRPLoss(overlap=overlap, localisation_weight=4, weight=2.0)(inputs)
        values = {name: part.item() for name, part in parts.items()}
        assert values == pytest.approx({"alrp_cls": 0, "alrp_loc": error, "alrp_weight": 4})
        assert total.item() == pytest.approx(8 * error)
        total.backward()
        moves = (overlap, apart) != ("iou", 20.0)
        assert (inputs.pred_deltas.grad > 0).all() if moves else (inputs.pred_deltas.grad == 0).all()

    def test_its_arguments_reach_the_loss(self):
        logits, labels = torch.randn(2, 6, 3, requires_grad=True), torch.randint(-1, 2, (2, 6, 3), dtype=torch.int8)
        inputs = loss_inputs(logits, labels)
        inputs = inputs._replace(pred_boxes=inputs.pred_boxes * torch.rand(len(inputs.positives), 1))
        for overlap, soft in (("giou", False), ("iou", True)):
            module = ALRPLoss(delta=0.5, soft_localisation=soft, overlap=overlap, localisation_weight=3.0)
            total, parts = module(inputs)
            boxes = inputs.pred_boxes, inputs.target_boxes
            errors = 1 - paired_giou(*boxes) if overlap == "giou" else 2 - 2 * paired_iou(*boxes)
            cls, loc = alrp_loss(logits, labels, errors, 0.5, soft)
            torch.testing.assert_close(total, cls + 3 * loc)
            assert not any(part.requires_grad for part in parts.values())
            assert {part.dim() for part in parts.values()} == {0}

    def test_it_balances_itself(self):
        """Epochs of one step: the weight is that step's own ratio, and so cls + loc x (cls + loc) / loc."""
        module = ALRPLoss()
        module.set_epoch_length(1)
        inputs = loss_inputs(torch.tensor([[[0.0], [0.0]]]), [[[1], [0]]])
        total, parts = module(inputs)
        # Both at 0: rank 3/2, classification 1/3; error 1/3 over the rank, 2/9. Weight (1/3 + 2/9) / (2/9) = 5/2.
        assert {name: part.item() for name, part in parts.items()} == pytest.approx(
            {"alrp_cls": 1 / 3, "alrp_loc": 2 / 9, "alrp_weight": 5 / 2}
        )
        assert total.item() == pytest.approx(1 / 3 + 5 / 9)
        assert {"balance.weight", "balance.sums", "balance.steps"} == module.state_dict().keys()
        ALRPLoss(localisation_weight=1.0).set_epoch_length(5)  # of no interest to a constant weight

    def test_no_positives_is_zero_with_a_gradient_path(self):
        module = ALRPLoss()
        module.set_epoch_length(1)
        logits, deltas = torch.randn(1, 4, 2, requires_grad=True), torch.randn(1, 4, 4, requires_grad=True)
        inputs = loss_inputs(logits, torch.zeros(1, 4, 2))
        none = deltas.reshape(-1, 4)[inputs.positives]
        total, parts = module(inputs._replace(pred_deltas=none, pred_boxes=none * 1))
        total.backward()
        assert {name: part.item() for name, part in parts.items()} == {"alrp_cls": 0, "alrp_loc": 0, "alrp_weight": 50}
        assert torch.equal(logits.grad, torch.zeros_like(logits))
        assert torch.equal(deltas.grad, torch.zeros_like(deltas))
