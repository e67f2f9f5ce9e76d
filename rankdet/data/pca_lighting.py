"""AlexNet's colour shift along the principal components of ImageNet's colours."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from rankdet.data.transforms import A


class PCALighting(A.ImageOnlyTransform):
    """Adds sum_c alpha_c * value_c * vector_c to every pixel, alpha_c normal with deviation std.

    Krizhevsky et al. 2012, Sec. 4.1, with the eigenvalues and eigenvectors of all of ImageNet's colours.
    albumentations' FancyPCA takes each image's own covariance and scales the pixels' deviations by it instead, which
    at std 0.1 moves them by less than one grey level on average.
    """

    def __init__(
        self, std: float, eigenvalues: Sequence[float], eigenvectors: Sequence[Sequence[float]], p: float = 1.0
    ) -> None:
        """eigenvalues [3]: of colours in 0 ... 1. eigenvectors [3, 3]: rows R, G, B; a column a component."""
        super().__init__(p=p)
        self.std = std
        self.eigenvalues = np.asarray(eigenvalues, dtype=np.float64)
        self.eigenvectors = np.asarray(eigenvectors, dtype=np.float64)

    def get_params(self) -> dict[str, Any]:
        """Draws the shift of each channel, in grey levels."""
        alpha = self.random_generator.normal(0.0, self.std, 3)
        return {"shift": 255.0 * self.eigenvectors @ (self.eigenvalues * alpha)}

    def apply(self, img: np.ndarray, shift: np.ndarray, **params: object) -> np.ndarray:
        """uint8 [H, W, 3] -> the same, rounded and saturating at 0 and 255."""
        return cv2.add(img, (*shift, 0.0))
