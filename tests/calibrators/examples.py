"""Small calibration splits whose truth is known, and every calibrator, for the tests of this folder."""

import torch

from medcalib.calibrators import (
    AuxiliaryCalibrator,
    CalibrationCase,
    FineTune,
    HistogramBinningCalibrator,
    IsotonicCalibrator,
    LocalTemperatureScaling,
    PlattScaling,
    TemperatureScaling,
    VectorScaling,
)

SHAPES = {2: (24, 20), 3: (12, 10, 8)}


def image_network(num_classes, spatial_dims):
    """A network that was never trained: its logits tell a little of the class."""
    convolution = {2: torch.nn.Conv2d, 3: torch.nn.Conv3d}[spatial_dims]
    torch.manual_seed(0)
    body = torch.nn.Sequential(convolution(num_classes, 8, 1), torch.nn.ReLU())
    return torch.nn.Sequential(body, torch.nn.Dropout(0.5), convolution(8, num_classes, 1)).eval()


def make(kind, num_classes=3, activation="softmax", spatial_dims=2, **options):
    """A calibrator by its kind."""
    spatial = {"spatial_dims": spatial_dims}
    if kind == "fine_tune":
        return FineTune(image_network(num_classes, spatial_dims), ["2"], num_classes, activation)
    cls, extra = {
        "temperature_scaling": (TemperatureScaling, {}),
        "vector_scaling": (VectorScaling, {}),
        "platt_scaling": (PlattScaling, {}),
        "auxiliary": (AuxiliaryCalibrator, spatial),
        "local_temperature_scaling": (LocalTemperatureScaling, spatial | {"hidden_channels": 4}),
        "isotonic": (IsotonicCalibrator, {}),
        "histogram_binning": (HistogramBinningCalibrator, {}),
    }[kind]
    return cls(num_classes, activation=activation, **extra, **options)


KINDS = [
    "temperature_scaling",
    "vector_scaling",
    "platt_scaling",
    "auxiliary",
    "local_temperature_scaling",
    "isotonic",
    "histogram_binning",
    "fine_tune",
]
SCALING = KINDS[:3]
OF_LOGITS = KINDS[:-1]
WITH_KEEP_ARGMAX = ["vector_scaling", "platt_scaling", "auxiliary", "isotonic", "histogram_binning"]


def drawn_labels(true_logits, activation="softmax", seed=0):
    """Labels drawn voxel by voxel from the probabilities of logits (B, C, ...)."""
    # Not the seed of the logits: the same stream of random numbers would tie labels to logits.
    generator = torch.Generator().manual_seed(10_000 + seed)
    if activation == "sigmoid":
        return (torch.rand(true_logits.shape, generator=generator) < true_logits.sigmoid()).to(torch.uint8)
    flat = true_logits.softmax(1).movedim(1, -1).flatten(0, -2)
    drawn = torch.multinomial(flat, 1, generator=generator)
    return drawn.reshape(true_logits.shape[0], 1, *true_logits.shape[2:]).to(torch.uint8)


def true_logits(num_classes=3, shape=(24, 20), seed=0, spread=2.0):
    """Logits (1, C, ...) of which labels are drawn; the first class is the frequent one."""
    logits = spread * torch.randn(1, num_classes, *shape, generator=torch.Generator().manual_seed(seed))
    logits[:, 0] += 1.0
    return logits


def split(num_cases=4, num_classes=3, activation="softmax", spatial_dims=2, temperature=2.5, shape=None, image=False):
    """An over-confident network's cases: logits are the true ones times the temperature."""
    cases = []
    for seed in range(num_cases):
        true = true_logits(num_classes, shape or SHAPES[spatial_dims], seed)
        labels = drawn_labels(true, activation, seed)
        cases.append(CalibrationCase(temperature * true, labels, image=true if image else None, name=f"case_{seed}"))
    return cases


def split_for(kind, **options):
    """A split on which the kind can be fitted; fine-tuning gets the logits of its own network."""
    cases = split(image=True, **options)
    if kind != "fine_tune":
        return cases
    network = image_network(options.get("num_classes", 3), options.get("spatial_dims", 2))
    with torch.no_grad():
        return [case._replace(logits=network(case.image)) for case in cases]
