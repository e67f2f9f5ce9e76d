"""The test conditions of AP-loss's Table 3 and aLRP's Table 5, as tables name them. Imports nothing."""

# Raise it when a change gives other images or other numbers: results of an older suite are then done again.
SUITE_VERSION = 1
SEED = 0  # of every random choice, the same for all models

ORIGINAL = "original"
DEEPFOOL = "deepfool"
ADVERSARIAL = "adversarial_patch"
BOUNDS = {"lower_bound": "lower", "upper_bound": "upper"}  # -> what evaluation/bounds.py calls it
TRAINING_STEP = "training_step"  # what the weights cost to train, which is measured with nothing else beside it
CONDITIONS = {
    ORIGINAL: "the images as they are",
    "black_patch": "half of each object's width and height, at its centre, is black",
    "random_patch": "the same window shows content from a random place outside the object's box",
    "flip_patch": "the same window's own content is flipped left/right, top/bottom or both, at random",
    ADVERSARIAL: (
        "the same window shows one texture, the same for all objects and images, trained on the training split against "
        "each model itself to lower the scores of objects' classes (after Adversarial patch, 2017)"
    ),
    "gaussian_noise": "noise of mean 0 and variance 0.01 on each value of the network's input, scaled to 0..1",
    DEEPFOOL: (
        "the smallest perturbation found (DeepFool, CVPR 2016) that removes an image's best detection or turns its "
        "class, as L2 norm over the network's input in grey levels (0..255): the mean over the images (at most 100) "
        "with a detection at the score threshold of the model's best F1; higher is more robust"
    ),
    "lower_bound": (
        "the images as they are; in each class the detections that are right at IoU 0.5 keep their scores and exchange "
        "their IoUs, so that the higher the score, the smaller the IoU"
    ),
    "upper_bound": "the same the other way round: the higher the score, the larger the IoU",
    TRAINING_STEP: (
        "a step of the same training from the final weights, one run at a time: the median of several, reading the "
        "images aside; memory is that of weights, gradients, the optimiser's state and what the step adds at its worst"
    ),
}
