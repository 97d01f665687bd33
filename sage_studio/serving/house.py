"""The parts of serving wired together for one home.

Knows which part needs which. Knows no rule of its own.
"""

from collections.abc import Callable

from sage_studio.database import Database
from sage_studio.hardware import Hardware
from sage_studio.serving.adapters import AdapterShelf
from sage_studio.serving.answers import Answers
from sage_studio.serving.choice import EngineChoice, EngineChooser, choose_engine
from sage_studio.serving.life import EngineLife
from sage_studio.serving.merging import Merger
from sage_studio.serving.room import without_cards
from sage_studio.serving.sharing import Sharing
from sage_studio.serving.state import ServingState
from sage_studio.serving.switching import Switcher, Turn
from sage_studio.serving.watch import Watch
from sage_studio.settings import Settings


class House:
    """Everything that a configured registry works with."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        choose: Callable[[], EngineChoice] | None,
        look: Callable[[], Hardware],
    ) -> None:
        self.settings = settings
        self.look = look
        self.state = ServingState(database)
        self.chooser = EngineChooser(
            self.state,
            choose or (lambda: choose_engine(settings, self.engine_hardware)),
            self.engine_hardware,
            lambda: self.life.held(),
        )
        self.life = EngineLife(settings, self.state, self.chooser, self.engine_hardware)
        self.merger = Merger(self.life.folder, settings.outputs_dir, 2 * settings.engine_start_seconds)
        self.shelf = AdapterShelf(
            self.state, self.life.folder / "adapters", settings.outputs_dir, self.chooser, self.merger
        )
        self.switcher = Switcher(self.state, self.life, self.shelf)
        self.turn = Turn(self.life.folder / "switch.lock", 4 * settings.engine_start_seconds + 60)
        self.sharing = Sharing(settings, self.state, self.life, self.shelf, self.turn, look)
        self.answers = Answers(self.state, self.life, self.shelf, self.switcher, self.turn, self.sharing)
        self.watch = Watch(self.state, self.life, self.switcher, self.turn)

    def engine_hardware(self) -> Hardware:
        """What an engine may use now: the machine without the GPUs that trainings have."""
        return without_cards(self.look(), self.state.training_cards())
