"""Hard cases of the phantom: how many, which, and what of a case changes."""

from collections import Counter

import numpy as np
import pytest

from medcalib.data.phantom.difficulty import Difficulty, case_difficulties, harder_model
from medcalib.data.phantom.volume_model import PhantomModel

SIZES = {"training": 20, "validation": 6, "test": 14}
SPOILT = [kind for kind in Difficulty if kind not in (Difficulty.NORMAL, Difficulty.MISSING_LESION)]
OF_SCAN = [kind for kind in SPOILT if kind is not Difficulty.VOXEL_SIZE]


def spoilt(kinds):
    return [kind for kind in kinds if kind in SPOILT]


def drawn(difficulty, index=0):
    model = PhantomModel(in_plane_size=(40, 40), num_slices=(32, 32))
    harder = harder_model(model, difficulty, 0, index)
    return harder, harder.draw(np.random.default_rng([0, index]), True)


class TestWhichCases:
    @pytest.mark.parametrize("seed", range(5))
    @pytest.mark.parametrize("share", [0, 0.2, 0.35, 0.5])
    def test_the_share_is_that_of_every_part(self, seed, share):
        for part, kinds in case_difficulties(SIZES, share, seed).items():
            assert len(kinds) == SIZES[part]
            assert len(spoilt(kinds)) == round(share * SIZES[part])

    def test_all_are_spoilt_but_those_without_lesion(self):
        kinds = case_difficulties(SIZES, 1, 0)["training"]
        assert [place for place, kind in enumerate(kinds) if kind is Difficulty.MISSING_LESION] == [7, 17]
        assert len(spoilt(kinds)) == 18

    def test_kinds_take_turns_over_all_parts(self):
        counts = Counter(kind for kinds in case_difficulties(SIZES, 0.35, 3).values() for kind in spoilt(kinds))
        assert set(counts) == set(SPOILT)
        assert max(counts.values()) - min(counts.values()) <= 1

    def test_the_seed_decides(self):
        assert case_difficulties(SIZES, 0.35, 0) == case_difficulties(SIZES, 0.35, 0)
        assert len({str(case_difficulties(SIZES, 0.35, seed)) for seed in range(5)}) == 5


class TestWhatChanges:
    @pytest.mark.parametrize("difficulty", [Difficulty.NORMAL, Difficulty.MISSING_LESION])
    def test_the_scan_of_others_is_as_ever(self, difficulty):
        assert harder_model(PhantomModel(), difficulty, 0, 0) == PhantomModel()

    @pytest.mark.parametrize("difficulty", OF_SCAN)
    def test_the_truth_stays_and_the_scan_changes(self, difficulty):
        """A label is drawn before the scan, of the same latent boundary."""
        (_, normal), (_, hard) = drawn(Difficulty.NORMAL), drawn(difficulty)
        np.testing.assert_array_equal(hard.label, normal.label)
        np.testing.assert_array_equal(hard.probability, normal.probability)
        assert np.mean(hard.image != normal.image) > 0.1

    @pytest.mark.parametrize("difficulty", SPOILT)
    def test_how_hard_a_case_is_varies(self, difficulty):
        assert len({str(harder_model(PhantomModel(), difficulty, 0, index)) for index in range(4)}) == 4

    def test_low_contrast(self):
        (_, normal), (_, hard) = drawn(Difficulty.NORMAL), drawn(Difficulty.LOW_CONTRAST)
        gaps = [
            volumes.image[volumes.label == 1].mean() - volumes.image[volumes.label == 0].mean()
            for volumes in (normal, hard)
        ]
        assert 0 < gaps[1] < 0.5 * gaps[0]

    def test_noise(self):
        (_, normal), (_, hard) = drawn(Difficulty.NORMAL), drawn(Difficulty.NOISE)
        spreads = [volumes.image[volumes.label == 1].std() for volumes in (normal, hard)]
        assert spreads[1] > 2 * spreads[0]

    def test_shifted_intensity(self):
        for index in range(6):
            (_, normal), (_, hard) = drawn(Difficulty.NORMAL, index), drawn(Difficulty.SHIFTED_INTENSITY, index)
            shifts = [hard.image[hard.label == k].mean() - normal.image[normal.label == k].mean() for k in range(3)]
            assert abs(shifts[0]) < 10
            assert min(abs(shifts[1]), abs(shifts[2])) > 30

    def test_ghosts_keep_the_mean_and_lie_where_the_organ_is_not(self):
        model = PhantomModel(in_plane_size=(40, 40), num_slices=(32, 32), noise_sd=0.0)
        ghostly = PhantomModel(in_plane_size=(40, 40), num_slices=(32, 32), noise_sd=0.0, ghost_share=0.5)
        plain, moved = (one.draw(np.random.default_rng(1), True) for one in (model, ghostly))
        assert moved.image.mean() == pytest.approx(plain.image.mean(), abs=0.1)
        air = plain.probability[..., 0] > 0.999
        assert moved.image[air].mean() > plain.image[air].mean() + 3

    def test_larger_voxels_show_the_same_body(self):
        normal = PhantomModel()
        for index in range(4):
            harder, volumes = drawn(Difficulty.VOXEL_SIZE, index)
            assert all(one > other for one, other in zip(harder.spacing, normal.spacing, strict=True))
            organ = np.sum(volumes.label > 0) * np.prod(harder.spacing)
            least, most = (4 / 3 * np.pi * radius**3 for radius in normal.organ_radius)
            assert 0.7 * least < organ < 1.4 * most
            extent = np.multiply(volumes.label.shape, harder.spacing)
            np.testing.assert_allclose(extent, (40, 40, 48), atol=3.5)
