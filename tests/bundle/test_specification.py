"""Bundles follow MONAI's bundle specification."""

import json

import pytest
from monai.bundle import ConfigWorkflow, verify_metadata

from medcalib.bundle.layout import CONFIGS, METADATA, Mode, config_files


def workflow(bundle, mode, overrides):
    made = ConfigWorkflow(
        config_file=[str(path) for path in config_files(bundle / CONFIGS, mode)],
        meta_file=str(bundle / CONFIGS / METADATA),
        logging_file=str(bundle / CONFIGS / "logging.conf"),
        workflow_type="train" if mode is Mode.TRAIN else "infer",
        bundle_root=str(bundle),
        **overrides,
    )
    made.initialize()
    return made


@pytest.mark.parametrize("mode", list(Mode))
def test_no_property_is_missing(trained, tiny, mode):
    made = workflow(trained, mode, tiny)
    assert made.check_properties() == []
    made.finalize()


def test_properties_of_a_training_can_be_read(trained, tiny):
    made = workflow(trained, Mode.TRAIN, tiny)
    assert made.max_epochs == 2
    assert len(made.train_dataset_data) == 4
    assert made.version == json.loads((trained / CONFIGS / METADATA).read_text())["version"]


TEXT = {"type": "string", "minLength": 1}
VOLUME = {
    "type": "object",
    "required": ["type", "num_channels", "spatial_shape", "dtype", "value_range", "is_patch_data", "channel_def"],
    "properties": {
        "type": {"enum": ["image", "label", "series", "tuples", "probabilities"]},
        "format": TEXT,
        "modality": TEXT,
        "num_channels": {"type": "integer", "minimum": 1},
        "spatial_shape": {"type": "array", "items": {"type": ["integer", "string"]}, "minItems": 1},
        "dtype": {"enum": ["float32"]},
        "value_range": {"type": "array", "items": {"type": "number"}},
        "is_patch_data": {"type": "boolean"},
        "channel_def": {"type": "object", "minProperties": 1, "additionalProperties": TEXT},
    },
}
TEXTS = ["schema", "version", "monai_version", "pytorch_version", "numpy_version"]
TEXTS += ["task", "description", "authors", "copyright"]
# The fields that MONAI's bundle specification asks for, written down from its text.
SPECIFICATION = {
    "type": "object",
    "required": [*TEXTS, "changelog", "required_packages_version", "network_data_format"],
    "properties": {
        **dict.fromkeys(TEXTS, TEXT),
        "changelog": {"type": "object", "additionalProperties": TEXT, "minProperties": 1},
        "required_packages_version": {"type": "object", "additionalProperties": {"pattern": r"^[1-9\d]"}},
        "network_data_format": {
            "type": "object",
            "required": ["inputs", "outputs"],
            "properties": {
                "inputs": {"type": "object", "required": ["image"], "properties": {"image": VOLUME}},
                "outputs": {"type": "object", "required": ["pred"], "properties": {"pred": VOLUME}},
            },
        },
    },
}


@pytest.mark.parametrize("data", ["phantom", "hippocampus"])
def test_metadata_passes_verification(make_bundle, tmp_path, data):
    """`monai.bundle verify_metadata`; a schema that lies at `filepath` is not downloaded."""
    bundle = make_bundle(tmp_path, data=data)
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps(SPECIFICATION))
    metadata = bundle / CONFIGS / METADATA
    verify_metadata(meta_file=str(metadata), filepath=str(schema))
    content = json.loads(metadata.read_text())
    del content["task"]
    metadata.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="task"):
        verify_metadata(meta_file=str(metadata), filepath=str(schema))


def test_nothing_is_a_placeholder(bundle):
    metadata = (bundle / CONFIGS / METADATA).read_text()
    readme = (bundle / "docs" / "README.md").read_text().replace(str(bundle), "").replace("`$` expressions", "")
    assert not [word for word in ("TODO", "placeholder", "your name", "xxx", "$") if word in metadata + readme]


def test_the_network_fits_its_description(trained, tiny):
    """`monai.bundle verify_net_in_out` on the untrained network."""
    import torch

    made = workflow(trained, Mode.TRAIN, tiny)
    described = json.loads((trained / CONFIGS / METADATA).read_text())["network_data_format"]
    image, pred = described["inputs"]["image"], described["outputs"]["pred"]
    with torch.no_grad():
        output = made.network_def.eval()(torch.rand(1, image["num_channels"], *image["spatial_shape"]))
    assert output.shape == (1, pred["num_channels"], *pred["spatial_shape"])
