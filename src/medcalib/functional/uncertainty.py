"""Uncertainty of predicted probabilities, and the running moments of the members of a predictive distribution."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from medcalib.functional.activation import to_probabilities
from medcalib.functional.inputs import check_probabilities, plain
from medcalib.keys import Activation

__all__ = ["PredictiveMoments", "entropy", "sample_mean_uncertainty"]

# Values taken at a time: what the steps on one part pass on to each other stays in the cache of a CPU, while on other
# devices, where every step is a launch, it only bounds the memory.
_CPU_PART, _DEVICE_PART = 1 << 18, 1 << 24
_Part = tuple[slice, slice, slice]


def _parts(values: Tensor) -> Iterator[_Part]:
    """Divide values (B, C, voxels) into slices of whole classes, each of few values."""
    batch, classes, voxels = values.shape
    limit = max((_CPU_PART if values.device.type == "cpu" else _DEVICE_PART) // max(classes, 1), 1)
    cases = max(limit // max(voxels, 1), 1)
    step = -(-voxels // max(-(-voxels // limit), 1)) or 1
    for b in range(0, batch, cases):
        for start in range(0, voxels, step):
            yield slice(b, b + cases), slice(None), slice(start, start + step)


def _check_activation(values: Tensor, activation: Activation | str) -> Activation:
    activation = Activation(activation)
    if values.ndim < 2 or not values.is_floating_point():
        raise ValueError(
            f"expected floating-point values of shape (B, C, ...), got {values.dtype} of shape {tuple(values.shape)}."
        )
    if activation == Activation.SOFTMAX and values.shape[1] < 2:
        raise ValueError("the softmax of one channel is always 1: give two channels, or use the activation 'sigmoid'.")
    return activation


def _weighted_log(probs: Tensor) -> Tensor:
    # The clamp leaves 0 ln 0 at 0, at half the time of torch.special.entr.
    return probs.clamp_min(torch.finfo(probs.dtype).tiny).log_().mul_(probs)


def _entropy_of_part(probs: Tensor, activation: Activation) -> Tensor:
    total = _weighted_log(probs)
    if activation == Activation.SIGMOID:
        total += _weighted_log(1 - probs)
    # Not the negation: it would leave -0, and rounding of a probability above 1 a negative entropy.
    return total.sum(1, keepdim=True).abs_()


def _entropy(probs: Tensor, activation: Activation) -> Tensor:
    result = probs.new_empty(probs.shape[0], 1, probs.shape[2])
    for part in _parts(probs):
        result[part] = _entropy_of_part(probs[part], activation)
    return result


def _prepare(probs: Tensor) -> Tensor:
    values = plain(probs).reshape(*probs.shape[:2], -1)
    check_probabilities(values)
    return values.to(torch.promote_types(values.dtype, torch.float32))


def entropy(probs: Tensor, activation: Activation | str = "softmax") -> Tensor:
    r"""Entropy of each voxel's prediction, :math:`-\sum_c p_c \ln p_c`, exactly 0 where the prediction is certain.

    With ``"sigmoid"`` the channels are independent labels, and the entropy of all of them together is the sum of the
    binary entropies :math:`-p_c \ln p_c - (1 - p_c) \ln(1 - p_c)`.

    Args:
        probs: probabilities (B, C, ...).
        activation: ``"softmax"`` for exclusive classes (C at least 2), ``"sigmoid"`` for independent ones.

    Returns:
        Entropies (B, 1, ...) in nats, in [0, ln C] or, with ``"sigmoid"``, in [0, C ln 2]; float64 for float64
        probabilities, else float32.

    Raises:
        ValueError: If ``activation`` is none of the two or does not fit the number of channels, if ``probs`` is not
            floating point (B, C, ...), or if a probability is NaN or outside [0, 1].

    Example:
        >>> import torch
        >>> entropy(torch.tensor([[[0.5, 1.0], [0.5, 0.0]]]))
        tensor([[[0.6931, 0.0000]]])
    """
    activation = _check_activation(probs, activation)
    return _entropy(_prepare(probs), activation).reshape(probs.shape[0], 1, *probs.shape[2:])


def sample_mean_uncertainty(probs: Tensor, activation: Activation | str = "softmax") -> Tensor:
    r"""Uncertainty from the mean probability of the predicted class, :math:`1 - 2 (s - 0.5)^2`.

    With ``"softmax"``, s is the largest mean probability, with ``"sigmoid"`` the mean probability of what is predicted
    in the channel that is least certain. The measure was made for two classes, where it grows as s falls from 1 to
    1/2. With more classes s can fall below 1/2, and the measure falls again: at s = 1/3 it is 0.944.

    Args:
        probs: mean probabilities of the members (B, C, ...).
        activation: ``"softmax"`` for exclusive classes (C at least 2), ``"sigmoid"`` for independent ones.

    Returns:
        Uncertainties (B, 1, ...) in [0.5, 1], 0.5 where the prediction is certain; float64 for float64 probabilities,
        else float32.

    Raises:
        ValueError: As :func:`entropy`.

    Example:
        >>> import torch
        >>> sample_mean_uncertainty(torch.tensor([[[0.5, 1.0], [0.5, 0.0]]]))
        tensor([[[1.0000, 0.5000]]])
    """
    activation = _check_activation(probs, activation)
    values = _prepare(probs)
    result = values.new_empty(values.shape[0], 1, values.shape[2])
    for part in _parts(values):
        if activation == Activation.SOFTMAX:
            margin = values[part].amax(1, keepdim=True) - 0.5
        else:
            margin = (values[part] - 0.5).abs_().amin(1, keepdim=True)
        result[part] = 1 - 2 * margin.square()
    return result.reshape(probs.shape[0], 1, *probs.shape[2:])


class PredictiveMoments:
    r"""What the members of a predictive distribution say together, gathered while they come one after the other.

    Of :math:`p_{tc}`, the probability of class c by member t of T, this keeps the mean over the members, the mean of
    their entropies and the summed squares of their deviations: C + 2 channels, whatever T is. With the mean
    :math:`\bar p_c` and the entropy H of :func:`entropy`, all of them maps (B, 1, ...):

    - predictive entropy :math:`H(\bar p)`, all uncertainty;
    - expected entropy :math:`\frac{1}{T} \sum_t H(p_t)`, the part that every member has (aleatoric);
    - mutual information, their difference, the part on which the members disagree (epistemic; Houlsby et al. 2011,
      https://arxiv.org/abs/1112.5745; Gal et al. 2017, https://arxiv.org/abs/1703.02910);
    - variance :math:`\frac{1}{C} \sum_c \frac{1}{T} \sum_t (p_{tc} - \bar p_c)^2`.

    The running updates (Welford 1962, https://doi.org/10.1080/00401706.1962.10490022) move the mean by differences, so
    that variance and mutual information of equal members are exactly 0. Averages are over probabilities, never over
    logits. NaN in a member's logits is NaN in every map at that voxel. Results are new plain float32 tensors on the
    device of the members, without gradient; the one exception is :meth:`logits` of a single member.

    Args:
        activation: ``"softmax"`` for exclusive classes, ``"sigmoid"`` for independent ones.

    Raises:
        ValueError: If ``activation`` is none of the two.

    Example:
        >>> import torch
        >>> moments = PredictiveMoments()
        >>> for member in (torch.tensor([[[0.0], [1e4]]]), torch.tensor([[[1e4], [0.0]]])):
        ...     _ = moments.update(member)
        >>> moments.mean.flatten().tolist(), moments.variance().item()
        ([0.5, 0.5], 0.25)
        >>> moments.expected_entropy(), moments.mutual_information()
        (tensor([[[0.]]]), tensor([[[0.6931]]]))
    """

    _shape: torch.Size
    _mean: Tensor

    def __init__(self, activation: Activation | str = "softmax") -> None:
        self.activation = Activation(activation)
        self._num_members = 0

    @property
    def num_members(self) -> int:
        """How many members were taken in."""
        return self._num_members

    @property
    def mean(self) -> Tensor:
        """Mean probabilities (B, C, ...), in [0, 1]; of a single member exactly its softmax or sigmoid.

        Raises:
            ValueError: If there is no member yet.
        """
        self._require_members()
        return self._mean.clone().reshape(self._shape)

    def update(self, logits: Tensor) -> Tensor:
        """Take in one member.

        Args:
            logits: logits (B, C, ...) of any floating-point dtype; half precision is computed in float32.

        Returns:
            The member's own probabilities (B, C, ...), float32, from which its labels follow.

        Raises:
            ValueError: If ``logits`` is not floating point (B, C, ...), has one channel with ``"softmax"``, or has
                not the shape of the members before.
        """
        _check_activation(logits, self.activation)
        self._allocate(logits.shape, logits.device)
        # Not part by part: the last bit of an exponential can depend on where the value lies in its tensor.
        probs = to_probabilities(plain(logits), self.activation == Activation.SIGMOID).float().reshape(self._mean.shape)
        for part in _parts(probs):
            self._combine(part, 1, probs[part], _entropy_of_part(probs[part], self.activation))
        self._num_members += 1
        self._only_logits = logits.detach() if self._num_members == 1 else None
        return probs.reshape(self._shape)

    def merge(self, other: PredictiveMoments) -> None:
        """Take in all members of ``other``, which stays as it is (Chan et al. 1979, Stanford CS-TR-79-773).

        Args:
            other: moments of other members of the same prediction, perhaps of none.

        Raises:
            ValueError: If the activations or the shapes of the members differ.
        """
        if other.activation != self.activation:
            raise ValueError(f"moments of a {other.activation} do not fit those of a {self.activation}.")
        if not other.num_members:
            return
        self._allocate(other._shape, other._mean.device)
        for part in _parts(other._mean):
            self._combine(part, other.num_members, other._mean[part], other._expected_entropy[part])
            self._squares[part] += other._squares[part]
        self._only_logits = None if self._num_members else other._only_logits
        self._num_members += other.num_members

    def predictive_entropy(self) -> Tensor:
        """Entropy of the mean probabilities (B, 1, ...) in nats, in [0, ln C] (sigmoid: [0, C ln 2]).

        Raises:
            ValueError: If there is no member yet.
        """
        self._require_members()
        return self._map(_entropy(self._mean, self.activation))

    def expected_entropy(self) -> Tensor:
        """Mean of the members' entropies (B, 1, ...) in nats, in [0, ln C] (sigmoid: [0, C ln 2]).

        Raises:
            ValueError: If there is no member yet.
        """
        self._require_members()
        return self._map(self._expected_entropy.clone())

    def mutual_information(self) -> Tensor:
        """Mutual information of prediction and member (B, 1, ...) in nats, in [0, predictive entropy].

        Raises:
            ValueError: If there is no member yet.
        """
        self._require_members()
        return self._map(_entropy(self._mean, self.activation).sub_(self._expected_entropy).clamp_min_(0))

    def variance(self) -> Tensor:
        """Variance over the members of each channel's probability, mean over channels (B, 1, ...), in [0, 0.25].

        It is the variance of the members at hand (divided by T, not by T - 1), 0 for a single one.

        Raises:
            ValueError: If there is no member yet.
        """
        self._require_members()
        return self._map((self._squares / (self._num_members * self._shape[1])).clamp_max_(0.25))

    def logits(self) -> Tensor:
        """Logits (B, C, ...) whose softmax or sigmoid is the mean probability, finite even where that is 0 or 1.

        Of a single member these are its own logits, the tensor that it gave, unchanged. Of several they are float32:
        the log of the mean, or the log-odds with ``"sigmoid"``, of means clamped to the smallest normal float32 and,
        with ``"sigmoid"``, to the largest below 1.

        Raises:
            ValueError: If there is no member yet.
        """
        self._require_members()
        if self._only_logits is not None:
            return self._only_logits
        limits = torch.finfo(torch.float32)
        mean = self._mean.clamp(limits.tiny, 1 - limits.eps / 2 if self.activation == Activation.SIGMOID else None)
        if self.activation == Activation.SIGMOID:
            return mean.log().sub_(mean.neg_().log1p_()).reshape(self._shape)
        return mean.log_().reshape(self._shape)

    def _allocate(self, shape: torch.Size, device: torch.device) -> None:
        if self._num_members:
            if shape != self._shape:
                raise ValueError(
                    f"members differ in shape: {tuple(shape)} after {tuple(self._shape)}; every member must give the "
                    "same classes on the same grid."
                )
            return
        self._shape = shape
        self._mean = torch.zeros(*shape[:2], shape[2:].numel(), device=device)
        self._squares = torch.zeros_like(self._mean[:, :1])
        self._expected_entropy = torch.zeros_like(self._squares)

    def _combine(self, part: _Part, members: int, mean: Tensor, expected_entropy: Tensor) -> None:
        total = self._num_members + members
        delta = mean - self._mean[part]
        self._mean[part].add_(delta, alpha=members / total)
        self._squares[part].add_(delta.square_().sum(1, keepdim=True), alpha=self._num_members * members / total)
        delta = expected_entropy - self._expected_entropy[part]
        self._expected_entropy[part].add_(delta, alpha=members / total)

    def _require_members(self) -> None:
        if not self._num_members:
            raise ValueError("there are no moments yet: call update with the logits of a member first.")

    def _map(self, values: Tensor) -> Tensor:
        return values.reshape(self._shape[0], 1, *self._shape[2:])
