"""Folders of predictions: every layout, and everything that can be wrong with one."""

import json

import nibabel as nib
import numpy as np
import pytest
import torch
from tests.predictions.predictions_on_disk import (
    AFFINE,
    CASES,
    SHAPE,
    independent,
    labels,
    logits,
    probabilities,
    save,
    write_archives,
    write_channels,
    write_labels,
    write_volumes,
)

from medcalib.errors import UserError
from medcalib.image_files.volumes_in_files import open_volume
from medcalib.predictions import PredictionFolder, read_case_list
from medcalib.predictions.nnunet import Plans, read_probabilities, write_probabilities

CASE = "case_1"


@pytest.fixture(scope="module")
def labels_dir(tmp_path_factory):
    return write_labels(tmp_path_factory.mktemp("labels"))


def read(root, labels_dir, kind="probabilities", case=CASE, **options):
    return PredictionFolder(root, labels_dir, kind, **options).read(case)


def write_vectors(root):
    """A vector image of ITK: five axes."""
    save(root / f"{CASE}_prob.nii.gz", np.moveaxis(probabilities(CASE), 0, -1)[:, :, :, None])
    return root


LAYOUTS = {
    "one volume": write_volumes,
    "its plain name": lambda root: write_volumes(root, name="{}.nii.gz"),
    "not compressed": lambda root: write_volumes(root, name="{}_prob.nii"),
    "a folder of the case, as a bundle predicts": lambda root: write_volumes(root, name="{0}/{0}_prob.nii.gz"),
    "a volume per class": write_channels,
    "numbers with zeros in front": lambda root: write_channels(root, name="{}_{:04d}.nii"),
    "a vector image": write_vectors,
    "an archive of nnU-Net": write_archives,
    "an archive without segmentation": lambda root: write_archives(root, with_segmentation=False),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_probabilities(layout, tmp_path, labels_dir):
    predicted = read(LAYOUTS[layout](tmp_path / "p"), labels_dir)
    np.testing.assert_allclose(predicted.logits.softmax(1)[0], probabilities(CASE), atol=1e-6)
    np.testing.assert_array_equal(predicted.labels[0, 0], labels(CASE))
    assert predicted.logits.dtype == torch.float32
    np.testing.assert_allclose(predicted.geometry.affine, AFFINE)


@pytest.mark.parametrize("write", [write_volumes, write_channels])
def test_logits_are_read_bit_for_bit(write, tmp_path, labels_dir):
    predicted = read(write(tmp_path / "p", values=logits), labels_dir, "logits")
    np.testing.assert_array_equal(predicted.logits[0], logits(CASE))


def test_half_precision_is_taken(tmp_path, labels_dir):
    """nnU-Net stored float16 for some time; the sum over the classes is then not quite 1."""
    predicted = read(write_archives(tmp_path / "p", dtype=np.float16), labels_dir)
    np.testing.assert_allclose(predicted.logits.softmax(1)[0], probabilities(CASE), atol=2e-3)


def turned(channel):
    """A volume of the file with its axes right, anterior and superior."""
    return nib.Nifti1Image(channel, AFFINE).as_reoriented(nib.io_orientation(AFFINE)).get_fdata()


def write_turned(root, reader, cases=CASES, values=probabilities, with_segmentation=True):
    """Archives of a reader of nnU-Net that turns the axes, and the plans that name it."""
    write_archives(root, cases, values=values)
    for case in cases:
        array = np.stack([turned(channel) for channel in values(case)]).transpose(0, 3, 2, 1)
        np.savez(root / f"{case}.npz", probabilities=array.astype(np.float32))
        if not with_segmentation:
            (root / f"{case}.nii.gz").unlink()
    (root / "plans.json").write_text(json.dumps({"image_reader_writer": reader}))
    return root


TURNING = ["NibabelIOWithReorient", "SimpleITKIOWithReorient"]


@pytest.mark.parametrize("with_segmentation", [True, False])
@pytest.mark.parametrize("values", [probabilities, independent])
@pytest.mark.parametrize("reader", TURNING)
def test_a_reader_that_turns_the_axes(reader, values, with_segmentation, tmp_path, labels_dir):
    """The archive is in RAS, while segmentation and label are as in the file."""
    activation = "softmax" if values is probabilities else "sigmoid"
    root = write_turned(tmp_path / "p", reader, values=values, with_segmentation=with_segmentation)
    if activation == "sigmoid" and with_segmentation:
        save(root / f"{CASE}.nii.gz", (independent(CASE) > 0.5).any(0).astype(np.uint8))
    logits = read(root, labels_dir, activation=activation).logits
    probs = logits.softmax(1) if activation == "softmax" else logits.sigmoid()
    np.testing.assert_allclose(probs[0], values(CASE), atol=1e-6)


@pytest.mark.parametrize("reader", [*TURNING, "SimpleITKIO", "NibabelIO"])
def test_an_archive_is_written_as_nnunet_has_it(reader, tmp_path, labels_dir):
    """The other way round, on axes that point in any direction, of different lengths and voxel sizes."""
    plain = [np.asarray(channel) for channel in probabilities(CASE)]
    volumes = [turned(channel) for channel in plain] if reader in TURNING else plain
    expected = np.stack(volumes).transpose(0, 3, 2, 1)
    grid = open_volume(labels_dir / f"{CASE}.nii.gz").grid
    plans = Plans(tmp_path, reader)
    write_probabilities(tmp_path / "a.npz", probabilities(CASE), grid, plans)
    with np.load(tmp_path / "a.npz") as arrays:
        assert arrays.files == ["probabilities"]
        np.testing.assert_array_equal(arrays["probabilities"], expected)
        assert arrays["probabilities"].dtype == np.float32
    np.testing.assert_array_equal(read_probabilities(tmp_path / "a.npz", grid, CASE, plans), probabilities(CASE))


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_what_nnunet_puts_around_its_crop_is_no_prediction(activation, tmp_path, labels_dir):
    channels = np.zeros((2, *labels(CASE).shape), np.float32)
    box = (slice(2, 6), slice(0, 6), slice(1, 3))
    channels[:, *box] = probabilities(CASE, 2)[:, *box] if activation == "softmax" else independent(CASE)[:, *box]
    if activation == "softmax":
        channels[0] = 1 - channels[1]
        # certain inside of the crop is a prediction
        channels[:, 3, 3, 1] = 1, 0
    np.savez(tmp_path / f"{CASE}.npz", probabilities=channels.transpose(0, 3, 2, 1))
    label = np.where(labels(CASE) > 1, 1, labels(CASE))
    save(tmp_path / "labels" / f"{CASE}.nii.gz", label)
    predicted = read(tmp_path, tmp_path / "labels", activation=activation)
    assert predicted.box == box
    part = predicted.calibration_case()
    assert part.logits.shape == (1, 2, 4, 6, 2)
    np.testing.assert_array_equal(part.logits, predicted.logits[:, :, *box])
    np.testing.assert_array_equal(part.labels[0, 0], label[box] if activation == "softmax" else label[box] == 1)


@pytest.mark.parametrize("write", [write_volumes, write_archives])
def test_a_prediction_of_the_whole_volume_counts_as_a_whole(write, tmp_path, labels_dir):
    predicted = read(write(tmp_path), labels_dir)
    assert predicted.box is None
    assert predicted.calibration_case().logits.shape == predicted.logits.shape


def test_where_nnunet_puts_its_plans(tmp_path, labels_dir):
    """Beside predictions, or two folders above those of the validation cases; others must be given."""
    root = write_turned(tmp_path / "model" / "fold_0" / "validation", TURNING[1])
    plans = root / "plans.json"
    told = plans.read_text()
    plans.unlink()
    with pytest.raises(UserError, match=r"shape \(3, 5, 7, 6\) .* which does not fit .*of the training as plans_file"):
        read(root, labels_dir)
    for folder in (root, root.parent, root.parent.parent):
        (folder / "plans.json").write_text(told)
        np.testing.assert_allclose(read(root, labels_dir).logits.softmax(1)[0], probabilities(CASE), atol=1e-6)
        (folder / "plans.json").write_text("[]")
        with pytest.raises(UserError, match="is not the plans.json of nnU-Net" if folder == root else "does not fit"):
            read(root, labels_dir)
        (folder / "plans.json").unlink()
    (tmp_path / "elsewhere.json").write_text(told)
    predicted = read(root, labels_dir, plans_file=tmp_path / "elsewhere.json")
    np.testing.assert_allclose(predicted.logits.softmax(1)[0], probabilities(CASE), atol=1e-6)
    with pytest.raises(UserError, match="nothing.json is not the plans.json of nnU-Net"):
        read(root, labels_dir, plans_file=tmp_path / "nothing.json")


@pytest.mark.parametrize("with_segmentation", [True, False])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_axes_that_were_turned_are_noticed_though_shapes_fit(activation, with_segmentation, tmp_path):
    """The usual file points left and posterior, so that turning its axes changes no shape."""
    foreground = np.full((12, 10, 8), 0.1, np.float32)
    foreground[1:6, 2:5, 2:6] = 0.9
    label = (foreground > 0.5).astype(np.uint8)
    channels = foreground[None] if activation == "sigmoid" else np.stack([1 - foreground, foreground])
    turned = channels[:, ::-1, ::-1].transpose(0, 3, 2, 1)
    root = tmp_path / "p"
    for folder in (root, tmp_path / "l"):
        if with_segmentation or folder != root:
            save(folder / "a.nii.gz", label, np.diag([-1.0, -1, 1, 1]))
    root.mkdir(exist_ok=True)
    whose = "segmentation" if with_segmentation else "its label"

    def attempt(array, reader=None):
        np.savez(root / "a.npz", probabilities=array)
        (root / "plans.json").unlink(missing_ok=True)
        if reader is not None:
            (root / "plans.json").write_text(json.dumps({"image_reader_writer": reader}))
        return read(root, tmp_path / "l", case="a", activation=activation)

    as_stored = channels.transpose(0, 3, 2, 1)
    for array, readers in ((as_stored, [None, "SimpleITKIO", "MyReader"]), (turned, TURNING)):
        for reader in readers:
            predicted = attempt(array, reader)
            assert bool(((predicted.logits[0, -1] > predicted.logits[0].mean()).numpy() == (label > 0)).all())
    with pytest.raises(UserError, match=rf"does not agree with .*{whose}.*120 voxels differ.*as plans_file"):
        attempt(turned)
    for array, reader in ((turned, "SimpleITKIO"), (as_stored, TURNING[0])):
        with pytest.raises(UserError, match=rf"does not agree.*plans.json names the reader {reader}, but the axes fit"):
            attempt(array, reader)


def test_a_prediction_that_is_wrong_is_no_matter_of_axes(tmp_path):
    """Nothing found, or something elsewhere: only a prediction that is right the other way is refused."""
    label = np.zeros((12, 10, 8), np.uint8)
    label[1:6, 2:5, 2:6] = 1
    save(tmp_path / "l" / "a.nii.gz", label, np.diag([-1.0, -1, 1, 1]))
    for wrong in (np.zeros_like(label), np.roll(label, 5, 1)):
        foreground = 0.8 * wrong[None].astype(np.float32) + 0.1
        (tmp_path / "p").mkdir(exist_ok=True)
        np.savez(
            tmp_path / "p" / "a.npz", probabilities=np.concatenate([1 - foreground, foreground]).transpose(0, 3, 2, 1)
        )
        read(tmp_path / "p", tmp_path / "l", case="a")


def test_axes_in_a_wrong_order_are_noticed_though_shapes_fit(tmp_path):
    cube = {"shape": (6, 6, 6)}
    write_labels(tmp_path / "l", [CASE], **cube)
    root = write_archives(tmp_path / "p", [CASE], values=lambda case: probabilities(case, **cube))
    read(root, tmp_path / "l")
    np.savez(root / f"{CASE}.npz", probabilities=probabilities(CASE, **cube))
    with pytest.raises(UserError, match=r"does not agree with the segmentation \S+ beside it, \d+ voxels differ"):
        read(root, tmp_path / "l")


def test_probabilities_of_0_and_1_stay_what_they_are(tmp_path, labels_dir):
    certain = np.eye(3, dtype=np.float32)[labels(CASE)]
    save(tmp_path / "p" / f"{CASE}.nii.gz", certain)
    predicted = read(tmp_path / "p", labels_dir)
    assert predicted.logits.isfinite().all()
    np.testing.assert_allclose(predicted.logits.softmax(1)[0], np.moveaxis(certain, -1, 0), atol=3e-7)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_small_probabilities_keep_their_logarithm(activation, tmp_path, labels_dir):
    """Only what underflowed to 0 loses it: to half of the smallest one that is there."""
    p = np.full((*SHAPE, 2), 0.5, np.float32)
    p[0, 0, 0] = 1e-20, 1
    p[0, 0, 1] = 0, 1
    save(tmp_path / "p" / f"{CASE}.nii.gz", p)
    save(tmp_path / "l" / f"{CASE}.nii.gz", np.zeros(SHAPE, np.uint8))
    found = read(tmp_path / "p", tmp_path / "l", activation=activation).logits[0, :, 0, 0]
    np.testing.assert_allclose(found[0, :2], np.log([1e-20, 0.5e-20]), rtol=1e-6)
    expected = 0 if activation == "softmax" else -np.log(np.finfo(np.float32).eps)
    np.testing.assert_allclose(found[1, :2], expected, rtol=1e-6)


def test_independent_classes(tmp_path, labels_dir):
    root = write_volumes(tmp_path / "p", values=independent)
    predicted = read(root, labels_dir, activation="sigmoid")
    np.testing.assert_allclose(predicted.logits[0].sigmoid(), independent(CASE), atol=1e-6)
    expected = np.stack([labels(CASE) == 1, labels(CASE) == 2])
    np.testing.assert_array_equal(predicted.labels[0], expected)


def test_regions_unite_labels(tmp_path, labels_dir):
    root = write_volumes(tmp_path / "p", values=independent)
    predicted = read(root, labels_dir, activation="sigmoid", regions={"whole": [1, 2], "core": 2})
    np.testing.assert_array_equal(predicted.labels[0], np.stack([labels(CASE) > 0, labels(CASE) == 2]))


def test_labels_with_a_channel_for_each_class(tmp_path):
    root = write_volumes(tmp_path / "p", values=independent)
    wanted = np.stack([labels(CASE) > 0, labels(CASE) > 1]).astype(np.uint8)
    save(tmp_path / "l" / f"{CASE}_seg.nii.gz", np.moveaxis(wanted, 0, -1))
    np.testing.assert_array_equal(read(root, tmp_path / "l", activation="sigmoid").labels[0], wanted)


def test_one_structure_as_a_single_volume(tmp_path, labels_dir):
    save(tmp_path / "p" / f"{CASE}.nii.gz", independent(CASE)[0])
    save(tmp_path / "l" / f"{CASE}.nii.gz", (labels(CASE) > 0).astype(np.uint8))
    predicted = read(tmp_path / "p", tmp_path / "l", activation="sigmoid")
    assert predicted.logits.shape == predicted.labels.shape == (1, 1, *SHAPE)


def test_without_label(tmp_path):
    folder = PredictionFolder(write_archives(tmp_path / "p"), None, "probabilities")
    assert folder.read(CASE, with_label=False).labels is None
    assert [path.name for path in folder.find(CASE, with_label=False)] == [f"{CASE}.npz"]
    with pytest.raises(UserError, match="has no label, as no folder of labels was given"):
        folder.read(CASE)


def test_an_archive_without_anything_beside_it_has_no_place(tmp_path):
    folder = PredictionFolder(write_archives(tmp_path / "p", with_segmentation=False), None, "probabilities")
    with pytest.raises(UserError, match=r"case_1.npz does not say where its voxels lie; keep nnU-Net's segmentation"):
        folder.read(CASE, with_label=False)


def change(values=lambda array: array, affine=AFFINE):
    """Write the prediction of the case with something changed."""
    return lambda root: save(root / f"{CASE}_prob.nii.gz", values(np.moveaxis(probabilities(CASE), 0, -1)), affine)


def with_nan(array):
    array[1, 2, 3, 0] = np.nan
    return array


def archive(**arrays):
    def write(root):
        root.mkdir(parents=True)
        np.savez(root / f"{CASE}.npz", **arrays)

    return write


def cut_short(root):
    change()(root)
    path = root / f"{CASE}_prob.nii.gz"
    path.write_bytes(path.read_bytes()[:400])


def archive_cut_short(root):
    write_archives(root)
    path = root / f"{CASE}.npz"
    path.write_bytes(path.read_bytes()[:200])


def two_predictions(root):
    change()(root)
    write_archives(root, [CASE])


def a_class_missing(root):
    write_channels(root, [CASE])
    (root / f"{CASE}_1.nii.gz").unlink()


def channels_apart(root):
    write_channels(root, [CASE])
    save(root / f"{CASE}_1.nii.gz", probabilities(CASE)[1], AFFINE + np.eye(4, k=3))


def channels_of_many(root):
    write_channels(root, [CASE])
    save(root / f"{CASE}_1.nii.gz", np.moveaxis(probabilities(CASE), 0, -1))


def without_affine(root):
    change()(root)
    image = nib.load(root / f"{CASE}_prob.nii.gz")
    image = nib.Nifti1Image(image.get_fdata(dtype=np.float32), None, image.header)
    image.set_sform(np.diag([0.0, 1, 1, 1]), code="aligned")
    nib.save(image, root / f"{CASE}_prob.nii.gz")


MOVED = AFFINE.copy()
MOVED[0, 3] += 1
MISTAKES = {
    "nothing there": (lambda root: root.mkdir(), "p holds no prediction of case case_1: looked for case_1_prob.nii.gz"),
    "two predictions": (two_predictions, r"has two predictions, \S+case_1_prob.nii.gz and \S+case_1.npz; keep one"),
    "a class missing": (a_class_missing, "are numbered 0, 2; give one file for each class, numbered from 0"),
    "channels apart": (channels_apart, r"affines of \S+case_1_0.nii.gz and \S+case_1_1.nii.gz differ"),
    "channels of many": (channels_of_many, r"case_1_1.nii.gz is the file of a single class .* call a file of all"),
    "cut short": (cut_short, r"Case case_1: \S+case_1_prob.nii.gz cannot be read .*cut short"),
    "NaN": (change(with_nan), "case_1_prob.nii.gz holds 1 NaN or Inf value"),
    "logits": (
        change(lambda array: 5 * array),
        r"from \S+ to \S+, but kind says probabilities, .* give kind logits",
    ),
    "sums": (change(lambda array: 0.9 * array), r"210 voxel\(s\) whose .* do not sum to 1 .* to 0.9; give .* sigmoid"),
    "a single class": (change(lambda array: array[..., 0]), "has a single class; .* give activation sigmoid"),
    "five axes": (
        change(lambda array: np.stack([array, array], -1)),
        "has axes of 7 x 6 x 5 x 3 x 2 voxels, but a volume has three",
    ),
    "two axes": (change(lambda array: array[..., 0, 0]), "has 2 axes, but a volume has three"),
    "another shape": (
        change(lambda array: array[:-1]),
        r"_prob.nii.gz has the shape \(6, 6, 5\), but \S+case_1.nii",
    ),
    "another place": (change(affine=MOVED), "affines of .* differ, by 0.67 voxels at a corner"),
    "no affine": (without_affine, "has an unusable sform"),
    "no array": (archive(softmax=np.zeros(3)), "case_1.npz holds softmax, but no array probabilities"),
    "few axes": (archive(probabilities=np.zeros((3, 4))), "case_1.npz has 2 axes instead of four: class, Z, Y, X"),
    "NaN in an archive": (archive(probabilities=np.full((3, 5, 6, 7), np.nan)), "case_1.npz holds 630 NaN or Inf"),
    "archive of another shape": (
        archive(probabilities=np.zeros((3, 4, 6, 7))),
        r"\(3, 4, 6, 7\) .* does not fit",
    ),
    "archive cut short": (archive_cut_short, r"case_1.npz cannot be read .*write it again"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_is_wrong_with_a_prediction_is_said(mistake, tmp_path, labels_dir):
    write, message = MISTAKES[mistake]
    write(tmp_path / "p")
    with pytest.raises(UserError, match=message) as error:
        read(tmp_path / "p", labels_dir)
    assert "case_1" in str(error.value)


@pytest.mark.parametrize(
    ("values", "activation", "message"),
    [
        (probabilities, "softmax", "has only values in .0, 1., which sum to 1 over the classes, as probabilities do"),
        (
            independent,
            "sigmoid",
            "has only values in .0, 1., as probabilities do, but kind says logits; give",
        ),
    ],
)
def test_probabilities_are_not_taken_for_logits(values, activation, message, tmp_path, labels_dir):
    root = write_volumes(tmp_path / "p", values=values)
    with pytest.raises(UserError, match=message):
        read(root, labels_dir, "logits", activation=activation)


def test_an_archive_never_holds_logits(tmp_path, labels_dir):
    with pytest.raises(UserError, match="is an archive of nnU-Net, which holds probabilities; give that kind"):
        read(write_archives(tmp_path / "p"), labels_dir, "logits")


def test_log_probabilities_are_logits(tmp_path, labels_dir):
    root = write_volumes(tmp_path / "p", values=lambda case: np.log(probabilities(case)))
    predicted = read(root, labels_dir, "logits")
    np.testing.assert_allclose(predicted.logits.softmax(1)[0], probabilities(CASE), atol=1e-6)


@pytest.mark.parametrize(
    ("label", "options", "message"),
    [
        (3.0, {}, r"labels/case_1.nii.gz holds the label 3, but 3 classes are predicted, so labels are 0 to 2"),
        (0.5, {}, "holds the label 0.5"),
        (3.0, {"activation": "sigmoid"}, "2 classes are predicted, so labels are 0 to 2"),
        (3.0, {"activation": "sigmoid", "regions": {"a": [1, 2], "b": [2]}}, "are 0 and those of the regions, up to 2"),
    ],
)
def test_a_label_without_class_is_named(label, options, message, tmp_path):
    root = write_volumes(tmp_path / "p", values=independent if options else probabilities)
    array = labels(CASE).astype(np.float32)
    array[0, 0, 0] = label
    save(tmp_path / "labels" / f"{CASE}.nii.gz", array)
    with pytest.raises(UserError, match=message):
        read(root, tmp_path / "labels", **options)


@pytest.mark.parametrize(
    ("strange", "named"),
    [((4, 7), "labels 4, 7, but"), ((9, -1, 8, 7, 6, 5, 4), "labels -1, 4, 5, 6, 7 and others, but")],
)
def test_all_labels_without_class_are_named_together(strange, named, tmp_path):
    """Those of BraTS, or a segmentation of a bundle whose data have a label_map."""
    array = labels(CASE).astype(np.int16)
    array.flat[: len(strange)] = strange
    save(tmp_path / "labels" / f"{CASE}_seg.nii.gz", array)
    with pytest.raises(UserError, match=f"{named} 3 classes are predicted.*; renumber the label"):
        read(write_volumes(tmp_path / "p"), tmp_path / "labels")


def test_a_label_of_other_channels_is_named(tmp_path):
    save(tmp_path / "l" / f"{CASE}.nii.gz", np.zeros((*SHAPE, 2), np.uint8))
    with pytest.raises(UserError, match=r"l/case_1.nii.gz has 2 channels, but the prediction 3"):
        read(write_volumes(tmp_path / "p"), tmp_path / "l")


def test_predictions_are_never_their_own_truth(tmp_path, labels_dir):
    """nnU-Net's segmentation would be found as the label, and everything would be perfect."""
    root = write_archives(tmp_path / "p")
    (tmp_path / "link").symlink_to(root)
    for folder in (root, tmp_path / "link", root / ".." / "p"):
        with pytest.raises(UserError, match=r"labels_dir \S+ is the folder of the predictions"):
            PredictionFolder(root, folder, "probabilities")
    for name, make in (("of_links", "symlink_to"), ("of_hard_links", "hardlink_to")):
        (tmp_path / name).mkdir()
        getattr(tmp_path / name / f"{CASE}.nii.gz", make)(root / f"{CASE}.nii.gz")
        folder = PredictionFolder(root, tmp_path / name, "probabilities")
        for attempt in (folder.find, folder.read):
            with pytest.raises(UserError, match=rf"Case {CASE}: \S+ lies among the predictions, beside {CASE}"):
                attempt(CASE)
    write_volumes(tmp_path / "bundle" / CASE, [CASE])
    save(tmp_path / "bundle" / CASE / f"{CASE}_seg.nii.gz", labels(CASE))
    (tmp_path / "l").mkdir()
    (tmp_path / "l" / CASE).symlink_to(tmp_path / "bundle" / CASE)
    with pytest.raises(UserError, match=rf"{CASE}_seg.nii.gz lies among the predictions"):
        read(tmp_path / "bundle", tmp_path / "l")
    # labels and predictions that are links to files in one folder are not the same for that
    (tmp_path / "q").mkdir()
    (tmp_path / "q" / f"{CASE}.nii.gz").symlink_to(write_volumes(tmp_path / "store") / f"{CASE}_prob.nii.gz")
    (tmp_path / "r").mkdir()
    save(tmp_path / "store" / "truth.nii.gz", labels(CASE))
    (tmp_path / "r" / f"{CASE}.nii.gz").symlink_to(tmp_path / "store" / "truth.nii.gz")
    read(tmp_path / "q", tmp_path / "r")


def test_names_are_matched_whole(tmp_path):
    """p1_0.nii.gz of a case called p1_0 is not class 0 of p1, nor are its other files those of p1."""
    ids = ["p1", "p1_0", "p1_1", "p1_prob", "p1_seg"]
    write_labels(tmp_path / "l", ids)
    plain = write_volumes(tmp_path / "plain", ids, name="{}.nii.gz")
    for folder in (plain, write_archives(tmp_path / "archives", ids)):
        predictions = PredictionFolder(folder, tmp_path / "l", "probabilities", case_ids=ids)
        for case in ids:
            predicted = predictions.read(case)
            np.testing.assert_allclose(predicted.logits.softmax(1)[0], probabilities(case), atol=1e-6)
            np.testing.assert_array_equal(predicted.labels[0, 0], labels(case))
    # of what nobody named the files tell
    (plain / "p1_prob.nii.gz").unlink()
    predicted = PredictionFolder(plain, tmp_path / "l", "probabilities").read("p1")
    np.testing.assert_allclose(predicted.logits.softmax(1)[0], probabilities("p1"), atol=1e-6)
    (tmp_path / "l" / "p1.nii.gz").unlink()
    with pytest.raises(UserError, match="holds no label of case p1"):
        PredictionFolder(plain, tmp_path / "l", "probabilities", case_ids=ids).read("p1")


def test_names_that_could_be_both_are_refused(tmp_path):
    root = write_channels(tmp_path / "p", ["p1"])
    with pytest.raises(UserError, match=r"p1_1.nii.gz could be the file of one of its classes or of the case p1_1"):
        PredictionFolder(root, None, "probabilities", case_ids=["p1", "p1_1"]).find("p1", with_label=False)
    for number in (1, 2):
        (root / f"p1_{number}.nii.gz").unlink()
    save(root / "p1.nii.gz", independent("p1")[0])
    folder = PredictionFolder(root, None, "probabilities", "sigmoid")
    with pytest.raises(UserError, match=r"two predictions, \S+p1_0.nii.gz and \S+p1.nii.gz"):
        folder.find("p1", with_label=False)
    # a segmentation beside the class is none
    save(root / "p1.nii.gz", labels("p1"))
    assert folder.find("p1", with_label=False) == [root / "p1_0.nii.gz"]


def test_a_missing_label_is_named(tmp_path):
    (tmp_path / "l").mkdir()
    with pytest.raises(UserError, match="l holds no label of case case_1: looked for case_1.nii.gz and case_1_seg"):
        read(write_volumes(tmp_path / "p"), tmp_path / "l")


def test_all_cases_have_the_same_classes(tmp_path, labels_dir):
    write_volumes(tmp_path / "p")
    write_volumes(tmp_path / "p", ["case_2"], num_classes=4)
    folder = PredictionFolder(tmp_path / "p", labels_dir, "probabilities")
    folder.read(CASE)
    with pytest.raises(UserError, match=r"Case case_2: \S+ has 4 classes, but case case_1 has 3"):
        folder.read("case_2")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "logit"}, "kind is 'logit', but must be probabilities or logits; did you mean logits?"),
        ({"activation": "tanh"}, "activation is 'tanh', but must be softmax or sigmoid"),
        ({"predictions_dir": "none"}, "predictions_dir none is not a folder"),
        ({"labels_dir": "none"}, "labels_dir none is not a folder"),
        ({"regions": {"a": [1]}}, "regions are for activation sigmoid"),
        (
            {"activation": "sigmoid", "regions": {"a": [0]}},
            "region a must list labels, whole numbers .* not .0.",
        ),
        (
            {"activation": "sigmoid", "regions": {"a": "1"}},
            "region a must list labels, whole numbers .* not '1'",
        ),
        ({"activation": "sigmoid", "regions": "whole"}, "regions must be labels by name"),
    ],
)
def test_wrong_options_are_named(options, message, tmp_path, labels_dir):
    with pytest.raises(UserError, match=message):
        PredictionFolder(**{"predictions_dir": tmp_path, "labels_dir": labels_dir, "kind": "probabilities"} | options)


def test_regions_fit_the_channels(tmp_path, labels_dir):
    root = write_volumes(tmp_path / "p", values=independent)
    with pytest.raises(UserError, match=r"has 2 channel\(s\), but regions names 1"):
        read(root, labels_dir, activation="sigmoid", regions={"whole": [1, 2]})


class TestCaseLists:
    def test_from_a_file(self, tmp_path):
        path = tmp_path / "cases.txt"
        path.write_text("# those of the first fold\ncase_1\n\n 007  # damaged corner\n")
        assert read_case_list(str(path)) == read_case_list(path) == ["case_1", "007"]

    @pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
    def test_from_a_file_of_windows(self, tmp_path, encoding):
        path = tmp_path / "cases.txt"
        path.write_bytes("case_1 # München\r\n007\r\n".encode(encoding))
        assert read_case_list(path) == ["case_1", "007"]

    def test_from_a_file_at_home(self, tmp_path, monkeypatch):
        monkeypatch.setenv("HOME", str(tmp_path))
        (tmp_path / "cases.txt").write_text("007\n")
        assert read_case_list("~/cases.txt") == ["007"]

    @pytest.mark.parametrize("text", ["[006, 1_2]", "['006','1_2']", "006,1_2", '"006", 1_2'])
    def test_ids_in_any_notation(self, text):
        assert read_case_list(text) == ["006", "1_2"]

    def test_a_text_longer_than_a_path_may_be(self):
        ids = [f"patient_{number}" for number in range(1000)]
        assert read_case_list(",".join(ids)) == ids

    def test_from_text_and_from_a_list(self):
        assert read_case_list("b, a,007") == ["b", "a", "007"]
        assert read_case_list(list(CASES)) == list(CASES)

    @pytest.mark.parametrize(
        ("cases", "message"),
        [
            ("", "calibration_cases names no case"),
            ("a,b,a", "calibration_cases names the case a twice"),
            ("none.txt", "none.txt does not exist; calibration_cases is a file"),
            ("..", "not of dots alone"),
            ("x" * 161, "takes 161 bytes"),
            ("[a,b", r"--calibration_cases: \[a,b is not a list"),
            (["a", "k\udcfc"], r"'k.udcfc', which is no UTF-8"),
            ("../a", r"names the case \.\./a, but an id is a name without folders"),
        ],
    )
    def test_mistakes(self, cases, message):
        with pytest.raises(UserError, match=message):
            read_case_list(cases, "calibration_cases")
