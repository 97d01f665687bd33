"""One card for serving and training: the engine sleeps or stops while a training has the card, and comes back after.

Knows how the engine yields and what a chat is told meanwhile. Knows nothing of tasks: somebody says when a training is
about to start and when the last one is over.
"""

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence

from sage_studio.errors import Conflict, EngineUnavailable, StudioError
from sage_studio.hardware import Hardware
from sage_studio.serving.adapters import AdapterShelf
from sage_studio.serving.engine import Engine
from sage_studio.serving.gpu import Slots
from sage_studio.serving.life import EngineLife
from sage_studio.serving.model_facts import read_facts
from sage_studio.serving.room import ASLEEP_GB, Yielding, backed_up_gb, before_training, pinned_limit_gb
from sage_studio.serving.state import ServingState
from sage_studio.serving.switching import Turn
from sage_studio.serving.vllm import may_sleep
from sage_studio.settings import Settings
from sage_studio.text import Text

logger = logging.getLogger("sage_studio")

WAIT_SECONDS = 3600.0
"""The longest that a chat waits for a training, with ``chat_while_training: wait``."""
POLL_SECONDS = 0.2
PAUSED = Text(
    "A training has the graphics card. The chat is back when it ends.", "训练正在使用显卡，结束后即可继续对话。"
)
INSTEAD = Text(
    "Wait, stop the training, or set SAGE_STUDIO_CHAT_WHILE_TRAINING=wait so that messages wait by themselves.",
    "请稍候，或停止训练；也可设置 SAGE_STUDIO_CHAT_WHILE_TRAINING=wait，让消息自动等待。",
)


class Sharing:
    """Lets a training have the card."""

    def __init__(
        self,
        settings: Settings,
        state: ServingState,
        life: EngineLife,
        shelf: AdapterShelf,
        turn: Turn,
        look: Callable[[], Hardware],
    ) -> None:
        self._settings = settings
        self._state = state
        self._life = life
        self._shelf = shelf
        self._turn = turn
        self._look = look

    def before_training(self, cards: Sequence[int] | None = None) -> None:
        """Free a training's GPUs, if the engine holds one of them; answers under way may finish first.

        Args:
            cards: indices of the GPUs that the training uses; None: unknown, so all of them.

        Raises:
            Conflict: the model is being switched; ask again when that is over.
        """
        if not self._look().has_gpu:
            return
        self._state.add_training_cards(cards)
        if self._state.paused() is not None or self._decide(cards) is Yielding.NOTHING:
            return
        with self._turn.taken(seconds=0):
            how, engine = self._decide(cards), self._life.recorded()
            if engine is None or how is Yielding.NOTHING:
                return
            self._state.set_paused(how)
            self._life.drain(engine)
            if how is Yielding.STOP or not self._sleep(engine):
                self._state.set_paused(Yielding.STOP)
                self._life.stop()
            logger.info("The engine yields the card to a training (%s)", self._state.paused())

    def after_training(self) -> None:
        """Bring the engine back, with the model that was current.

        Raises:
            EngineUnavailable, InvalidModel: it does not start; the status says why.
        """
        self._state.clear_training_cards()
        if self._state.paused() is None:
            return
        with self._turn.taken():
            how, engine = self._state.paused(), self._life.recorded()
            try:
                if how == Yielding.STOP or engine is None or not self._wake(engine):
                    self._start()
            finally:
                self._state.set_paused(None)
            logger.info("The engine is back from the training")

    def admit(self) -> None:
        """Let a chat pass unless trainings have all GPUs; else wait or refuse, as the operator chose.

        Raises:
            Conflict: refused, or waited too long.
        """
        deadline = time.monotonic() + WAIT_SECONDS
        while self._blocked():
            if self._settings.chat_while_training == "refuse" or time.monotonic() > deadline:
                raise Conflict(PAUSED, INSTEAD)
            time.sleep(POLL_SECONDS)

    def refuse(self) -> None:
        """Raise `Conflict` while trainings have all GPUs: a switch is not worth waiting for."""
        if self._blocked():
            raise Conflict(PAUSED, Text("Switch when it is over, or stop it.", "请在结束后切换，或停止该训练。"))

    def given_back(self, held: Mapping[int, float]) -> dict[int, float]:
        """What a training gets of what the engine holds (GiB, by index of the GPU), if it yields all of them."""
        if not held:
            return {}
        how = self._decide(tuple(held))
        kept = {Yielding.NOTHING: math.inf, Yielding.SLEEP: ASLEEP_GB, Yielding.STOP: 0.0}[how]
        return {index: max(0.0, gb - kept) for index, gb in held.items()}

    def _blocked(self) -> bool:
        """Whether the engine yields now, or would have no GPU to start on."""
        if self._state.paused() is not None:
            return True
        taken = self._state.training_cards()
        if taken == () or self._settings.engine == "openai":
            return False
        engine = self._life.recorded()
        if engine is not None and engine.alive():
            return False
        cards = self._look().cards
        return bool(cards) and (taken is None or all(card.index in taken for card in cards))

    def _decide(self, cards: Sequence[int] | None) -> Yielding:
        engine, hardware = self._life.recorded(), self._look()
        if engine is None or not engine.alive():
            return Yielding.NOTHING
        record = engine.record
        slots = Slots(self._settings.max_loras, record.base.rank)
        kept = backed_up_gb(record, hardware, read_facts(record.base.location), slots)
        sleeps = may_sleep(self._settings)
        return before_training(hardware, record, sleeps, kept, cards, pinned_limit_gb(hardware))

    def _sleep(self, engine: Engine) -> bool:
        try:
            engine.client.sleep()
        except EngineUnavailable as error:
            logger.warning("The engine does not sleep, so it is stopped: %s", error)
            return False
        self._state.set_phase(engine.record, "asleep")
        return True

    def _wake(self, engine: Engine) -> bool:
        try:
            engine.client.wake_up()
        except EngineUnavailable as error:
            logger.warning("The engine does not wake up, so it is started anew: %s", error)
            return False
        self._state.set_phase(engine.record, "ready")
        return True

    def _start(self) -> None:
        name = self._state.current()
        model = self._state.model(name) if name is not None else None
        self._life.stop()
        if model is None:
            return
        try:
            model, base = self._shelf.check(model)
            self._shelf.put_up(self._life.start(base), model)
        except StudioError as error:
            logger.error("The engine did not come back after the training: %s", error)
            raise
