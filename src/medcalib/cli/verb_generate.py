"""``medcalib generate``: make a bundle."""

from pathlib import Path

from medcalib.bundle.bundle_metadata import read_metadata
from medcalib.bundle.compose import DEFAULT_METHOD, generate, list_fragments
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
) -> None:
    """Compose one data, one loss, one network and one method fragment into a MONAI bundle.

    The path of the bundle is the last line that is printed.

    Args:
        data: name of a data fragment, such as phantom.
        loss: name of a loss fragment, such as baseline_dice_ce.
        method: name of a method, a calibrator or a guarantee, or several of them joined by +.
        network: name of a network fragment, such as unet; the data fragment's default if left out.
        bundles_dir: folder in which bundles lie.
        list: print what exists instead.
        check: also resolve every _target_ and $import with MONAI (takes some seconds).
    """
    if list:
        _print_list(Path(bundles_dir))
        return
    if data is None or loss is None:
        raise UserError(f"--{'data' if data is None else 'loss'} is missing; --list shows what there is.")
    bundle, created = generate(find_templates(), Path(bundles_dir), data, loss, method, network)
    if check:
        from medcalib.bundle.opened import Bundle

        Bundle.open(bundle).check()
        print("Every _target_ and $import resolves.")
    print("Generated the bundle" if created else "The bundle exists already and was left untouched:")
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
        print(f"  {bundle.name}{_other_network(bundle)}")


def _other_network(bundle: Path) -> str:
    """The network of a bundle, which its name cannot say, if it is not the default of its data fragment."""
    try:
        network = read_metadata(bundle)["medcalib"]["fragments"].get("network")
        usual = default_network(read_yaml(bundle / CONFIGS / "data.yaml")["data"])
    except (UserError, KeyError, TypeError, AttributeError):
        return "  (damaged)"
    return f"  (network {network})" if network not in (None, usual) else ""
