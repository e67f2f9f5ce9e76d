"""GHM-C against the released program's numbers, GHM-R against a slow twin, and running counts that survive."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import golden_files, loss_inputs, value_and_gradient

from rankdet.losses.ghm import GHMCLoss, GHMRLoss, ghm_c_loss, ghm_r_loss

# golden README: loss (absolute, and relative in float32), gradient absolute, gradient relative to its largest element
TOLERANCES = {torch.float64: (1e-10, 0, 1e-8, 0), torch.float32: (0, 1e-5, 1e-8, 5e-6)}


def one_hot(classes, weights, num_classes):
    """int8 [A, C] labels of 0-based class ids, num_classes for background; weight 0 is ignored."""
    labels = (classes[:, None] == np.arange(num_classes)).astype(np.int8)
    labels[weights == 0] = -1
    return torch.from_numpy(labels)


def in_sequence(loss, calls, **arguments):
    """(value, gradient, counts) of one call after the other, each given the counts of the one before."""
    counts = None
    for logits, *others, dtype in calls:
        logits = torch.as_tensor(np.asarray(logits)).to(dtype).requires_grad_()
        value, counts = loss(logits, *others, counts=counts, **arguments)
        value.backward()
        yield value.item(), logits.grad.double().numpy(), counts.numpy()


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_golden(dtype):
    """Every file, momentum and call: loss, gradient, exact zeros, and the running counts (kept by it with momentum)."""
    loss_atol, loss_rtol, grad_atol, grad_rtol = TOLERANCES[dtype]
    visited = expected = 0
    for file in golden_files("ghmc"):
        z = np.load(file)
        assert set(np.unique(z["label_weight"])) <= {0, 1}
        num_calls, _, num_classes = z["pred"].shape
        expected += z["loss"].size
        labels = [one_hot(z["labels"][t], z["label_weight"][t], num_classes) for t in range(num_calls)]
        for i, momentum in enumerate(z["momentum"].tolist()):
            calls = [(z["pred"][t], labels[t], dtype) for t in range(num_calls)]
            results = in_sequence(ghm_c_loss, calls, bins=int(z["bins"]), momentum=momentum)
            for t, (value, gradient, counts) in enumerate(results):
                case = f"{file.name} momentum {momentum} call {t}"
                assert abs(value - z["loss"][i, t]) <= loss_atol + loss_rtol * z["loss"][i, t], case
                tolerance = grad_atol + grad_rtol * np.abs(z["grad"][i, t]).max()
                assert np.abs(gradient - z["grad"][i, t]).max() <= tolerance, case
                assert (gradient[labels[t].numpy() == -1] == 0).all(), case
                if momentum > 0:
                    np.testing.assert_allclose(counts, z["acc_sum"][i, t], atol=1e-10, err_msg=case)
                visited += 1
    assert visited == expected >= 2


def test_arithmetic():
    """Logits 0, 0, log 3 and -log 3, labels 1, 0, 0, 0: gradient lengths 1/2, 1/2, 3/4 and 1/4, cross entropies log 2,
    log 2, log 4 and log 4/3. Five bins, of which 3 are filled, with 0, 1, 2, 1, 0 elements.

    Weights 4 / (2 x 3), twice, and 4 / (1 x 3), twice; over 4 elements: (log 2 + log 4 + log 4/3) / 3 = log(32/3) / 3.
    Gradients: the signed length times 1/6 or 1/3: -1/12, 1/12, 1/4, 1/12.
    Second call with momentum 1/2 and one logit 0: the bin's count 2 becomes 3/2, the others stay, loss log 2 / (3/2).
    From nothing, momentum 1/2 makes the first call's counts half as large and its loss twice as large.
    """
    log3 = math.log(3)
    first = ([0.0, 0.0, log3, -log3, 9.0], torch.tensor([1, 0, 0, 0, -1]), torch.float64)
    [(value, gradient, counts)] = in_sequence(ghm_c_loss, [first], bins=5, momentum=0.0)
    assert value == pytest.approx(math.log(32 / 3) / 3, rel=1e-7)
    np.testing.assert_allclose(gradient, [-1 / 12, 1 / 12, 1 / 4, 1 / 12, 0], rtol=1e-7)
    assert counts.tolist() == [0, 1, 2, 1, 0]
    value, counts = ghm_c_loss(
        torch.zeros(1).double(), torch.zeros(1).int(), bins=5, momentum=0.5, counts=torch.from_numpy(counts)
    )
    assert value.item() == pytest.approx(math.log(2) / 1.5, rel=1e-6)
    assert counts.tolist() == [0, 1, 1.5, 1, 0]
    [(value, _, counts)] = in_sequence(ghm_c_loss, [first], bins=5, momentum=0.5)
    assert value == pytest.approx(2 * math.log(32 / 3) / 3, rel=1e-7)
    assert counts.tolist() == [0, 0.5, 1, 0.5, 0]


def test_arithmetic_of_regression():
    """mu 3, differences 4, -4, 0 and 9/4: roots 5, 5, 3 and 15/4, losses 2, 2, 0 and 3/4, lengths 4/5, 4/5, 0 and 3/5.

    Five bins, closed on the left: bin 4 holds two, bins 0 and 3 one each. Weights over 4 elements 1 / (2 x 3), twice,
    and 1/3: (2 + 0 + 3/4) / 3 = 11/12; gradients 4/5 / 6, -4/5 / 6, 0 and 3/5 / 3.
    """
    pred, target = [[5.0, 0.0], [7.0, 2.25]], torch.tensor([[1.0, 4.0], [7.0, 0.0]], dtype=torch.float64)
    [(value, gradient, counts)] = in_sequence(ghm_r_loss, [(pred, target, torch.float64)], mu=3.0, bins=5, momentum=0.0)
    assert value == pytest.approx(11 / 12, rel=1e-7)
    np.testing.assert_allclose(gradient, [[2 / 15, -2 / 15], [0, 1 / 5]], rtol=1e-7)
    assert counts.tolist() == [1, 0, 0, 1, 2]


def harmonised_twin(elements, bins, momentum, counts):
    """Value, gradient and new counts from (loss, derivative, length) element by element; None takes no part."""
    edges = [b / bins for b in range(bins)]
    which = [None if e is None else max(b for b in range(bins) if e[2] >= edges[b]) for e in elements]
    num_elements, num_filled = sum(b is not None for b in which), len(set(which) - {None})
    counts = list(counts)
    for b in set(which) - {None}:
        counts[b] = momentum * counts[b] + (1 - momentum) * which.count(b)
    value, gradient = 0.0, []
    for element, b in zip(elements, which, strict=True):
        weight = 0 if b is None else num_elements / counts[b] / num_filled / (num_elements + 1.1920929e-07)
        value += weight * element[0] if weight else 0
        gradient.append(weight * element[1] if weight else 0)
    return value, np.array(gradient), counts


def classification_elements(logits, labels):
    for x, y in zip(logits, labels, strict=True):
        if y == -1:
            yield None
        else:
            wrong = -x if y == 1 else x
            length = 1 / (1 + math.exp(-wrong)) if wrong > -700 else 0.0
            entropy = max(wrong, 0) + math.log1p(math.exp(-abs(wrong)))
            yield entropy, -length if y == 1 else length, length


def regression_elements(differences, mu):
    for d in differences:
        root = math.sqrt(d * d + mu * mu)
        yield root - mu, d / root, abs(d / root)


# lengths of exactly 0, 1/2 and 1, and otherwise none that rounding could put on the other side of an edge
LOGITS = st.one_of(st.sampled_from([0.0, 1e4, -1e4]), st.integers(-40, 40).map(lambda i: i * 0.1234567))
OPTIONS = st.fixed_dictionaries({"bins": st.sampled_from([1, 2, 10, 30]), "momentum": st.sampled_from([0.0, 0.75])})


@settings(max_examples=150, deadline=None)
@given(
    calls=st.lists(st.lists(st.tuples(LOGITS, st.sampled_from([1, 0, 0, -1])), max_size=15), max_size=3),
    options=OPTIONS,
)
def test_classification_equals_its_twin(calls, options):
    counts = [0.0] * options["bins"]
    problems = [([x for x, _ in call], torch.tensor([y for _, y in call], dtype=torch.int8)) for call in calls]
    results = in_sequence(ghm_c_loss, [(*problem, torch.float64) for problem in problems], **options)
    for (logits, labels), (value, gradient, computed) in zip(problems, results, strict=True):
        elements = list(classification_elements(logits, labels.tolist()))
        loss, expected, counts = harmonised_twin(elements, counts=counts, **options)
        assert value == pytest.approx(loss, rel=1e-10)
        np.testing.assert_allclose(gradient, expected, rtol=1e-10, atol=1e-300)
        np.testing.assert_allclose(computed, counts, rtol=1e-12)


@settings(max_examples=100, deadline=None)
@given(
    calls=st.lists(
        st.lists(st.one_of(st.sampled_from([0.0, 1e4]), st.floats(-2, 2, width=16)), max_size=16), max_size=3
    ),
    mu=st.sampled_from([0.0213, 0.37]),
    options=OPTIONS,
)
def test_regression_equals_its_twin(calls, mu, options):
    counts = [0.0] * options["bins"]
    problems = [(call, torch.zeros(len(call), dtype=torch.float64), torch.float64) for call in calls]
    results = in_sequence(ghm_r_loss, problems, mu=mu, **options)
    for (differences, *_), (value, gradient, computed) in zip(problems, results, strict=True):
        elements = list(regression_elements(differences, mu))
        loss, expected, counts = harmonised_twin(elements, counts=counts, **options)
        assert value == pytest.approx(loss, rel=1e-10, abs=1e-12)
        np.testing.assert_allclose(gradient, expected, rtol=1e-10, atol=1e-300)
        np.testing.assert_allclose(computed, counts, rtol=1e-12)


def random_problem(seed, shape=(2, 30, 3)):
    random = np.random.default_rng(seed)
    return random.normal(size=shape), torch.from_numpy(random.choice([1, 0, 0, -1], shape)).to(torch.int8)


def c_value(logits, labels, *args, **kwargs):
    return ghm_c_loss(logits, labels, *args, **kwargs)[0]


def r_value(pred, target, *args, **kwargs):
    return ghm_r_loss(pred, target, *args, **kwargs)[0]


def test_every_filled_bin_weighs_the_same():
    """Without momentum the loss is the mean over the filled bins of their elements' mean cross entropy."""
    logits, labels = random_problem(0, (500,))
    elements = [e for e in classification_elements(logits, labels.tolist()) if e]
    means = [np.mean([e[0] for e in elements if int(e[2] * 10) == b]) for b in {int(e[2] * 10) for e in elements}]
    value, _ = value_and_gradient(c_value, logits, labels, 10, 0.0)
    assert value == pytest.approx(np.mean(means), rel=1e-8)


def test_small_differences_do_not_cancel():
    """d = 1e-6, mu = 0.02, float32: d^2 / (2 mu) = 2.5e-11, far below the last digit of mu."""
    value, gradient = value_and_gradient(r_value, [1e-6], torch.zeros(1), momentum=0.0, dtype=torch.float32)
    assert value == pytest.approx(2.5e-11, rel=1e-5)
    assert gradient == pytest.approx(5e-5, rel=1e-5)


@pytest.mark.parametrize("shape", [(3,), (0,), (2, 0, 3)])
def test_nothing_takes_part_is_zero_with_a_gradient_path(shape):
    """And the counts stay what they were."""
    counts = torch.arange(30.0).double()
    logits = torch.full(shape, 1e4, requires_grad=True)
    loss, after = ghm_c_loss(logits, torch.full(shape, -1), counts=counts)
    loss.backward()
    assert loss.item() == 0
    assert (logits.grad == 0).all()
    assert after.tolist() == counts.tolist()


def test_no_positives_is_zero_with_a_gradient_path_to_the_deltas():
    deltas = torch.zeros(0, 4, requires_grad=True)
    loss, counts = ghm_r_loss(deltas, torch.zeros(0, 4))
    loss.backward()
    assert loss.item() == 0
    assert deltas.grad.shape == (0, 4)
    assert counts.tolist() == [0] * 10


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_are_computed_in_float32(dtype):
    logits, labels = random_problem(1)
    half = torch.tensor(logits).to(dtype)
    for loss, other in ((c_value, labels), (r_value, torch.zeros(half.shape, dtype=dtype))):
        assert loss(half, other).dtype == torch.float32
        assert loss(half, other).item() == loss(half.float(), other.float() if loss is r_value else other).item()


def test_shuffling_moves_the_gradient_along():
    logits, labels = random_problem(2, (60,))
    value, gradient = value_and_gradient(c_value, logits, labels)
    shuffle = np.random.default_rng(1).permutation(60)
    again, shuffled = value_and_gradient(c_value, logits[shuffle], labels[shuffle])
    assert again == pytest.approx(value, rel=1e-12)
    np.testing.assert_allclose(shuffled, gradient[shuffle], rtol=1e-12)


def test_compiles_into_one_graph():
    logits, labels = random_problem(3)
    for loss, other in ((c_value, labels), (r_value, torch.zeros(logits.shape).double())):
        compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
        value, gradient = value_and_gradient(loss, logits, other)
        again, computed = value_and_gradient(compiled, logits, other)
        assert again == pytest.approx(value, rel=1e-12)
        np.testing.assert_allclose(computed, gradient, rtol=1e-12)


LOGITS_3, LABELS_3 = torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.int8)


@pytest.mark.parametrize(
    ("loss", "first", "second", "arguments", "message"),
    [
        (ghm_c_loss, LOGITS_3, LABELS_3, {"bins": 0}, "bins must be at least 1"),
        (ghm_c_loss, LOGITS_3, LABELS_3, {"momentum": 1.0}, r"momentum must be in \[0, 1\)"),
        (ghm_c_loss, LOGITS_3, LABELS_3, {"counts": torch.zeros(10)}, r"counts must be of shape \(30,\)"),
        (ghm_c_loss, LOGITS_3, LABELS_3[0], {}, "labels must have the shape of logits"),
        (ghm_c_loss, LOGITS_3, LABELS_3 + 2, {}, "labels must be 1, 0 or -1"),
        (ghm_c_loss, LOGITS_3 * math.nan, LABELS_3 - 1, {}, "logits must be finite"),
        (ghm_r_loss, LOGITS_3, LOGITS_3, {"mu": 0.0}, "mu must be positive"),
        (ghm_r_loss, LOGITS_3, LOGITS_3, {"bins": 0}, "bins must be at least 1"),
        (ghm_r_loss, LOGITS_3, LOGITS_3[0], {}, "target_deltas must have the shape of pred_deltas"),
        (ghm_r_loss, LOGITS_3 * math.nan, LOGITS_3, {}, "pred_deltas and target_deltas must be finite"),
        (ghm_r_loss, LOGITS_3, LOGITS_3 + math.inf, {}, "pred_deltas and target_deltas must be finite"),
    ],
)
def test_bad_input(loss, first, second, arguments, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        loss(first, second, **arguments)


class TestModules:
    """The modules are the functions with their counts kept."""

    @pytest.fixture(params=["ghm_c", "ghm_r"])
    def term(self, request):
        """(what makes a new module, its part's name, its function of LossInputs and counts)."""
        if request.param == "ghm_c":
            return (
                lambda: GHMCLoss(bins=7, momentum=0.5, weight=3.0),
                "ghm_c",
                lambda inputs, counts: ghm_c_loss(inputs.logits, inputs.labels, 7, 0.5, counts),
            )
        return (
            lambda: GHMRLoss(mu=0.1, bins=6, momentum=0.6, weight=3.0),
            "ghm_r",
            lambda inputs, counts: ghm_r_loss(inputs.pred_deltas, inputs.target_deltas, 0.1, 6, 0.6, counts),
        )

    @staticmethod
    def batch(seed):
        logits, labels = random_problem(seed)
        inputs = loss_inputs(torch.tensor(logits, requires_grad=True), labels)
        deltas = np.random.default_rng(seed).normal(size=inputs.pred_deltas.shape) / 10
        return inputs._replace(pred_deltas=torch.tensor(deltas, requires_grad=True))

    def test_counts_run_on(self, term):
        make, name, function = term
        module, counts = make(), None
        for seed in range(3):
            total, parts = module(self.batch(seed))
            loss, counts = function(self.batch(seed), counts)
            assert parts[name].item() == loss.item()
            assert total.item() == pytest.approx(3 * loss.item())
            assert total.requires_grad
            assert module.counts.tolist() == counts.tolist()
        assert module.counts.dtype == torch.float64
        assert module.counts.sum() > 0

    def test_counts_survive_a_resume(self, term, tmp_path):
        """Two steps, a checkpoint, two more; or from the checkpoint with a new module: the same bits."""
        make, name, _ = term
        module, fresh = make(), make()
        for seed in range(2):
            module(self.batch(seed))
        torch.save(module.state_dict(), tmp_path / "state.pt")
        fresh.load_state_dict(torch.load(tmp_path / "state.pt"))
        for seed in range(2, 4):
            assert fresh(self.batch(seed)).parts[name].item() == module(self.batch(seed)).parts[name].item()
        assert fresh.counts.tolist() == module.counts.tolist()

    def test_counts_stand_still_in_eval_mode(self, term):
        make, name, _ = term
        module = make()
        module(self.batch(0))
        before = module.counts.tolist()
        module.eval()
        first, second = (module(self.batch(1)).parts[name].item() for _ in range(2))
        assert first == second
        assert module.counts.tolist() == before
        assert module.train()(self.batch(1)).parts[name].item() == first
        assert module.counts.tolist() != before

    def test_numbers_are_checked_at_construction(self):
        for module, arguments in ((GHMCLoss, {"bins": 0}), (GHMRLoss, {"momentum": -0.1}), (GHMRLoss, {"mu": 0.0})):
            with pytest.raises(ValueError, match=f"^{next(iter(arguments))} must"):
                module(**arguments)
