"""python -m rankdet.predict run=DIR input=IMAGE_OR_FOLDER [output=DIR] [threshold=0.3] [device=auto]: draws boxes."""

import sys
from collections import Counter
from pathlib import Path

import cv2
from tqdm import tqdm

from rankdet.build import build_views
from rankdet.cli import command, settings
from rankdet.data.image import read_image
from rankdet.data.view_dataset import image_batches
from rankdet.errors import UserError
from rankdet.evaluation.draw import draw_detections
from rankdet.evaluation.inference import detect_image
from rankdet.trained import load_trained
from rankdet.training.distributed import choose_device

IMAGE_TYPES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


@command
def main() -> None:
    """Draws what a finished run finds with a score over `threshold` into PNG files in `output`."""
    optional = {"output": None, "threshold": "0.3", "device": "auto"}
    given, overrides = settings(sys.argv[1:], __doc__, required=("run", "input"), optional=optional)
    device = choose_device(given["device"])
    trained = load_trained(Path(given["run"]), device, overrides)
    output = Path(given["output"] or Path(given["run"]) / "predictions")
    threshold = number(given["threshold"])
    paths = images_in(Path(given["input"]))
    views = build_views(trained.cfg)
    stems = Counter(path.stem for path in paths)
    output.mkdir(parents=True, exist_ok=True)
    for path in tqdm(paths, unit="image", disable=not sys.stderr.isatty()):
        image = read_image(path)
        found = detect_image(trained.detector, image_batches(image, views), device)
        shown = found.scores > threshold
        boxes, labels, scores = (values[shown].cpu().numpy() for values in (found.boxes, found.labels, found.scores))
        picture = draw_detections(image, boxes, labels, scores, trained.classes)
        name = path.stem if stems[path.stem] == 1 else path.name  # a.jpg beside a.png
        destination = output / f"{name}.png"
        if not cv2.imwrite(str(destination), picture[:, :, ::-1]):
            raise UserError(f"{destination}: cannot be written")
        print(f"{destination}: {len(boxes)} objects")


def images_in(source: Path) -> list[Path]:
    """The image itself, or the images directly in a folder, by name."""
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise UserError(f"input={source}: no such file or folder")
    paths = sorted(path for path in source.iterdir() if path.suffix.lower() in IMAGE_TYPES)
    if not paths:
        raise UserError(f"input={source}: holds no image ({', '.join(IMAGE_TYPES)})")
    return paths


def number(text: str) -> float:
    """A score threshold in [0, 1]."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise UserError(f"threshold={text}: must be a number in [0, 1]")
    return value


if __name__ == "__main__":
    main()
