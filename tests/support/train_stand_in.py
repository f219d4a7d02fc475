"""Stands in for scripts/train.py where a test is about the process, not about what it learns.

It reads its config, counts epochs into progress.json and checkpoints, and copies the bundle that LESION_STAND_IN names.
"""

import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

from omegaconf import OmegaConf

cfg = OmegaConf.load(Path(sys.argv[sys.argv.index("--config-path") + 1]) / "train.yaml")
output, orders = Path(cfg.paths.output), json.loads(os.environ.get("LESION_STAND_IN", "{}"))


def wait(place: str) -> None:
    """Wait for a file that the orders name, if they do."""
    while place in orders.get("waits", {}) and not Path(orders["waits"][place]).exists():
        time.sleep(0.05)


wait("start")
checkpoint = output / "checkpoints" / "last.ckpt"
checkpoint.parent.mkdir(parents=True, exist_ok=True)
done = int(Path(cfg.resume).read_text()) if cfg.resume else 0
for file in filter(None, (output / "starts.txt", orders.get("record"))):
    with Path(file).open("a") as starts:
        starts.write(f"{os.getpid()} {done}\n")


def say(phase: str, epoch: int) -> None:
    metrics = [{"epoch": number, "val/acc": number / 10} for number in range(1, epoch + 1)]
    content = {"phase": phase, "epoch": epoch, "share": epoch / cfg.trainer.max_epochs, "seconds_left": 1.5}
    (output / "progress.part").write_text(json.dumps(content | {"metrics": metrics}))
    (output / "progress.part").replace(output / "progress.json")


if orders.get("say"):
    print(orders["say"], file=sys.stderr)
    sys.exit(orders["status"])
for epoch in range(done + 1, cfg.trainer.max_epochs + 1):
    time.sleep(orders.get("epoch_s", 0.0))
    if epoch == orders.get("dies_before"):
        os.kill(os.getpid(), signal.SIGKILL)
    for file in (checkpoint.with_name("best.ckpt"), checkpoint):
        file.write_text(str(epoch))
    say("train", epoch)
    wait(f"epoch {epoch}")
    if epoch == orders.get("dies_once_after") and done < epoch:
        os.kill(os.getpid(), signal.SIGKILL)
say("evaluate", cfg.trainer.max_epochs)
wait("evaluate")
shutil.copytree(orders["bundle"], output / "part", dirs_exist_ok=True)
(output / "part").rename(output / "bundle")
