"""Who may import whom: read from the sources, so that a forgotten rule fails here and not on a borrower's machine."""

import ast
import sys

import pytest

HEAVY = {"faster_coco_eval", "hydra", "omegaconf", "albumentations", "cv2", "pycocotools"}
COMMANDS = {"rankdet.train", "rankdet.evaluate", "rankdet.predict", "rankdet.retest"}


@pytest.fixture(scope="module")
def imports(repo):
    """Module -> what it imports, also inside functions; of `from a import b` both a and a.b."""
    found = {}
    for path in sorted((repo / "rankdet").rglob("*.py")):
        name = ".".join(path.relative_to(repo).with_suffix("").parts).removesuffix(".__init__")
        names = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}: a relative import"
                names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        found[name] = names
    assert len(found) > 60
    return found


def reached(imports, module):
    """All that importing module brings along, through this project's modules."""
    seen, left = set(), [module]
    while left:
        name = left.pop()
        if name not in seen:
            seen.add(name)
            left += imports.get(name, ())
    return seen


def of(imports, *packages):
    """The modules of some packages."""
    modules = [name for name in imports if name.startswith(tuple(f"rankdet.{package}." for package in packages))]
    assert len(modules) >= 4 * len(packages)
    return modules


def roots(names):
    return {name.partition(".")[0] for name in names}


def test_losses_need_torch_alone(imports):
    for module in of(imports, "losses"):
        names = reached(imports, module)
        assert roots(names) - sys.stdlib_module_names <= {"torch", "torchvision", "rankdet"}, module
        ours = {name for name in names if name in imports}
        assert all(name.startswith("rankdet.losses") for name in ours), (module, ours)


def test_a_bare_gpu_machine_can_train(imports):
    """Directly or through others of our modules."""
    for module in of(imports, "losses", "models", "matching", "training"):
        assert not roots(reached(imports, module)) & HEAVY, module


def test_data_models_and_evaluation_know_nothing_of_losses(imports):
    for module in of(imports, "data", "evaluation"):
        assert not any(name.startswith("rankdet.losses") for name in reached(imports, module)), module
    for module in of(imports, "models"):
        assert not any(name.startswith("rankdet.losses") for name in imports[module]), module


def test_nothing_imports_the_commands(imports):
    for module, names in imports.items():
        assert not names & COMMANDS, module


def test_package_files_are_empty(repo):
    for path in (repo / "rankdet").glob("*/__init__.py"):
        assert path.read_text() == "", path
