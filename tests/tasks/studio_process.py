"""A studio's scheduler in a process of its own, to be killed: queues one task with the fake trainer and supervises it.

python studio_process.py HOME ACT
"""

import sys
import threading
from pathlib import Path

from sage_studio.database import Database
from sage_studio.settings import load_settings
from sage_studio.tasks.launcher import ProcessLauncher
from sage_studio.tasks.scheduler import TaskScheduler
from sage_studio.tasks.store import TaskStore
from sage_studio.training.progress import TrainingJob
from sage_studio.training.recipes import SFTRecipe

settings = load_settings(home=Path(sys.argv[1]))
store = TaskStore(Database(settings.database_path), settings.outputs_dir)
fake = Path(__file__).with_name("fake_trainer.py")
scheduler = TaskScheduler(store, ProcessLauncher([sys.executable, str(fake)]), settings)
recipe = SFTRecipe(model_name_or_path="m", dataset_id="d")
store.create(recipe, TrainingJob(model_location="m", data_path=sys.argv[2]), dataset_id="d", dataset_name="D")
scheduler.start()
threading.Event().wait(3600)
