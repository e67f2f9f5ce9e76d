"""Gaussian noise on the network's input (AP-loss, Sec. 4.2.2)."""

import numpy as np

VARIANCE = 0.01


def gaussian_noise(image: np.ndarray, boxes: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """The image plus independent noise of mean 0 and variance 0.01 on each value, float32, neither rounded nor clipped.

    image: [H, W, 3], 0..255; boxes are not looked at. The variance is that of the image scaled to 0..1, so the standard
    deviation is 25.5 grey levels. The paper's "normalized image" could also mean that of mean 0 and deviation 1; but
    there the noise would have 6 grey levels, too little to cost the 13 to 17 points that Table 3 prints.
    """
    noise = generator.standard_normal(image.shape, dtype=np.float32)
    return image.astype(np.float32) + np.float32(255 * np.sqrt(VARIANCE)) * noise
