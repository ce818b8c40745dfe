"""`cbam3d train --dry-run`: would it work, and what would it take?"""

from itertools import islice
from pathlib import Path

from rich.table import Table

from cbam3d.assemble import by_first_process, create_fabric
from cbam3d.commands.cost import multiply_adds
from cbam3d.commands.trainer import create_trainer, score
from cbam3d.config import Config
from cbam3d.console import speaker
from cbam3d.engine.memory import peak_memory_gib
from cbam3d.sources import open_source


def dry_run(config: Config, folder: Path) -> None:
    """Build everything, try one batch of training and one of scoring, and say what the run will take."""
    fabric = create_fabric(config)
    console = speaker(fabric)
    source = by_first_process(fabric, lambda: open_source(config, console))
    trainer, test_loader = create_trainer(config, source, fabric, folder, console, keeps=False)
    batch = next(iter(trainer.loader))
    loss = trainer.step(batch)
    evaluation = score(config, source, fabric, islice(test_loader, 1), trainer.model_to_score())
    parameters = list(trainer.model.parameters())
    learning = sum(p.numel() for p in parameters if p.requires_grad)
    rows = {
        "input of a step": " x ".join(map(str, batch.inputs.shape)),
        "parameters": f"{sum(p.numel() for p in parameters):,}, of which learn {learning:,}",
        "multiply-adds a clip": f"{multiply_adds(trainer.model, batch.inputs[:1]) / 1e9:.2f} G",
        "peak memory": f"{peak_memory_gib(trainer.fabric.device):.2f} GiB",
        "steps an epoch": f"{len(trainer.loader):,}",
        "steps in all": f"{len(trainer.loader) * config.train.epochs:,}",
        "learning rate of the first step": f"{trainer.schedule.learning_rate:.3g}",
        "loss of the first step": f"{loss:.3f}",
        "scored": ", ".join(f"{count} {name.removeprefix('num_')}" for name, count in evaluation.counts.items()),
    }
    table = Table("dry run", "", show_header=False)
    for name, value in rows.items():
        table.add_row(name, value)
    console.print(table)
    console.print("the dry run went through; nothing is kept")
