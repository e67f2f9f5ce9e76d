"""Small folders in VOC layout, written for a test."""

from xml.etree import ElementTree

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 30, 40


def annotation(*objects, height=HEIGHT, width=WIDTH):
    """VOC's XML; objects: (name, xmin, ymin, xmax, ymax)."""
    root = ElementTree.Element("annotation")
    size = ElementTree.SubElement(root, "size")
    for tag, value in (("width", width), ("height", height)):
        ElementTree.SubElement(size, tag).text = str(value)
    for name, *corners in objects:
        item = ElementTree.SubElement(root, "object")
        ElementTree.SubElement(item, "name").text = name
        box = ElementTree.SubElement(item, "bndbox")
        for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True):
            ElementTree.SubElement(box, tag).text = str(value)
    return ElementTree.tostring(root, encoding="unicode")


def noise(seed):
    """An image like no other."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8))


def voc_folder(root, splits, annotations, images):
    """splits: word -> stems; annotations: stem -> XML; images: stems that get a picture of their own."""
    for folder in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (root / folder).mkdir(parents=True)
    for word, stems in splits.items():
        (root / "ImageSets" / "Main" / f"{word}.txt").write_text("\n".join(stems) + "\n")
    for stem, text in annotations.items():
        (root / "Annotations" / f"{stem}.xml").write_text(text)
    for seed, stem in enumerate(images):
        noise(seed).save(root / "JPEGImages" / f"{stem}.jpg")
    return root
