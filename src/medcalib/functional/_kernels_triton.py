"""The kernels of CUDA, which also run in Triton's interpreter.

A program takes one batch element's voxels in tiles of ``block`` lanes, and each lane keeps its own copy of the bins in
registers. No lane adds up more than a few hundred values in float32 before they are summed over lanes; sums over
programs are left to whoever starts the kernel, so nothing depends on the order in which programs end.

Of hard bins the sum of distances from an anchor inside the bin is kept instead of the sum of probabilities, so that
float32 rounds something small, and a count and a count of true voxels share one number, ``count + true * 32768``: a
lane's sum stays a whole number in float32 up to 2 ** 24, that of all lanes in int32.
"""

from __future__ import annotations

try:
    import triton
    import triton.language as tl

    _compiled, missing = triton.jit, None
except ImportError as error:  # whoever reads all modules, such as a test collector, reads this one without triton too
    missing = error

    def _compiled(kernel):  # noqa: ANN001, ANN202
        return kernel


__all__ = ["bin_backward", "bin_forward", "missing", "softmax_backward", "softmax_forward"]


@_compiled
def _hard_bin(p, table, num_bins: tl.constexpr, right: tl.constexpr):  # noqa: ANN001, ANN202
    """Return the bin as float32, which is compared with all bins in one instruction where whole numbers take two."""
    # Written so that NaN ends at 0, since the index reads memory. The outermost boundaries are infinite.
    position = p * num_bins
    position = tl.where(position > 0, position, 0.0)
    position = tl.where(position < num_bins - 1, position, num_bins - 1.0)
    k = position.to(tl.int32)
    low, high = tl.load(table + k), tl.load(table + k + 1)
    if right:
        return tl.floor(position) - (p < low).to(tl.float32) + (p >= high).to(tl.float32)
    return tl.floor(position) - (p <= low).to(tl.float32) + (p > high).to(tl.float32)


@_compiled
def _distance(p, k, table, num_bins: tl.constexpr):  # noqa: ANN001, ANN202
    """Return how far a probability lies above its bin's anchor, k times the width, which is rounded only once."""
    return tl.fma(k, -tl.load(table + num_bins + 1), p)


@_compiled
def _soft_bin(p, table, num_bins: tl.constexpr):  # noqa: ANN001, ANN202
    """Return the lower of the two nearest bins, the share of the one above it, and the inverse distance to it.

    Bins are float32, as in `_hard_bin`.
    """
    centres = table + 2 * (num_bins + 1)
    position = p * num_bins - 0.5
    position = tl.where(position > 0, position, 0.0)
    position = tl.where(position < num_bins - 2, position, max(num_bins - 2.0, 0.0))
    k = position.to(tl.int32)
    centre, step = tl.load(centres + k), tl.load(centres + num_bins + 1 + k)
    above = (p - centre) * step
    return tl.floor(position), tl.minimum(tl.maximum(above, 0.0), 1.0), step


@_compiled
def _spread(k, first, width: tl.constexpr):  # noqa: ANN001, ANN202
    """Return 1 in the row of each lane's bin and 0 in the others, (width, block)."""
    rows = (first + tl.arange(0, width)).to(tl.float32)
    return (k[None, :] == rows[:, None]).to(tl.float32)


@_compiled
def _spread_softly(k, above, first, width: tl.constexpr):  # noqa: ANN001, ANN202
    rows = (first + tl.arange(0, width)).to(tl.float32)[:, None]
    lower = k[None, :]
    return tl.where(lower == rows, 1.0 - above[None, :], tl.where(lower == rows - 1.0, above[None, :], 0.0))


@_compiled
def _store_packed(out, packed, rest, first, num_bins: tl.constexpr, width: tl.constexpr):  # noqa: ANN001, ANN202
    """Store count, sum of distances and count of true voxels of each bin."""
    k = first + tl.arange(0, width)
    both = tl.sum(packed.to(tl.int32), 1)
    true = both // 32768
    tl.store(out + k * 3, (both - true * 32768).to(tl.float32), mask=k < num_bins)
    tl.store(out + k * 3 + 1, tl.sum(rest, 1), mask=k < num_bins)
    tl.store(out + k * 3 + 2, true.to(tl.float32), mask=k < num_bins)


@_compiled
def _store_three(out, counts, rest, true, first, num_bins: tl.constexpr, width: tl.constexpr):  # noqa: ANN001, ANN202
    k = first + tl.arange(0, width)
    tl.store(out + k * 3, tl.sum(counts, 1), mask=k < num_bins)
    tl.store(out + k * 3 + 1, tl.sum(rest, 1), mask=k < num_bins)
    tl.store(out + k * 3 + 2, tl.sum(true, 1), mask=k < num_bins)


@_compiled
def bin_forward(  # noqa: ANN202
    probs,  # noqa: ANN001
    truth,  # noqa: ANN001
    mask,  # noqa: ANN001
    table,  # noqa: ANN001
    partial,  # noqa: ANN001
    voxels,  # noqa: ANN001
    parts,  # noqa: ANN001
    classes: tl.constexpr,
    first_class,  # noqa: ANN001
    num_bins: tl.constexpr,
    soft: tl.constexpr,
    right: tl.constexpr,
    use_labels: tl.constexpr,
    use_mask: tl.constexpr,
    wide: tl.constexpr,
    narrow: tl.constexpr,
    spare: tl.constexpr,
    block: tl.constexpr,
    steps: tl.constexpr,
    unroll: tl.constexpr,
    whole: tl.constexpr,
):
    # Rows and parts of a row share the one axis of the grid that takes more than 65,535 programs.
    program = tl.program_id(0).to(tl.int64)
    row, part = program // parts, program % parts
    case, class_ = row // classes, (row % classes).to(tl.int32) + first_class
    # Offsets within a program need 32 bits only, those of programs 64.
    begin = part * (steps * block)
    left = tl.minimum(voxels - begin, steps * block).to(tl.int32)
    probs += row * voxels + begin
    mask += case * voxels + begin
    truth += (case if use_labels else row) * voxels + begin
    for first in range(0, num_bins, wide + narrow):
        counts = tl.zeros([wide, block], tl.float32)
        rest = tl.zeros([wide, block], tl.float32)
        true = tl.zeros([wide, block], tl.float32)
        counts_2 = tl.zeros([spare, block], tl.float32)
        rest_2 = tl.zeros([spare, block], tl.float32)
        true_2 = tl.zeros([spare, block], tl.float32)
        for step in range(0, steps, unroll):
            for turn in tl.static_range(unroll):
                voxel = (step + turn) * block + tl.arange(0, block)
                if whole:
                    p, y = tl.load(probs + voxel).to(tl.float32), tl.load(truth + voxel)
                    keep = tl.full([block], 1, tl.int1)
                else:
                    keep = voxel < left
                    p = tl.load(probs + voxel, mask=keep, other=0.0).to(tl.float32)
                    y = tl.load(truth + voxel, mask=keep, other=0)
                t = (y == class_).to(tl.float32) if use_labels else y.to(tl.float32)
                # What is no probability makes its bins NaN; what does not count may be anything.
                p = tl.where(tl.abs(p - 0.5) <= 0.500001, p, float("nan"))
                if use_mask:
                    keep = keep & (tl.load(mask + voxel, mask=keep, other=0) != 0)
                    p, t = tl.where(keep, p, 0.0), tl.where(keep, t, 0.0)
                if soft:
                    k, above, _ = _soft_bin(p, table, num_bins)
                    if use_mask or not whole:
                        k = tl.where(keep, k, -2.0)
                    share = _spread_softly(k, above, first, wide)
                    counts += share
                    rest += share * p[None, :]
                    true += share * t[None, :]
                    if narrow > 0:
                        share = _spread_softly(k, above, first + wide, narrow)
                        counts_2 += share
                        rest_2 += share * p[None, :]
                        true_2 += share * t[None, :]
                else:
                    k = _hard_bin(p, table, num_bins, right)
                    distance = _distance(p, k, table, num_bins)
                    if use_mask or not whole:
                        k = tl.where(keep, k, -1.0)
                    share = _spread(k, first, wide)
                    rest += share * distance[None, :]
                    if use_labels:
                        counts += share * (1.0 + 32768.0 * t)[None, :]
                    else:
                        counts += share
                        true += share * t[None, :]
                    if narrow > 0:
                        share = _spread(k, first + wide, narrow)
                        rest_2 += share * distance[None, :]
                        if use_labels:
                            counts_2 += share * (1.0 + 32768.0 * t)[None, :]
                        else:
                            counts_2 += share
                            true_2 += share * t[None, :]
        out = partial + program * num_bins * 3
        if use_labels and not soft:
            _store_packed(out, counts, rest, first, num_bins, wide)
            if narrow > 0:
                _store_packed(out, counts_2, rest_2, first + wide, num_bins, narrow)
        else:
            _store_three(out, counts, rest, true, first, num_bins, wide)
            if narrow > 0:
                _store_three(out, counts_2, rest_2, true_2, first + wide, num_bins, narrow)


@_compiled
def _slopes(p, t, table, gaps, num_bins: tl.constexpr, soft: tl.constexpr, right: tl.constexpr):  # noqa: ANN001, ANN202
    """Return by how much the value moves with each probability through its bin.

    ``gaps`` points to the gradients of the bins' gaps and counts, (num_bins + 1, 2), of each lane's class.
    """
    if soft:
        lower, above, step = _soft_bin(p, table, num_bins)
        k = lower.to(tl.int32)
        centres = table + 2 * (num_bins + 1)
        here, there = tl.load(gaps + 2 * k), tl.load(gaps + 2 * k + 2)
        slope = there - here
        moved = slope * (p - t) + tl.load(gaps + 2 * k + 3) - tl.load(gaps + 2 * k + 1)
        between = (p > tl.load(centres)) & (p < tl.load(centres + num_bins - 1))
        return here + above * slope + tl.where(between, step, 0.0) * moved
    return tl.load(gaps + 2 * _hard_bin(p, table, num_bins, right).to(tl.int32))


@_compiled
def bin_backward(  # noqa: ANN202
    probs,  # noqa: ANN001
    truth,  # noqa: ANN001
    table,  # noqa: ANN001
    grad_bins,  # noqa: ANN001
    grad,  # noqa: ANN001
    voxels,  # noqa: ANN001
    parts,  # noqa: ANN001
    classes: tl.constexpr,
    first_class,  # noqa: ANN001
    num_bins: tl.constexpr,
    soft: tl.constexpr,
    right: tl.constexpr,
    use_labels: tl.constexpr,
    block: tl.constexpr,
):
    program = tl.program_id(0).to(tl.int64)
    row, part = program // parts, program % parts
    case, class_ = row // classes, row % classes
    voxel = part * block + tl.arange(0, block)
    keep = voxel < voxels
    p = tl.load(probs + row * voxels + voxel, mask=keep, other=0.0).to(tl.float32)
    if use_labels:
        label = tl.load(truth + case * voxels + voxel, mask=keep, other=0)
        t = (label == class_ + first_class).to(tl.float32)
    else:
        t = tl.load(truth + row * voxels + voxel, mask=keep, other=0).to(tl.float32)
    moved = _slopes(p, t, table, grad_bins + row * (num_bins + 1) * 2, num_bins, soft, right)
    tl.store(grad + row * voxels + voxel, moved.to(grad.dtype.element_ty), mask=keep)


@_compiled
def softmax_forward(  # noqa: ANN202
    logits,  # noqa: ANN001
    labels,  # noqa: ANN001
    table,  # noqa: ANN001
    norms,  # noqa: ANN001
    partial,  # noqa: ANN001
    partial_sums,  # noqa: ANN001
    voxels,  # noqa: ANN001
    parts,  # noqa: ANN001
    classes: tl.constexpr,
    num_bins: tl.constexpr,
    case_stride,  # noqa: ANN001
    class_stride,  # noqa: ANN001
    voxel_stride,  # noqa: ANN001
    soft: tl.constexpr,
    right: tl.constexpr,
    rows: tl.constexpr,
    wide: tl.constexpr,
    narrow: tl.constexpr,
    spare: tl.constexpr,
    block: tl.constexpr,
    steps: tl.constexpr,
    unroll: tl.constexpr,
):
    program = tl.program_id(0).to(tl.int64)
    case, part = program // parts, program % parts
    x_of_case, y_of_case = logits + case * case_stride, labels + case * voxels
    highest_of_case = norms + case * 2 * voxels
    total_of_case = highest_of_case + voxels
    row = tl.arange(0, rows)
    for step in range(steps):
        voxel = (part * steps + step) * block + tl.arange(0, block)
        keep = voxel < voxels
        highest = tl.full([block], float("-inf"), tl.float32)
        total = tl.zeros([block], tl.float32)
        for start in range(0, classes, rows):
            class_ = (start + row).to(tl.int64)
            x = tl.load(
                x_of_case + class_[:, None] * class_stride + voxel[None, :] * voxel_stride,
                mask=(class_ < classes)[:, None] & keep[None, :],
                other=float("-inf"),
            ).to(tl.float32)
            higher = tl.maximum(highest, tl.max(x, 0))
            # Classes of probability 0 have logits of minus infinity, whose difference is not a number.
            finite = tl.where(higher == float("-inf"), 0.0, higher)
            total = total * tl.exp(highest - finite) + tl.sum(tl.exp(x - finite[None, :]), 0)
            highest = higher
        label = tl.load(y_of_case + voxel, mask=keep, other=0)
        # A label that is no class makes everything of its voxel NaN, as logits do that are no numbers.
        total = tl.where((label >= 0) & (label < classes), total, float("nan"))
        tl.store(highest_of_case + voxel, highest, mask=keep)
        tl.store(total_of_case + voxel, total, mask=keep)
    tl.debug_barrier()
    for class_ in range(classes):
        x_of_class = x_of_case + (class_ + 0 * case) * class_stride  # in 64 bits, as case is
        for first in range(0, num_bins, wide + narrow):
            counts = tl.zeros([wide, block], tl.float32)
            rest = tl.zeros([wide, block], tl.float32)
            counts_2 = tl.zeros([spare, block], tl.float32)
            rest_2 = tl.zeros([spare, block], tl.float32)
            present = tl.zeros([block], tl.float32)
            power = tl.zeros([block], tl.float32)
            square = tl.zeros([block], tl.float32)
            overlap = tl.zeros([block], tl.float32)
            log_true = tl.zeros([block], tl.float32)
            for step in range(0, steps, unroll):
                for turn in tl.static_range(unroll):
                    voxel = (part * steps + step + turn) * block + tl.arange(0, block)
                    keep = voxel < voxels
                    x = tl.load(x_of_class + voxel * voxel_stride, mask=keep, other=0.0).to(tl.float32)
                    x -= tl.load(highest_of_case + voxel, mask=keep, other=0.0)
                    total = tl.load(total_of_case + voxel, mask=keep, other=1.0)
                    label = tl.load(y_of_case + voxel, mask=keep, other=0)
                    hit = (label.to(tl.int32) == class_) & keep
                    t = hit.to(tl.float32)
                    p = tl.where(keep, tl.math.div_rn(tl.exp(x), total), 0.0)
                    present += t
                    power += p
                    square += p * p
                    overlap += p * t
                    log_true += tl.where(hit, x - tl.log(total), 0.0)
                    if soft:
                        k, above, _ = _soft_bin(p, table, num_bins)
                        k = tl.where(keep, k, -2.0)
                        gap = p - t
                        share = _spread_softly(k, above, first, wide)
                        counts += share
                        rest += share * gap[None, :]
                        if narrow > 0:
                            share = _spread_softly(k, above, first + wide, narrow)
                            counts_2 += share
                            rest_2 += share * gap[None, :]
                    else:
                        k = _hard_bin(p, table, num_bins, right)
                        distance = _distance(p, k, table, num_bins)
                        k = tl.where(keep, k, -1.0)
                        packed = 1.0 + 32768.0 * t
                        share = _spread(k, first, wide)
                        counts += share * packed[None, :]
                        rest += share * distance[None, :]
                        if narrow > 0:
                            share = _spread(k, first + wide, narrow)
                            counts_2 += share * packed[None, :]
                            rest_2 += share * distance[None, :]
            out = partial + (program * classes + class_) * num_bins * 3
            if soft:
                _store_three(out, counts, rest, tl.zeros_like(rest), first, num_bins, wide)
                if narrow > 0:
                    _store_three(out, counts_2, rest_2, tl.zeros_like(rest_2), first + wide, num_bins, narrow)
            else:
                _store_packed(out, counts, rest, first, num_bins, wide)
                if narrow > 0:
                    _store_packed(out, counts_2, rest_2, first + wide, num_bins, narrow)
            sums = partial_sums + (program * classes + class_) * 5
            tl.store(sums, tl.sum(present, 0))
            tl.store(sums + 1, tl.sum(power, 0))
            tl.store(sums + 2, tl.sum(square, 0))
            tl.store(sums + 3, tl.sum(overlap, 0))
            tl.store(sums + 4, tl.sum(log_true, 0))


@_compiled
def _softmax_slopes(  # noqa: ANN202
    x_of_case,  # noqa: ANN001
    class_,  # noqa: ANN001
    voxel,  # noqa: ANN001
    keep,  # noqa: ANN001
    highest,  # noqa: ANN001
    total,  # noqa: ANN001
    label,  # noqa: ANN001
    table,  # noqa: ANN001
    bins_of_case,  # noqa: ANN001
    sums_of_case,  # noqa: ANN001
    num_bins: tl.constexpr,
    class_stride,  # noqa: ANN001
    voxel_stride,  # noqa: ANN001
    soft: tl.constexpr,
    right: tl.constexpr,
):
    """Return the softmax of some classes and by how much the value moves with it, (class, voxel)."""
    x = tl.load(x_of_case + class_[:, None] * class_stride + voxel[None, :] * voxel_stride, mask=keep, other=0.0)
    p = tl.math.div_rn(tl.exp(x.to(tl.float32) - highest[None, :]), total[None, :])
    p = tl.where(keep, p, 0.0)
    t = (label[None, :] == class_[:, None]).to(tl.float32)
    # A lane past the last class reads the first one's gradients, and its p is 0.
    safe = tl.where(keep, class_[:, None], 0)
    moved = _slopes(p, t, table, bins_of_case + safe * (num_bins + 1) * 2, num_bins, soft, right)
    sums = sums_of_case + safe * 5
    moved += tl.load(sums + 1) + 2.0 * tl.load(sums + 2) * p + tl.load(sums + 3) * t
    return p, moved


@_compiled
def softmax_backward(  # noqa: ANN202
    logits,  # noqa: ANN001
    labels,  # noqa: ANN001
    table,  # noqa: ANN001
    norms,  # noqa: ANN001
    grad_bins,  # noqa: ANN001
    grad_sums,  # noqa: ANN001
    grad,  # noqa: ANN001
    voxels,  # noqa: ANN001
    parts,  # noqa: ANN001
    classes: tl.constexpr,
    num_bins: tl.constexpr,
    case_stride,  # noqa: ANN001
    class_stride,  # noqa: ANN001
    voxel_stride,  # noqa: ANN001
    grad_case_stride,  # noqa: ANN001
    grad_class_stride,  # noqa: ANN001
    grad_voxel_stride,  # noqa: ANN001
    soft: tl.constexpr,
    right: tl.constexpr,
    rows: tl.constexpr,
    at_once: tl.constexpr,
    block: tl.constexpr,
):
    program = tl.program_id(0).to(tl.int64)
    case, part = program // parts, program % parts
    x_of_case, grad_of_case = logits + case * case_stride, grad + case * grad_case_stride
    bins_of_case = grad_bins + case * classes * (num_bins + 1) * 2
    sums_of_case = grad_sums + case * classes * 5
    voxel = part * block + tl.arange(0, block)
    inside = voxel < voxels
    highest = tl.load(norms + case * 2 * voxels + voxel, mask=inside, other=0.0)
    total = tl.load(norms + (case * 2 + 1) * voxels + voxel, mask=inside, other=1.0)
    label = tl.load(labels + case * voxels + voxel, mask=inside, other=0).to(tl.int32)
    known = inside & (label >= 0) & (label < classes)
    weight = tl.load(sums_of_case + label * 5 + 4, mask=known, other=0.0)
    mean = weight
    for start in range(0, classes, rows):
        class_ = (start + tl.arange(0, rows)).to(tl.int64)
        keep = (class_ < classes)[:, None] & inside[None, :]
        p, moved = _softmax_slopes(
            x_of_case,
            class_,
            voxel,
            keep,
            highest,
            total,
            label,
            table,
            bins_of_case,
            sums_of_case,
            num_bins,
            class_stride,
            voxel_stride,
            soft,
            right,
        )
        mean += tl.sum(p * moved, 0)
        if at_once:
            hit = tl.where(label[None, :] == class_[:, None], weight[None, :], 0.0)
            value = p * (moved - mean[None, :]) + hit
            out = grad_of_case + class_[:, None] * grad_class_stride + voxel[None, :] * grad_voxel_stride
            tl.store(out, value.to(grad.dtype.element_ty), mask=keep)
    if not at_once:
        for start in range(0, classes, rows):
            class_ = (start + tl.arange(0, rows)).to(tl.int64)
            keep = (class_ < classes)[:, None] & inside[None, :]
            p, moved = _softmax_slopes(
                x_of_case,
                class_,
                voxel,
                keep,
                highest,
                total,
                label,
                table,
                bins_of_case,
                sums_of_case,
                num_bins,
                class_stride,
                voxel_stride,
                soft,
                right,
            )
            hit = tl.where(label[None, :] == class_[:, None], weight[None, :], 0.0)
            value = p * (moved - mean[None, :]) + hit
            out = grad_of_case + class_[:, None] * grad_class_stride + voxel[None, :] * grad_voxel_stride
            tl.store(out, value.to(grad.dtype.element_ty), mask=keep)
