import numpy as np
import pytest
from scipy import ndimage, stats

from medcalib.data.phantom.volume_model import PhantomModel, gaussian_random_field


@pytest.fixture(scope="module")
def volumes():
    return [PhantomModel().draw(np.random.default_rng(number), with_lesion=True) for number in range(8)]


def dice(one, other):
    return 2 * np.sum(one & other) / (np.sum(one) + np.sum(other))


class TestGaussianRandomField:
    def test_every_voxel_is_standard_normal(self):
        rng = np.random.default_rng(1)
        fields = np.stack([gaussian_random_field(rng, (6, 5, 4), [1.5, 0.7, 1.0]) for _ in range(4000)])
        assert np.allclose(fields.mean(0), 0, atol=5 / np.sqrt(4000))
        assert np.allclose(fields.var(0), 1, atol=5 * np.sqrt(2 / 4000))
        for voxel in ((0, 0, 0), (3, 2, 1)):
            assert stats.kstest(fields[(slice(None), *voxel)], "norm").pvalue > 1e-3

    def test_correlation_is_that_of_a_smoothed_field(self):
        rng = np.random.default_rng(2)
        fields = np.stack([gaussian_random_field(rng, (64,), [2.0]) for _ in range(4000)])
        for lag in (1, 3, 6):
            measured = np.mean(fields * np.roll(fields, lag, axis=1))
            assert measured == pytest.approx(np.exp(-(lag**2) / (4 * 2.0**2)), abs=0.02)


class TestDraw:
    def test_shapes_and_types(self, volumes):
        model = PhantomModel()
        for drawn in volumes:
            assert drawn.image.shape == drawn.label.shape == drawn.probability.shape[:3]
            assert drawn.probability.shape[3] == 3
            assert (drawn.image.dtype, drawn.label.dtype, drawn.probability.dtype) == (np.int16, np.uint8, np.float32)
            for size in drawn.label.shape[:2]:
                assert model.in_plane_size[0] <= size <= model.in_plane_size[1]
            assert model.num_slices[0] <= drawn.label.shape[2] <= model.num_slices[1]
        assert len({drawn.label.shape for drawn in volumes}) > 4

    def test_probabilities_are_a_distribution(self, volumes):
        for drawn in volumes:
            assert drawn.probability.min() >= 0
            np.testing.assert_allclose(drawn.probability.sum(-1), 1, atol=2e-7)

    def test_all_classes_lie_inside_the_volume(self, volumes):
        for drawn in volumes:
            assert set(np.unique(drawn.label)) == {0, 1, 2}
            for axis in range(3):
                border = np.take(drawn.label, [0, -1], axis=axis)
                assert np.mean(border == 0) > 0.97

    def test_one_organ_and_one_lesion_but_for_specks(self, volumes):
        for drawn in volumes:
            for structure in (drawn.label > 0, drawn.label == 2):
                components, _ = ndimage.label(structure)
                assert np.bincount(components[structure]).max() > 0.99 * structure.sum()

    def test_no_lesion_means_none_anywhere(self):
        drawn = PhantomModel().draw(np.random.default_rng(3), with_lesion=False)
        assert not np.any(drawn.label == 2)
        assert not np.any(drawn.probability[..., 2])
        assert np.all(np.isfinite(drawn.probability))

    def test_annotators_disagree_about_as_much_as_people_do(self, volumes):
        """The best possible segmentation scores high, but not perfectly, against the drawn label."""
        for structure in (1, 2):
            scores = [dice(drawn.probability.argmax(-1) == structure, drawn.label == structure) for drawn in volumes]
            assert 0.91 < np.mean(scores) < 0.96

    def test_tissues_can_be_told_apart(self, volumes):
        for drawn in volumes:
            means = [drawn.image[drawn.label == structure].mean() for structure in range(3)]
            spreads = [drawn.image[drawn.label == structure].std() for structure in range(3)]
            assert means[1] - means[0] > max(spreads)
            assert means[2] - means[1] > max(spreads)

    def test_a_wider_spread_of_annotators_blurs_the_boundary(self):
        narrow, wide = (
            PhantomModel(organ_annotator_sd=sd).draw(np.random.default_rng(4), True).probability[..., 1]
            for sd in (0.5, 1.5)
        )
        undecided = [np.mean((organ > 0.1) & (organ < 0.9)) for organ in (narrow, wide)]
        assert undecided[1] > 2 * undecided[0]

    def test_the_scan_does_not_show_the_annotator(self):
        """Given the latent shape, image and label are independent: the image must not leak the drawn contour."""
        tight, loose = (
            PhantomModel(organ_annotator_sd=sd, lesion_annotator_sd=sd).draw(np.random.default_rng(5), True)
            for sd in (0.4, 1.2)
        )
        np.testing.assert_array_equal(tight.image, loose.image)
        assert np.any(tight.label != loose.label)
