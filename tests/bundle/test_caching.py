from tests.bundle.test_specification import workflow

from medcalib.bundle.layout import Mode


def test_preprocessing_is_cached_and_augmentation_is_not(trained, tiny):
    """The cache holds the result of every transform up to the last deterministic one."""
    made = workflow(trained, Mode.TRAIN, tiny)
    transforms = made.train_dataset.transform.transforms
    names = [type(transform).__name__ for transform in transforms]
    random = next(index for index, name in enumerate(names) if name.startswith("Rand"))
    assert names[:2] == ["LoadCased", "Orientationd"]
    assert names[random - 1] == "SpatialPadd"
    for dataset, number in ((made.train_dataset, 4), (made.val_dataset, 2)):
        assert len(dataset._cache) == number
        assert all(item["image"].ndim == 4 for item in dataset._cache)
