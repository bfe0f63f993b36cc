"""Logits: their temperature, their log-odds, and the decisions that a map of them keeps.

Everything here also compiles under ``torch.jit.script``.
"""

import torch
from torch import Tensor

__all__ = ["keep_decisions", "log_odds", "scale_temperature"]


def scale_temperature(logits: Tensor, log_temperature: Tensor) -> Tensor:
    r"""Divide logits by a temperature, :math:`z / e^t` (Guo et al. 2017, https://arxiv.org/abs/1706.04599).

    A positive temperature moves no decision: the order of the classes of a voxel stays.

    Args:
        logits: (B, C, ...).
        log_temperature: its natural logarithm, of a shape that broadcasts: () for one temperature, (B, 1, ...) for one
            per voxel. Any finite value is valid; 0 changes nothing, bit for bit.

    Returns:
        Logits (B, C, ...).

    Example:
        >>> import math, torch
        >>> scale_temperature(torch.tensor([[4.0, -2.0]]), torch.tensor(math.log(2)))
        tensor([[ 2., -1.]])
    """
    return logits / log_temperature.exp()


def log_odds(logits: Tensor) -> Tensor:
    r"""Log-odds of each of several exclusive classes against all others together.

    :math:`z_c - \ln \sum_{j \neq c} e^{z_j}`, exact to rounding also where a class is all but certain.

    Args:
        logits: finite floating-point logits (B, C, ...), C at least 2; a constant added to all classes changes
            nothing.

    Returns:
        Log-odds (B, C, ...), finite; their sigmoid is the softmax of the logits.

    Raises:
        ValueError: If there is a single class.

    Example:
        >>> import torch
        >>> log_odds(torch.tensor([[5.0, 3.0]]))
        tensor([[ 2., -2.]])
    """
    if logits.shape[1] < 2:
        raise ValueError("log_odds needs at least 2 classes; the logit of a single channel is its log-odds.")
    log_probs = logits.log_softmax(1)
    # 1 - p is exact up to p = 1/2; of the one class above, it is the sum of the others.
    classes = torch.arange(logits.shape[1], device=logits.device).reshape([1, -1] + [1] * (logits.dim() - 2))
    top = classes == log_probs.argmax(1, keepdim=True)
    others = log_probs.masked_fill(top, -float("inf")).logsumexp(1, keepdim=True)
    return log_probs - torch.where(top, others, torch.log1p(-log_probs.masked_fill(top, -1.0).exp()))


def keep_decisions(calibrated: Tensor, logits: Tensor, sigmoid: bool = False, margin: float = 1e-3) -> Tensor:
    r"""Move calibrated logits as little as possible so that they decide as the logits that were calibrated.

    With softmax the decision is the class with the highest logit. Where it moved away from class k, the result is the
    distribution q closest to the calibrated one p (in the Kullback-Leibler divergence :math:`KL(p \| q)` and in the
    Euclidean distance alike) among those in which k leads:
    :math:`q_k = v, q_j = \min(p_j, v)`, where :math:`v` is the mean probability of k and of the classes that overtook
    it. With sigmoid the decision of a channel is whether its logit is at least 0; where it moved, the logit becomes 0.
    In both cases the kept decision then leads by ``margin``, so that rounding does not undo it. Where no decision
    moved, nothing is changed.

    Args:
        calibrated: calibrated logits (B, C, ...), float32 or float64.
        logits: logits (B, C, ...) that were calibrated.
        sigmoid: every channel is a binary problem of its own, instead of exclusive classes.
        margin: by how much a kept decision leads, in nats; float32 and half-precision probabilities show the default.

    Returns:
        Logits (B, C, ...).

    Example:
        >>> import torch
        >>> logits, calibrated = torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([[0.2, 0.5, 0.3]]).log()
        >>> keep_decisions(calibrated, logits).softmax(1)
        tensor([[0.3501, 0.3498, 0.3001]])
    """
    if sigmoid:
        kept = torch.where(logits >= 0, calibrated.clamp(min=margin), calibrated.clamp(max=-margin))
        return torch.where((calibrated >= 0) == (logits >= 0), calibrated, kept)
    decision = logits.argmax(1, keepdim=True)
    moved = calibrated.argmax(1, keepdim=True) != decision
    log_probs = calibrated.log_softmax(1)
    own = log_probs.gather(1, decision)
    others = log_probs.scatter(1, decision, -float("inf")).sort(1, descending=True)[0]
    # Mean probability of the decision and its 0, 1, ... strongest rivals: the projection is the largest of these.
    sizes = torch.arange(1, logits.shape[1] + 1, device=logits.device, dtype=log_probs.dtype)
    sizes = sizes.reshape([1, -1] + [1] * (logits.dim() - 2))
    pooled = torch.cat([own, others[:, :-1]], 1).logcumsumexp(1) - sizes.log()
    level = pooled.amax(1, keepdim=True)
    projected = torch.minimum(log_probs, level - margin).scatter(1, decision, level)
    return torch.where(moved, projected, calibrated)
