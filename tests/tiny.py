"""Options of a run that takes a second or two on the demo's videos."""

import shlex

TINY = shlex.split(
    "--run.accelerator cpu --data.num_frames 4 --data.short_side 32 --data.size 32 --data.num_workers 0 "
    "--model.name resnet10 --model.options '{width: 8}' --train.epochs 1 --train.batch_size 8 "
    "--eval.num_clips 2 --eval.every_epochs 1 --data.test_fraction 0.5"
)
