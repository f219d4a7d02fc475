"""Every command once, as people use them: python -m tests.support.lookups.story FOLDER

From a training to a retraining that a server's worker begins, with a page and a backup. What each command prints is in
a file of the folder.
"""

import os
import subprocess
import sys
from pathlib import Path

from lesion.client import Client
from serve.deploy.ports import free_port
from tests.support.paths import SCRIPTS
from tests.support.preparing import ADMIN, ENVIRONMENT
from tests.support.training_runs import PHANTOMS, TINY

READY_S = 120


def settings_of(*words: str) -> list[str]:
    return [word for word in words if not word.startswith("logger=")]  # wandb is the default, and it is to be run


def command(name: str, *arguments: str) -> list[str]:
    return [sys.executable, str(SCRIPTS / f"{name}.py"), *arguments]


class Story:
    """Runs commands in a folder, one after the other or beside each other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.beside: list[subprocess.Popen[bytes]] = []
        self.storage = ["storage=local", f"storage_root={folder / 'loop'}"]

    def run(self, name: str, *arguments: str) -> None:
        """Run a command, which must succeed."""
        with (self.folder / f"{name}.txt").open("ab") as output:
            subprocess.run(
                command(name, *arguments), cwd=self.folder, stdout=output, stderr=subprocess.STDOUT, check=True
            )

    def start(self, name: str, *arguments: str) -> None:
        """Start a command that runs until it is ended."""
        with (self.folder / f"{name}.txt").open("ab") as output:
            self.beside.append(
                subprocess.Popen(command(name, *arguments), cwd=self.folder, stdout=output, stderr=subprocess.STDOUT)
            )

    def end(self) -> None:
        """End what runs, the last one first."""
        for process in reversed(self.beside):
            process.terminate()
            process.wait(60)


def tell(folder: Path) -> None:
    """Run the commands."""
    story = Story(folder)
    run = folder / "run"
    story.run("train", *settings_of(*PHANTOMS, *TINY), f"data.root.root={folder / 'phantoms'}", f"hydra.run.dir={run}")
    images = sorted((folder / "phantoms").rglob("*.png"))
    story.run("predict", "--bundle", str(run / "bundle"), "--overlay", str(folder / "maps"), *map(str, images[:2]))
    story.run("prepare", *story.storage, f"bundle={run}")
    story.run("models", "list", *story.storage)
    story.run("keys", "list", *story.storage)
    story.run("identity", "check", *story.storage)
    story.run("backup", "create", str(folder / "copy"), *story.storage)
    use_server(story, images)


def use_server(story: Story, images: list[Path]) -> None:
    """Ask a server, its page and its worker."""
    port, page_port = free_port(), free_port()
    address = f"http://127.0.0.1:{port}"
    story.start("serve", *story.storage, f"port={port}", "server.workers=1")
    story.start("worker", *story.storage)
    story.start("ui", "--api", address, "--port", str(page_port))
    try:
        with Client(address, ADMIN) as client:
            client.wait_ready(READY_S)
            client.predict(images[0].read_bytes(), explain=True)
            subprocess.run(
                [sys.executable, SCRIPTS / "dev" / "check_page.py", f"http://127.0.0.1:{page_port}", "--wait", "60"],
                check=True,
            )
            story.run("retrain", address, "--new-images", "0", "--epochs", "1", "--wait", "400")
    finally:
        story.end()


if __name__ == "__main__":
    os.environ.update(ENVIRONMENT, LESION_API_KEY=ADMIN)
    tell(Path(sys.argv[1]))
