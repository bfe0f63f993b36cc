"""``medcalib study``: run all that a question needs, and answer it on one page."""

from __future__ import annotations

__all__ = ["main"]


def main(
    file: str,
    /,
    plan: bool = False,
    status: bool = False,
    engine: str = "sequential",
    address: str | None = None,
    gpus_per_run: float = 1.0,
    cpus_per_run: int = 1,
    output_dir: str | None = None,
    bundles_dir: str = "bundles",
) -> None:
    """Run a study: train, predict and evaluate every combination of a study file, and compare them.

    What is done already is not done again, so the same command goes on with a study that was stopped. The path of the
    report is the last line that is printed. The exit code is 1 if a run failed.

    Args:
        file: the study file, such as studies/phantom_quick.yaml.
        plan: only say what would be run, and what it would take.
        status: only say which runs are done, running, failed or waiting.
        engine: sequential, one run after the other, or ray, several at a time.
        address: address of a cluster of Ray, such as auto; Ray is started on this machine when left out.
        gpus_per_run: GPUs of a run with Ray, where there are GPUs; 0.5 runs two on each.
        cpus_per_run: CPUs of a run with Ray.
        output_dir: folder of logs and report; studies_output/<name of the file> when left out.
        bundles_dir: folder in which bundles lie.
    """
    from pathlib import Path

    from medcalib.study import conduct as study

    if not plan and not status:
        print(
            study.conduct(
                file,
                engine=engine,
                address=address,
                gpus_per_run=gpus_per_run,
                cpus_per_run=cpus_per_run,
                output_dir=output_dir,
                bundles_dir=bundles_dir,
            )
        )
        return
    _, runs, output = study.planned(file, output_dir, bundles_dir)
    if status:
        print(study.status_text(runs, output))
        return
    study.print_plan(runs, Path(bundles_dir))
