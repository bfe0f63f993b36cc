"""The last layers of the network, trained once more."""

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from medcalib.calibrators.base import Calibrator
from medcalib.calibrators.calibration_cases import CalibrationCase
from medcalib.errors import UserError
from medcalib.keys import Activation

__all__ = ["FineTune"]


class FineTune(Calibrator):
    r"""Train the last layers of the network on with cross-entropy, the rest frozen (https://arxiv.org/abs/2010.14290).

    It differs in kind from the other calibrators, for it changes the network instead of its logits:

    - It holds copies of the parameters of the named modules; these are trained and stored. The network that it is made
      with is only read, in evaluation mode (without dropout and with the stored statistics of its normalisation), and
      is as before after the fit.
    - To fit it, the cases of the calibration split need ``image`` beside the logits of the untouched network.
    - To use it, call :meth:`prepare_network` once after the network's weights and the calibrator were loaded; the
      network then predicts calibrated logits, alone or under any sampling method, and calling the calibrator with
      these returns them as they are.

    Args:
        network: the trained network.
        modules: names of the modules to be trained, as in ``network.named_modules()``, or patterns of names such as
            ``up_layers.*.head``.
        num_classes: number of logit channels.
        activation: ``"softmax"`` or ``"sigmoid"``.
        inferer: called with ``inputs=image, network=...``, predicts whole volumes while it is fitted; any of MONAI's
            inferers. The network is called itself if None.
        patch_size: size of the patches on which it is trained, one per case and step, one number per spatial axis; a
            smaller image is padded. Whole volumes if None.

    Raises:
        UserError: a name fits no module with parameters.

    Example:
        >>> import torch
        >>> from monai.networks.nets import UNet
        >>> network = UNet(spatial_dims=2, in_channels=1, out_channels=2, channels=(4, 8), strides=(2,))
        >>> calibrator = FineTune(network, modules=["model.2"], num_classes=2)
        >>> calibrator.names[:2]
        ['model.2.conv.weight', 'model.2.conv.bias']
    """

    kind = "fine_tune"

    def __init__(
        self,
        network: nn.Module,
        modules: Sequence[str],
        num_classes: int,
        activation: Activation | str = Activation.SOFTMAX,
        inferer: Callable[..., Tensor] | None = None,
        patch_size: Sequence[int] | None = None,
    ) -> None:
        super().__init__(num_classes, activation)
        self.names = _parameter_names(network, modules)
        self.inferer = inferer
        self.patch_size = None if patch_size is None else list(patch_size)
        # In a tuple, so that the whole network does not become part of the calibrator's state.
        self._network = (network,)
        parameters = dict(network.named_parameters())
        self.tuned = nn.ParameterList(nn.Parameter(parameters[name].detach().clone()) for name in self.names)

    def map_logits(self, logits: Tensor, image: Tensor | None = None) -> Tensor:
        """The logits as they are: the network has been changed instead."""
        return logits

    def reset_parameters(self, seed: int = 0) -> None:
        """Copy the parameters that the network has now."""
        parameters = dict(self._network[0].named_parameters())
        with torch.no_grad():
            for tuned, name in zip(self.tuned, self.names, strict=True):
                tuned.copy_(parameters[name])

    def calibrate_case(self, case: CalibrationCase) -> Tensor:
        """Logits (B, C, ...) that the changed network predicts for the image of a case."""
        predict = self.inferer or (lambda inputs, network: network(inputs))
        return predict(inputs=_image(case), network=self._changed_network).float()

    def training_logits(self, patch: CalibrationCase) -> Tensor:
        """Logits (B, C, ...) that the changed network predicts for a patch, differentiable in what is trained."""
        image = _image(patch)
        if image.device.type == "cpu" and image.ndim == 5 and len(image) == 1:
            # torch (2.13) takes four times as long for the gradients of one small volume as for those of two
            return self._changed_network(torch.cat([image, image])).float()[:1]
        return self._changed_network(image).float()

    def prepare_network(self, network: nn.Module) -> nn.Module:
        """Copy the trained parameters into a network, and return it.

        Raises:
            UserError: the calibrator is not fitted, or the network has other modules.
        """
        if not self.is_fitted:
            raise UserError("The fine_tune calibrator is not fitted: run --mode train, which fits it at its end.")
        parameters = dict(network.named_parameters())
        for tuned, name in zip(self.tuned, self.names, strict=True):
            if name not in parameters or parameters[name].shape != tuned.shape:
                raise UserError(
                    f"The network has no parameter {name} of shape {tuple(tuned.shape)}, which the fine_tune "
                    f"calibrator holds: use the network on which it was fitted, or fit it anew."
                )
        with torch.no_grad():
            for tuned, name in zip(self.tuned, self.names, strict=True):
                parameters[name].copy_(tuned)
        return network

    def settings(self) -> dict[str, Any]:
        """Also the names of the parameters."""
        return {**super().settings(), "names": self.names}

    def _changed_network(self, inputs: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        network = self._network[0]
        parameters = {name: parameter.detach() for name, parameter in network.named_parameters()}
        parameters |= dict(zip(self.names, self.tuned, strict=True))
        training = [module for module in network.modules() if module.training]
        network.eval()
        try:
            outputs = functional_call(network, parameters, (inputs, *args), kwargs)
        finally:
            for module in training:
                module.training = True
        # Networks with deep supervision give a list, the full resolution first.
        return outputs[0] if isinstance(outputs, list | tuple) else outputs


def _image(case: CalibrationCase) -> Tensor:
    if case.image is None:
        raise UserError(f"Case {case.name}: the fine_tune calibrator needs the image beside the logits.")
    return case.image


def _parameter_names(network: nn.Module, modules: Sequence[str]) -> list[str]:
    chosen: set[str] = set()
    for pattern in modules:
        found = [
            f"{module_name}.{name}"
            for module_name, module in network.named_modules()
            if module_name and fnmatchcase(module_name, pattern)
            for name, _ in module.named_parameters()
        ]
        if not found:
            owners = (name.rpartition(".")[0] for name, _ in network.named_parameters())
            names = list(dict.fromkeys(owner for owner in owners if owner))
            raise UserError(
                f"The fine_tune calibrator is to train the module '{pattern}', but the network has none of that name "
                f"with parameters; its last ones are {', '.join(names[-5:])}."
            )
        chosen.update(found)
    return [name for name, _ in network.named_parameters() if name in chosen]
