"""A batch that several processes share has the gradient of the plain batch, whatever the loss and the network."""

import copy

import monai.losses
import pytest
import torch
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import MeanDice, from_engine
from tests.several import in_processes
from torch import nn

from medcalib.data.caching import SeededDataset
from medcalib.engines import SharedEvaluator, SharedTrainer
from medcalib.handlers import EpochSeedHandler
from medcalib.losses import (
    CrossEntropyLoss,
    DiceLoss,
    MultiHeadLoss,
    NACLLoss,
    SoftL1ACEandDiceCELoss,
    WholeImageLoss,
)

CLASSES = 3
CPU = torch.device("cpu")


def cases(number, size=8):
    drawn = torch.Generator().manual_seed(0)
    return [
        {
            "image": torch.randn(1, size, size, generator=drawn, dtype=torch.float64),
            "label": torch.randint(0, CLASSES, (1, size, size), generator=drawn),
        }
        for _ in range(number)
    ]


def image_cases(number):
    drawn = torch.Generator().manual_seed(0)
    return [
        {
            "image": torch.randn(4, generator=drawn, dtype=torch.float64),
            "label": torch.randint(0, CLASSES, (1,), generator=drawn),
        }
        for _ in range(number)
    ]


class Heads(nn.Module):
    def __init__(self):
        super().__init__()
        self.heads = nn.ModuleList(nn.Conv2d(1, CLASSES, 3, padding=1) for _ in range(2))

    def forward(self, inputs):
        return [head(inputs) for head in self.heads]


def network(kind):
    torch.manual_seed(1)
    norms = {"instance": nn.InstanceNorm2d(4), "batch": nn.BatchNorm2d(4)}
    if kind == "heads":
        return Heads().double()
    if kind == "images":
        return nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, CLASSES)).double()
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), norms[kind], nn.ReLU(), nn.Conv2d(4, CLASSES, 3, padding=1)
    ).double()


def softmax(**options):
    return {"softmax": True, "to_onehot_y": True} | options


LOSSES = {
    "cross entropy": CrossEntropyLoss,
    "weighted classes": lambda: CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 5.0]).tolist()).double(),
    "dice": lambda: DiceLoss(**softmax()),
    "dice of the batch": lambda: DiceLoss(**softmax(batch=True)),
    "calibration": lambda: SoftL1ACEandDiceCELoss(
        to_onehot_y=True, ace_params={"softmax": True}, dice_params={"softmax": True}
    ),
    "calibration of the batch": lambda: SoftL1ACEandDiceCELoss(
        to_onehot_y=True, ace_params={"softmax": True, "batch": True}, dice_params={"softmax": True}
    ),
    "focal": lambda: monai.losses.FocalLoss(to_onehot_y=True, use_softmax=True),
    "nacl": lambda: NACLLoss(classes=CLASSES, dim=2, kernel_size=3, alpha=0.1),
    "best head": lambda: MultiHeadLoss(DiceLoss(**softmax()), mode="meta"),
    "heads": lambda: MultiHeadLoss(DiceLoss(**softmax())),
    "images": lambda: WholeImageLoss(
        SoftL1ACEandDiceCELoss(to_onehot_y=True, ace_params={"softmax": True}, dice_weight=0).losses[0]
    ),
}


def trained(trainer_class, kind, loss, data, batch_size, epochs=2):
    """Losses, gradients of the last step and weights of a training; with the cases that it saw."""
    net = network(kind)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    dataset = SeededDataset(data, transform=None, seed=5)
    losses = []
    trainer = trainer_class(
        device=CPU,
        max_epochs=epochs,
        train_data_loader=torch.utils.data.DataLoader(dataset, batch_size=batch_size, shuffle=True),
        network=net,
        optimizer=optimizer,
        loss_function=LOSSES[loss](),
        train_handlers=[EpochSeedHandler(5, dataset)],
        decollate=False,
    )
    trainer.add_event_handler("ITERATION_COMPLETED", lambda engine: losses.append(engine.state.output["loss"].item()))
    trainer.run()
    return losses, [parameter.grad.clone() for parameter in net.parameters()], copy.deepcopy(net.state_dict())


PAIRS = [
    (loss, kind)
    for loss in LOSSES
    for kind in {"best head": ["heads"], "heads": ["heads"], "images": ["images"]}.get(loss, ["instance", "batch"])
]


@pytest.mark.parametrize("processes", [2, 3])
def test_a_training_is_that_of_one_process(processes, tmp_path):
    """Seven cases in batches of four and three, and five in batches of four and one, of which some have none."""

    def every_training(trainer_class):
        return {
            (loss, kind, number): trained(
                trainer_class, kind, loss, (image_cases if kind == "images" else cases)(number), 4
            )
            for loss, kind in PAIRS
            for number in (7, 5)
            # one value a channel has no variance
            if not (kind == "images" and number == 5)
        }

    wanted = every_training(SupervisedTrainer)
    for found in in_processes(processes, lambda rank: every_training(SharedTrainer), tmp_path):
        for key, (losses, gradients, weights) in found.items():

            def told(text, key=key):
                return f"{key}: {text}"

            torch.testing.assert_close(losses, wanted[key][0], rtol=1e-6, atol=1e-9, msg=told)
            torch.testing.assert_close(gradients, wanted[key][1], rtol=1e-5, atol=1e-8, msg=told)
            torch.testing.assert_close(weights, wanted[key][2], rtol=1e-5, atol=1e-8, msg=told)


@pytest.mark.parametrize("processes", [2, 3, 4])
def test_a_validation_is_that_of_one_process_to_the_last_bit(processes, tmp_path):
    def validated(evaluator_class):
        data, outputs = cases(3), from_engine(["pred", "label"])
        evaluator = evaluator_class(
            device=CPU,
            val_data_loader=torch.utils.data.DataLoader(data, batch_size=1),
            network=network("batch").eval(),
            key_val_metric={"mean_dice": MeanDice(num_classes=CLASSES, output_transform=outputs)},
            postprocessing=lambda case: case | {"pred": case["pred"].argmax(0, keepdim=True)},
        )
        evaluator.run(1)
        return evaluator.state.metrics["mean_dice"], evaluator.state.metric_details["mean_dice"]

    wanted = validated(SupervisedEvaluator)
    for found in in_processes(processes, lambda rank: validated(SharedEvaluator), tmp_path):
        assert found[0] == wanted[0]
        torch.testing.assert_close(found[1], wanted[1], rtol=0, atol=0, equal_nan=True)
