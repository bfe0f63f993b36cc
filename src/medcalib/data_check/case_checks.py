"""Look at every case of a bundle's data."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from multiprocessing.pool import ThreadPool
from typing import Any, NamedTuple

from monai.bundle import ConfigParser
from monai.transforms import Compose
from tqdm import tqdm

from medcalib.data.cases import Case, Split
from medcalib.data.dataset_folders import incomplete_cases
from medcalib.data_check.case_summary import CaseSummary, summarize_case
from medcalib.data_check.problems import CaseInspector
from medcalib.functional import majority
from medcalib.keys import Activation, CaseKeys
from medcalib.transforms.regions import label_regions

__all__ = ["CheckedCases", "check_cases"]

NUM_THREADS = 4
# values of all cases together from which percentiles of the intensities are taken
POOLED_VALUES = 2_000_000
SAMPLED_VALUES = (200, 10_000)


class CheckedCases(NamedTuple):
    """What was found in the cases.

    Attributes:
        split: the cases by part.
        summaries: of every case, by its id.
        problems: one sentence each.
        damaged: ids of the cases with a problem.
        warnings: what the function that lists the cases had to say, one sentence each.
    """

    split: Split
    summaries: dict[str, CaseSummary]
    problems: list[str]
    damaged: set[str]
    warnings: list[str]

    @property
    def voxels(self) -> dict[str, int]:
        """Voxels of the image of every case that could be read, by its id."""
        return {case: math.prod(found.shape) for case, found in self.summaries.items() if found.shape is not None}

    def usable(self, cases: Sequence[Case]) -> list[Case]:
        """Those of the cases that have no problem."""
        return [case for case in cases if case[CaseKeys.CASE] not in self.damaged]


def check_cases(parser: ConfigParser) -> CheckedCases:
    """Read every case of the split and collect what is wrong.

    Args:
        parser: configuration of a training.

    Raises:
        UserError: there is no split.
    """
    with incomplete_cases(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        split = parser.get_parsed_content("split")
    cases_by_id = {str(case[CaseKeys.CASE]): case for cases in split.values() for case in cases}
    unique = [cases_by_id[case] for case in sorted(cases_by_id)]
    class_names = parser.get_parsed_content("data::class_names")
    preprocessing = parser.get_parsed_content("preprocessing")
    inspector = CaseInspector(
        parser.get_parsed_content("load_case"),
        parser.get_parsed_content("check_label"),
        label_regions(preprocessing),
        preprocessing,
        len(parser.get_parsed_content("data::patch_size")),
        _image_checks(preprocessing),
    )
    independent = parser.get_parsed_content("activation") == Activation.SIGMOID
    sample_size = min(max(POOLED_VALUES // len(unique), SAMPLED_VALUES[0]), SAMPLED_VALUES[1])

    def look(case: Mapping[str, Any]) -> tuple[CaseSummary, list[str]]:
        try:
            found = inspector(case)
        except Exception as error:  # whatever is wrong with one case, the others are looked at
            reason = str(error).strip().splitlines()
            nothing = summarize_case(None, None, len(class_names))
            return nothing, [
                f"Case {case[CaseKeys.CASE]}: it cannot be loaded ({reason[-1] if reason else type(error).__name__})."
            ]
        spacing = None if found.image is None else found.image.pixdim.tolist()[: found.image.ndim - 1]
        label = found.label
        if label is not None and label.is_floating_point():
            # of several raters, or a soft label
            label = majority(label, independent)
        summary = summarize_case(found.image, label, len(class_names), spacing, independent, sample_size)
        return summary, found.problems

    summaries, problems, damaged = {}, [], set()
    with ThreadPool(NUM_THREADS) as pool:
        bar = tqdm(pool.imap(look, unique), total=len(unique), desc="reading cases", unit="case", delay=2)
        for case, (summary, found) in zip(unique, bar, strict=True):
            summaries[str(case[CaseKeys.CASE])] = summary
            problems += found
            if found:
                damaged.add(case[CaseKeys.CASE])
    told = [str(one.message) for one in caught if one.category is UserWarning]
    return CheckedCases(split, summaries, problems, damaged, told)


def _image_checks(preprocessing: Compose) -> list[Callable]:
    """What a preprocessing asks of an image right after it is loaded."""
    _, *transforms = preprocessing.flatten().transforms
    first = takewhile(lambda transform: type(transform).__module__.startswith("medcalib."), transforms)
    return [transform for transform in first if CaseKeys.IMAGE in getattr(transform, "keys", ())]
