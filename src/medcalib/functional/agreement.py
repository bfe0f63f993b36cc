"""Agreement of the members' segmentations: how large each is, and how far any two overlap."""

from __future__ import annotations

import torch
from torch import Tensor

from medcalib.functional.inputs import plain, prepare_labels

__all__ = ["aula", "mean_pairwise_dice", "member_agreement", "pairwise_dice"]

# Labels of all members compared at a time: the only floating-point copy of the masks is of this size, and float32
# counts it exactly.
_PART = 1 << 19


def member_agreement(labels: Tensor, num_classes: int, weight: Tensor | None = None) -> Tensor:
    """Count the voxels to which two members give the same class, for every class and any two members.

    The result adds up over windows, cases or ranks: Dice, pairwise Dice and AULA of the whole follow from the sum.

    Args:
        labels: label maps of the members (M, ...), whole numbers; or, for overlapping classes, boolean masks
            (M, C, ...). Booleans are always masks.
        num_classes: number of classes C, background among them.
        weight: optional weight of each voxel, of the shape (...) that follows M or M, C: 0 leaves a voxel out.

    Returns:
        Weights (C, M, M), float64: entry [c, i, j] of voxels that members i and j both give class c; the diagonal
        holds the sizes.

    Raises:
        ValueError: If there is no member, if a label is not a whole number or outside the classes, or if shapes do not
            fit.

    Example:
        >>> import torch
        >>> member_agreement(torch.tensor([[0, 1, 1], [0, 0, 1]]), num_classes=2)[1]
        tensor([[2., 1.],
                [1., 1.]], dtype=torch.float64)
    """
    masks = labels.dtype == torch.bool
    if labels.ndim < 1 + masks or labels.shape[0] < 1 or (masks and labels.shape[1] != num_classes):
        raise ValueError(
            f"labels must be label maps (M, ...) or boolean masks (M, {num_classes}, ...) of at least one member, got "
            f"{labels.dtype} of shape {tuple(labels.shape)}."
        )
    grid = labels.shape[1 + masks :]
    if weight is not None:
        if weight.shape != grid:
            raise ValueError(f"weight must have shape {tuple(grid)} to fit labels, got {tuple(weight.shape)}.")
        weight = plain(weight).reshape(-1).double()
    if not masks:
        return _agreement(prepare_labels(labels, num_classes), num_classes, weight)
    flat = plain(labels).reshape(*labels.shape[:2], -1).view(torch.uint8)
    return torch.cat([_agreement(flat[:, c], 2, weight)[1:] for c in range(num_classes)])


def _agreement(labels: Tensor, num_classes: int, weight: Tensor | None) -> Tensor:
    members, voxels = labels.shape
    result = torch.zeros(num_classes, members, members, dtype=torch.float64, device=labels.device)
    size = max(_PART // members, 1)
    for start in range(0, voxels, size):
        part = labels[:, start : start + size]
        weights = None if weight is None else weight[start : start + size]
        # Nearly everywhere all members agree: one count serves all pairs, and only what is left is compared.
        same = (part == part[0]).all(0)
        if weights is None:
            agreed = torch.bincount(part[0, same], minlength=num_classes)
        else:
            # Unlike a weighted bincount, this has a deterministic version on CUDA.
            agreed = result.new_zeros(num_classes).index_add_(0, part[0, same].int(), weights[same])
        result += agreed[:, None, None]
        rest = part[:, ~same]
        for c in rest.unique().tolist():
            member = (rest == c).to(torch.float32 if weights is None else torch.float64)
            result[c] += (member if weights is None else member * weights[~same]) @ member.T
    return result


def pairwise_dice(agreement: Tensor) -> Tensor:
    r"""Dice of any two members, :math:`2 G_{ij} / (G_{ii} + G_{jj})`.

    Args:
        agreement: weights (C, M, M) of :func:`member_agreement`.

    Returns:
        Dice (C, M, M), float64, in [0, 1]; NaN where both members lack the class.

    Raises:
        ValueError: If ``agreement`` is not of shape (C, M, M).

    Example:
        >>> import torch
        >>> pairwise_dice(member_agreement(torch.tensor([[0, 1, 1], [0, 0, 1]]), num_classes=2))[1, 0]
        tensor([1.0000, 0.6667], dtype=torch.float64)
    """
    if agreement.ndim != 3 or agreement.shape[1] != agreement.shape[2]:
        raise ValueError(f"agreement must have shape (C, M, M), got {tuple(agreement.shape)}.")
    size = agreement.diagonal(dim1=1, dim2=2)
    return 2 * agreement / (size[:, :, None] + size[:, None, :])


def mean_pairwise_dice(agreement: Tensor) -> Tensor:
    """Mean Dice over all pairs of different members (Roy et al. 2019, https://doi.org/10.1016/j.neuroimage.2019.03.042).

    Args:
        agreement: weights (C, M, M) of :func:`member_agreement`.

    Returns:
        Values (C,), float64, in [0, 1]; higher means that the members agree. Pairs that both lack the class are left
        out; NaN where no pair is left, as for a single member.

    Raises:
        ValueError: If ``agreement`` is not of shape (C, M, M).

    Example:
        >>> import torch
        >>> labels = torch.tensor([[0, 1, 1], [0, 0, 1], [0, 0, 1]])
        >>> mean_pairwise_dice(member_agreement(labels, num_classes=2))[1]
        tensor(0.7778, dtype=torch.float64)
    """
    dice = pairwise_dice(agreement)
    first, second = torch.triu_indices(dice.shape[1], dice.shape[2], offset=1, device=dice.device)
    return dice[:, first, second].nanmean(1)


def aula(agreement: Tensor, normalized: bool = False) -> Tensor:
    r"""Area under layer agreement: minus the area under the Dice of adjacent members (https://arxiv.org/abs/2203.08878).

    With :math:`D_j` the Dice of members j and j + 1, the heads of a layer ensemble in order of depth, it is the
    trapezoidal sum with steps of 1 over the M - 1 pairs:

    .. math::
        -\sum_{j=1}^{M-2} \frac{D_j + D_{j+1}}{2}

    Its range grows with the number of heads; ``normalized`` divides by M - 2, so that ensembles that skip a different
    number of heads can be compared. A pair of which both lack the class agrees, D = 1, where other members have it.

    Args:
        agreement: weights (C, M, M) of :func:`member_agreement`, the members in order.
        normalized: divide by the largest possible area.

    Returns:
        Values (C,), float64, in [-(M - 2), 0] or, normalized, in [-1, 0]; higher means less agreement, that is more
        uncertainty. NaN for classes that no member has, and for fewer than three members: one pair spans no area, so
        that it would be 0 for any masks; take :func:`mean_pairwise_dice` for two.

    Raises:
        ValueError: If ``agreement`` is not of shape (C, M, M).

    Example:
        >>> import torch
        >>> labels = torch.tensor([[0, 1, 1], [0, 0, 1], [0, 0, 1]])
        >>> aula(member_agreement(labels, num_classes=2))[1]
        tensor(-0.8333, dtype=torch.float64)
    """
    adjacent = pairwise_dice(agreement).diagonal(offset=1, dim1=1, dim2=2)
    pairs = adjacent.shape[1]
    if pairs < 2:
        return adjacent.new_full(adjacent.shape[:1], torch.nan)
    present = agreement.diagonal(dim1=1, dim2=2).sum(1, keepdim=True) > 0
    adjacent = torch.where(present & adjacent.isnan(), 1.0, adjacent)
    area = -torch.trapezoid(adjacent, dim=1)
    return area / (pairs - 1) if normalized else area
