"""``medcalib generate``: make a bundle."""

from pathlib import Path

from medcalib.bundle.bundle_metadata import read_metadata
from medcalib.bundle.compose import DEFAULT_METHOD, generate, list_fragments
from medcalib.bundle.data_folds import bundle_fold, chosen_folds
from medcalib.bundle.fragments import read_yaml
from medcalib.bundle.layout import CONFIGS
from medcalib.bundle.network_settings import default_network
from medcalib.bundle.templates import find_templates
from medcalib.errors import UserError

__all__ = ["main"]


def main(
    data: str | None = None,
    loss: str | None = None,
    method: str = DEFAULT_METHOD,
    network: str | None = None,
    bundles_dir: str = "bundles",
    list: bool = False,  # noqa: A002
    check: bool = False,
    fold: int | str | None = None,
    folds: int | None = None,
) -> None:
    """Compose one data, one loss, one network and one method fragment into a MONAI bundle.

    The path of the bundle is the last line that is printed; of a cross-validation, those of its bundles, one a line.

    Args:
        data: name of a data fragment, such as phantom.
        loss: name of a loss fragment, such as baseline_dice_ce.
        method: name of a method, a calibrator or a guarantee, or several of them joined by +.
        network: name of a network fragment, such as unet; the data fragment's default if left out.
        bundles_dir: folder in which bundles lie.
        list: print what exists instead.
        check: also resolve every _target_ and $import with MONAI (takes some seconds).
        fold: number of the fold that is held out, or all for a bundle of each, where the data have folds.
        folds: divide the cases of data that have none in so many folds by chance, patients together; a bundle of each,
            or with fold of one.
    """
    if list:
        _print_list(Path(bundles_dir))
        return
    if data is None or loss is None:
        raise UserError(f"--{'data' if data is None else 'loss'} is missing; --list shows what there is.")
    made = [
        generate(find_templates(), Path(bundles_dir), data, loss, method, network, one)
        for one in chosen_folds(find_templates(), data, fold, folds)
    ]
    if check:
        from medcalib.bundle.opened import Bundle

        for bundle, _ in made:
            Bundle.open(bundle).check()
        print("Every _target_ and $import resolves.")
    if len(made) == 1:
        print("Generated the bundle" if made[0][1] else "The bundle exists already and was left untouched:")
    else:
        there = sum(not created for _, created in made)
        told = f", of which {there} exist already and were left untouched" * (there > 0)
        print(f"The bundles of the {len(made)} folds, 0 first{told}:")
    for bundle, _ in made:
        print(bundle)


def _print_list(bundles_dir: Path) -> None:
    for kind, fragments in list_fragments(find_templates() / CONFIGS).items():
        print(f"{kind}:")
        width = max(map(len, fragments), default=0)
        for name, description in fragments.items():
            print(f"  {name:<{width}}  {description}".rstrip())
    bundles = sorted(path.parent.parent for path in bundles_dir.glob("[!.]*/configs/metadata.json"))
    print(f"bundles in {bundles_dir}:")
    for bundle in bundles:
        print(f"  {bundle.name}{_other_network(bundle)}{_fold(bundle)}")


def _fold(bundle: Path) -> str:
    try:
        fold = bundle_fold(bundle)
    except UserError:
        return ""
    return "" if fold.number is None else f"  (fold {fold.number} of {fold.num_folds})"


def _other_network(bundle: Path) -> str:
    """The network of a bundle, which its name cannot say, if it is not the default of its data fragment."""
    try:
        network = read_metadata(bundle)["medcalib"]["fragments"].get("network")
        usual = default_network(read_yaml(bundle / CONFIGS / "data.yaml")["data"])
    except (UserError, KeyError, TypeError, AttributeError):
        return "  (damaged)"
    return f"  (network {network})" if network not in (None, usual) else ""
