"""What every calibrator shares: the state, the checks and the interface."""

from itertools import chain
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from medcalib.calibrators.calibration_cases import CHUNK, CalibrationCase
from medcalib.errors import UserError
from medcalib.functional.temperature import keep_decisions
from medcalib.keys import Activation

__all__ = ["Calibrator"]


class Calibrator(nn.Module):
    """A map from logits to logits whose probabilities fit the observed frequencies better.

    Fit it with :func:`~medcalib.calibrators.fit_calibrator`, or load a fitted one with
    :func:`~medcalib.calibrators.load_calibrator`; then call it with logits (B, C, ...) and, if ``needs_image``,
    the image (B, channels, ...) on the same grid. It returns logits (B, C, ...): float64 for float64, else float32,
    because half precision cannot express calibrated probabilities near 0 and 1.

    Fitted calibrators survive ``state_dict``, ``torch.compile``, ``torch.jit.script``, ``torch.jit.trace`` and
    ``torch.export``.

    Subclasses implement :meth:`map_logits` and :meth:`reset_parameters`.

    Args:
        num_classes: number of logit channels, C.
        activation: ``"softmax"`` or ``"sigmoid"``: how logits become probabilities.
        keep_argmax: keep every decision of the uncalibrated logits, as
            :func:`medcalib.functional.keep_decisions` does.

    Raises:
        ValueError: ``num_classes`` or ``activation`` is invalid.
        UserError: when it is called, it is not fitted, or the logits have another number of channels or, where it looks
            at neighbours, of axes.

    Example:
        >>> class Halved(Calibrator):
        ...     kind = "halved"
        ...
        ...     def map_logits(self, logits, image=None):
        ...         return logits / 2
        >>> calibrator = Halved(num_classes=2)
        >>> calibrator.mark_fitted()
        >>> calibrator(torch.tensor([[4.0, 2.0]]))
        tensor([[2., 1.]])
    """

    kind: ClassVar[str]
    """Name of the calibrator, that of its fragment."""
    convex: ClassVar[bool] = False
    """Whether the NLL is convex in the parameters."""
    learning_rate: ClassVar[float] = 1e-3
    """Step size of Adam, where the calibrator is trained with it."""
    __constants__: ClassVar[list[str]] = ["kind"]
    fitted: Tensor

    def __init__(
        self, num_classes: int, activation: Activation | str = Activation.SOFTMAX, keep_argmax: bool = False
    ) -> None:
        super().__init__()
        self.activation = Activation(activation)
        least = 2 if self.activation == Activation.SOFTMAX else 1
        if num_classes < least:
            raise ValueError(f"num_classes must be at least {least} with {self.activation}, got {num_classes}.")
        self.num_classes = num_classes
        self.sigmoid = self.activation == Activation.SIGMOID
        self.keep_argmax = keep_argmax
        self.needs_image = False
        # Number of spatial axes that the logits must have; below 0 any, also none.
        self.num_axes = -1
        self.register_buffer("fitted", torch.tensor(False))
        # A compiled graph cannot branch on the buffer, so forward looks at this copy of it.
        self.is_fitted = False

    def forward(self, logits: Tensor, image: Tensor | None = None) -> Tensor:
        """Calibrated logits (B, C, ...) of logits (B, C, ...)."""
        if not self.is_fitted:
            raise UserError(
                f"The {self.kind} calibrator is not fitted: run --mode train, which fits it at its end, or load a "
                f"fitted one."
            )
        return self.calibrate(logits, image)

    def calibrate(self, logits: Tensor, image: Tensor | None = None) -> Tensor:
        """Do what ``forward`` does, fitted or not."""
        if logits.dim() < 2 or logits.shape[1] != self.num_classes:
            raise UserError(
                f"The {self.kind} calibrator is made for {self.num_classes} classes, but the logits have shape "
                f"{list(logits.shape)}: use the calibrator of the same data, or fit one anew."
            )
        if self.num_axes >= 0 and logits.dim() - 2 != self.num_axes:
            raise UserError(
                f"The {self.kind} calibrator looks at neighbours along {self.num_axes} axes, but the logits have shape "
                f"{list(logits.shape)}: choose one that looks at single predictions, such as temperature_scaling."
            )
        if self.needs_image and image is None:
            raise UserError(f"The {self.kind} calibrator needs the image beside the logits.")
        if logits.dtype == torch.float16 or logits.dtype == torch.bfloat16:
            logits = logits.float()
        calibrated = self.map_logits(logits, image)
        if self.keep_argmax:
            calibrated = keep_decisions(calibrated, logits, self.sigmoid)
        return calibrated

    def map_logits(self, logits: Tensor, image: Tensor | None = None) -> Tensor:
        """The map itself: float32 or float64 logits (B, C, ...) to logits (B, C, ...)."""
        raise NotImplementedError

    def reset_parameters(self, seed: int = 0) -> None:
        """Return to the map that changes nothing; whatever is random follows from ``seed``."""
        raise NotImplementedError

    def calibrate_case(self, case: CalibrationCase) -> Tensor:
        """Calibrated logits (B, C, ...) of a case, fitted or not."""
        logits = case.logits
        if self.num_axes >= 0 or self.needs_image or logits.dim() < 3:
            return self.calibrate(logits, case.image)
        # A map of single voxels is the same part by part, and its intermediate values take less memory.
        flat = logits.flatten(2)
        first = self.calibrate(flat[..., :CHUNK])
        if first.shape == flat.shape:
            return first.reshape(logits.shape)
        calibrated = first.new_empty(flat.shape)
        calibrated[..., :CHUNK] = first
        for start in range(CHUNK, flat.shape[2], CHUNK):
            part = slice(start, start + CHUNK)
            calibrated[..., part] = self.calibrate(flat[..., part])
        return calibrated.reshape(logits.shape)

    def training_logits(self, patch: CalibrationCase) -> Tensor:
        """Logits (B, C, ...) of a patch, differentiable in the parameters, for calibrators trained by gradients."""
        return self.map_logits(case_logits(patch), patch.image)

    def prepare_network(self, network: nn.Module) -> nn.Module:
        """Change the network before it predicts, and return it; all calibrators but ``FineTune`` leave it as it is."""
        return network

    def settings(self) -> dict[str, Any]:
        """The constructor's arguments that a stored state belongs to, as plain values."""
        return {
            "num_classes": self.num_classes,
            "activation": self.activation.value,
            "keep_argmax": self.keep_argmax,
        }

    def describe(self) -> dict[str, Any]:
        """The few fitted numbers that a reader wants to see, as plain values; empty for large calibrators."""
        return {}

    def mark_fitted(self, fitted: bool = True) -> None:
        """Say whether the calibrator may be used."""
        self.fitted.fill_(fitted)
        self.is_fitted = fitted

    def device(self) -> torch.device:
        """Where the parameters lie."""
        return next(chain(self.parameters(), self.buffers())).device

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self.is_fitted = bool(self.fitted)


def case_logits(case: CalibrationCase) -> Tensor:
    """The logits of a case, half precision widened."""
    return case.logits.float() if case.logits.dtype in (torch.float16, torch.bfloat16) else case.logits
