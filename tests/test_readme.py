"""The README's code runs as it stands there, and does what the text beside it says."""

import ast
import importlib
import inspect
import re

import pytest
import torch
from torchvision.models.detection.retinanet import RetinaNet, RetinaNetClassificationHead

from rankdet.losses.ap import ap_loss


@pytest.fixture(scope="module")
def section(repo):
    """The text of "Borrowing a loss"."""
    text = (repo / "README.md").read_text()
    return re.search(r"^## Borrowing a loss\n(.*?)^## ", text, re.MULTILINE | re.DOTALL)[1]


@pytest.fixture(scope="module")
def blocks(repo):
    """The README's three python blocks, by what they show."""
    found = re.findall(r"^```python\n(.*?)^```$", (repo / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    marks = {"call": "loss.backward()", "retinanet": "class APHead", "own": "def f1_loss"}
    assert len(found) == len(marks)
    assert all(mark in block for mark, block in zip(marks.values(), found, strict=True))
    return dict(zip(marks, found, strict=True))


def lines_of_code(block):
    return sum(bool(line.strip()) for line in block.splitlines())


def run(block, **names):
    """The names that the block defines, given those that its reader has."""
    exec(compile(block, "README.md", "exec"), names)
    return names


def test_the_table_of_tables_links_every_result(repo):
    """The page of each published table and figure, and nothing that is not there."""
    text = (repo / "README.md").read_text()
    pages = [path.relative_to(repo) for path in (repo / "experiments").glob("*/*.md")]
    assert len(pages) >= 50
    assert [str(path) for path in pages if f"]({path})" not in text] == []
    links = re.findall(r"\]\((experiments/[^)]*)\)", text)
    assert len(links) >= len(pages)
    assert [link for link in links if not (repo / link).exists()] == []


def test_the_plain_call(blocks):
    """Positives at 4 and 0, a negative at 2: precisions 1 and 2/3, loss (0 + 1/3) / 2; half of 1/3 is pushed."""
    logits = torch.tensor([[4.0, 0.0, 2.0]], requires_grad=True)
    loss = run(blocks["call"], logits=logits, labels=torch.tensor([[1, 1, 0]]))["loss"]
    assert loss.item() == pytest.approx(1 / 6, abs=1e-6)
    assert logits.grad.tolist()[0] == pytest.approx([0, -1 / 6, 1 / 6], abs=1e-6)


def test_the_examples_are_as_short_as_promised(blocks):
    assert lines_of_code(blocks["retinanet"]) < 15
    assert lines_of_code(blocks["own"]) <= 10


@pytest.fixture
def borrowed(blocks):
    """What the RetinaNet block defines, its model taking images of 64 pixels."""
    torch.manual_seed(0)
    names = run(blocks["retinanet"])
    names["model"].transform.min_size, names["model"].transform.max_size = (64,), 64
    return names


IMAGES = [torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]
TARGETS = [
    {"boxes": torch.tensor([[4.0, 6.0, 36.0, 40.0], [30.0, 30.0, 62.0, 60.0]]), "labels": torch.tensor([3, 20])},
    {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)},
    {"boxes": torch.tensor([[10.0, 2.0, 40.0, 33.0]]), "labels": torch.tensor([3])},
]


def test_the_borrowed_retinanet_learns(borrowed):
    """A finite loss, gradients in every layer of the head, and one step of SGD lowers both losses on the same batch."""
    model = borrowed["model"]
    assert isinstance(model, RetinaNet)
    assert isinstance(model.head.classification_head, borrowed["APHead"])
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05)
    before = model(IMAGES, TARGETS)
    assert 0 < before["classification"].item() < 1
    sum(before.values()).backward()
    gradients = {name: parameter.grad for name, parameter in model.head.named_parameters()}
    assert len(gradients) == 20  # 5 convolutions, weight and bias, in each of two heads
    for name, gradient in gradients.items():
        assert gradient.isfinite().all(), name
        assert gradient.abs().max() > 0, name
    optimiser.step()
    with torch.no_grad():
        after = model(IMAGES, TARGETS)
    assert after["classification"] < before["classification"] - 1e-5
    assert after["bbox_regression"] < before["bbox_regression"]


def test_the_borrowed_head_labels_every_score(borrowed, monkeypatch):
    """Against a loop over anchors: 1 at a matched anchor's class, -1 in all classes between the thresholds, else 0."""
    seen = []
    monkeypatch.setitem(borrowed, "ap_loss", lambda *arguments: seen.append(arguments) or ap_loss(*arguments))
    head = borrowed["model"].head.classification_head
    matched = [torch.tensor([-1, 0, -2, 1, -1, 0]), torch.full((6,), -1), torch.tensor([0, -2, -2, -1, -1, 0])]
    logits = torch.randn(3, 6, 21, generator=torch.Generator().manual_seed(0), requires_grad=True)
    loss = head.compute_loss(TARGETS, {"cls_logits": logits}, matched)
    expected = torch.zeros(3, 6, 21, dtype=torch.int8)
    for image, anchors in enumerate(matched):
        for anchor, box in enumerate(anchors.tolist()):
            if box == -2:
                expected[image, anchor] = -1
            elif box >= 0:
                expected[image, anchor, TARGETS[image]["labels"][box]] = 1
    assert expected.eq(1).sum() == 5
    assert expected.eq(-1).sum() == 3 * 21
    ((given, labels),) = seen
    assert given is logits
    assert torch.equal(labels, expected)
    loss.backward()
    assert ((logits.grad != 0) & (expected == -1)).sum() == 0
    assert logits.grad.abs().sum() > 0


def test_a_trained_head_carries_over(borrowed):
    """What the text says about load_state_dict."""
    trained = RetinaNetClassificationHead(256, 9, 21)
    head = borrowed["APHead"](256, 9, 21)
    head.load_state_dict(trained.state_dict())
    features = [torch.randn(1, 256, 2, 2)]
    assert torch.equal(head(features), trained(features))


def test_the_borrowed_retinanet_detects(borrowed):
    """With score_thresh=0.0 nothing that has a score is dropped for its level."""
    model = borrowed["model"].eval()
    assert model.score_thresh == 0.0
    with torch.no_grad():
        (found,) = model(IMAGES[:1])
    assert len(found["scores"]) > 0
    assert (found["scores"] < 0.05).all(), "an untrained detector's prior is 0.01"


@pytest.fixture
def f1_loss(blocks):
    return run(blocks["own"])["f1_loss"]


def test_the_new_loss_on_the_text_s_scores(f1_loss):
    """Positives at 4 and 0, a negative at 2, no two within a logit of each other.

    Threshold below 4: one positive of two and no negative, so F1 = 2 / (1 + 2) = 2/3. Below 0: two positives of two and
    one negative, 4 / (3 + 2) = 4/5. Loss 1 - (2/3 + 4/5) / 2 = 4/15. Without the negative the second positive's F1
    would be 1, so its target is 0, and (1/5 - 0) / 2 = 1/10 goes to it and to the negative. The first positive has no
    negative above it, and gets nothing.
    """
    logits = torch.tensor([4.0, 0.0, 2.0], requires_grad=True)
    loss = f1_loss(logits, torch.tensor([1, 1, 0]))
    loss.backward()
    assert loss.item() == pytest.approx(4 / 15, abs=1e-6)
    assert logits.grad.tolist() == pytest.approx([0, -1 / 10, 1 / 10], abs=1e-6)


@pytest.mark.parametrize("seed", range(20))
def test_the_new_loss_is_the_mean_f1_score(f1_loss, seed):
    """Scores 3 apart in random order, by counting at each positive's threshold; pushes by the same counts."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randperm(30, generator=generator).double()
    labels = torch.randint(-1, 2, (30,), generator=generator)
    labels[:2] = torch.tensor([1, 0])
    num_pos = (labels == 1).sum().item()
    error, gradient = 0.0, torch.zeros(30, dtype=torch.float64)
    for i in (labels == 1).nonzero().flatten().tolist():
        detected = logits >= logits[i]
        true, false = (detected & (labels == 1)).sum().item(), (detected & (labels == 0)).sum().item()
        precision, recall = true / (true + false), true / num_pos
        f1 = 2 * precision * recall / (precision + recall)
        best = 2 * recall / (1 + recall)
        error += (1 - f1) / num_pos
        if false:
            push = (best - f1) / num_pos
            gradient[i] -= push
            gradient[detected & (labels == 0)] += push / false
    scores = logits.clone().requires_grad_()
    loss = f1_loss(scores, labels)
    loss.backward()
    assert loss.item() == pytest.approx(error, abs=1e-12)
    torch.testing.assert_close(scores.grad, gradient, rtol=0, atol=1e-12)


ROW = re.compile(r"^\| `(\w+)\.py` `(\w+)\(([^)]*)\)` \| .+ \| O\(.+ \|$", re.MULTILINE)


@pytest.fixture(scope="module")
def rows(section):
    """(module, function, its arguments) of every row of the table."""
    found = [(module, function, arguments.split(", ")) for module, function, arguments in ROW.findall(section)]
    assert len(found) == sum(line.startswith("| `") for line in section.splitlines()), "a row that does not parse"
    return found


def test_the_table_lists_every_loss(repo, rows):
    """Every public function *_loss of a module that is not the framework's, once."""
    defined = set()
    for path in (repo / "rankdet" / "losses").glob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef) and re.fullmatch(r"[a-z]\w*_loss", node.name):
                defined.add((path.stem, node.name))
    defined -= {("ranking", "error_driven_loss")}
    assert len(defined) >= 16
    listed = [(module, function) for module, function, _ in rows]
    assert sorted(listed) == sorted(defined)


def test_the_table_s_arguments_are_the_functions_own(rows):
    """First arguments by position and name, later ones by keyword, and no argument without a default left out."""
    for module, function, arguments in rows:
        parameters = inspect.signature(
            getattr(importlib.import_module(f"rankdet.losses.{module}"), function)
        ).parameters
        by_position = [name for name in arguments if "=" not in name]
        keywords = [name.partition("=")[0] for name in arguments if "=" in name]
        assert list(parameters)[: len(by_position)] == by_position, function
        assert set(keywords) <= set(parameters), function
        left = set(parameters) - set(by_position) - set(keywords)
        assert all(parameters[name].default is not inspect.Parameter.empty for name in left), function


def test_who_takes_positives_is_as_the_text_says(rows):
    """All rows down to dr_loss, and none below."""
    takes = []
    for module, function, _ in rows:
        parameters = inspect.signature(
            getattr(importlib.import_module(f"rankdet.losses.{module}"), function)
        ).parameters
        takes.append("positives" in parameters)
    last = [function for _, function, _ in rows].index("dr_loss")
    assert takes == [True] * (last + 1) + [False] * (len(rows) - last - 1)
