"""Serving tables in ``studio.db``: models, the engine, its adapters, the current model.

All processes of the machine share them.
"""

import json
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from sage_studio.database import Database, insert
from sage_studio.serving.types import EngineRecord, Failure, ModelKind, Phase, Refusal, RegisteredModel, read_engine
from sage_studio.text import verbatim

IN_USE = "phase NOT IN ('incoming', 'retiring')"


class ServingState:
    """The tables of serving."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # Models

    def save_model(self, model: RegisteredModel) -> None:
        """Add a model, or replace the one of that name."""
        with self._database.transaction() as sql:
            sql.execute(
                "INSERT INTO models (name, kind, path, base, created_at, config, size_bytes) VALUES (?,?,?,?,?,?,?)"
                " ON CONFLICT (name) DO UPDATE SET kind=excluded.kind, path=excluded.path, base=excluded.base,"
                " config=excluded.config, size_bytes=excluded.size_bytes",
                (model.name, model.kind, model.path, model.base, model.created_at, *_more(model)),
            )

    def delete_model(self, name: str) -> None:
        """Forget a model."""
        with self._database.transaction() as sql:
            sql.execute("DELETE FROM models WHERE name=?", (name,))

    def model(self, name: str) -> RegisteredModel | None:
        """One model, or None."""
        rows = self._database.rows("SELECT * FROM models WHERE name=?", (name,))
        return self._model(rows[0]) if rows else None

    def models(self) -> list[RegisteredModel]:
        """All models, in the order in which they were registered."""
        return [self._model(row) for row in self._database.rows("SELECT * FROM models ORDER BY created_at, name")]

    def touch(self, name: str) -> None:
        """Note that a model is used now."""
        with self._database.transaction() as sql:
            sql.execute("UPDATE models SET last_used_at=? WHERE name=?", (time.time(), name))

    # The engine

    def add_engine(self, record: EngineRecord) -> EngineRecord:
        """Record an engine; its id is chosen here. Unless it is ``incoming``, it takes the place of any other, and what
        that one held is forgotten.
        """
        with self._database.transaction() as sql:
            if record.phase != "incoming":
                sql.execute(f"DELETE FROM engines WHERE {IN_USE}")
                sql.execute("DELETE FROM engine_adapters WHERE engine NOT IN (SELECT id FROM engines)")
                sql.execute("DELETE FROM serving WHERE key='failure'")
            row = {
                "kind": record.kind,
                "base": record.base.location,
                "base_name": record.base.name,
                "trust_remote_code": record.base.trust_remote_code,
                "rank": record.base.rank,
                "url": record.url,
                "key": record.key,
                "pid": record.pid,
                "create_time": record.create_time,
                "owner_pid": record.owner_pid,
                "phase": record.phase,
                "started_at": record.started_at,
                "ready_at": record.ready_at,
                "restarts": record.restarts,
                "cards": ",".join(map(str, record.gpus)),
                "memory_share": record.memory_share,
                "form": record.form,
            }
            number = insert(sql, "engines", row)
        return replace(record, id=number)

    def engine(self) -> EngineRecord | None:
        """The engine in use as it was recorded, alive or not."""
        rows = self._database.rows(f"SELECT * FROM engines WHERE {IN_USE}")
        return read_engine(rows[0]) if rows else None

    def others(self) -> list[EngineRecord]:
        """Incoming and retiring engines."""
        return [read_engine(row) for row in self._database.rows(f"SELECT * FROM engines WHERE NOT {IN_USE}")]

    def take_over(self, engine: EngineRecord) -> None:
        """Put an incoming engine in use; the one before it retires."""
        with self._database.transaction() as sql:
            sql.execute(f"UPDATE engines SET phase='retiring' WHERE {IN_USE}")
            sql.execute("DELETE FROM serving WHERE key='failure'")
            _set_phase(sql, engine, "ready")

    def set_phase(self, engine: EngineRecord, phase: Phase) -> None:
        """Note what an engine is doing. The first ``ready`` records how long its start took."""
        with self._database.transaction() as sql:
            _set_phase(sql, engine, phase)

    def set_owner(self, engine: EngineRecord, pid: int) -> None:
        """Note which process stops the engine when it ends."""
        with self._database.transaction() as sql:
            sql.execute("UPDATE engines SET owner_pid=? WHERE id=?", (pid, engine.id))

    def keeper(self) -> int | None:
        """The pid of the studio that keeps every engine of this home, whoever starts it; None if none runs."""
        value = self._value("keeper")
        return int(value) if value is not None else None

    def set_keeper(self, pid: int | None) -> None:
        """Note that a studio runs, or that it ends."""
        self._set_value("keeper", str(pid) if pid is not None else None)

    def remove_engine(self, engine: EngineRecord, failure: Failure | None = None) -> None:
        """Forget an engine and what it held; ``failure`` says why, if it did not end in order."""
        with self._database.transaction() as sql:
            sql.execute("DELETE FROM engines WHERE id=?", (engine.id,))
            sql.execute("DELETE FROM engine_adapters WHERE engine=?", (engine.id,))
            if failure is not None:
                sql.execute("INSERT OR REPLACE INTO serving VALUES ('failure', ?)", (_as_json(failure),))

    def failure(self) -> Failure | None:
        """Why there is no engine; None if it was stopped in order, never started, or runs."""
        value = self._value("failure")
        if value is None:
            return None
        base, en, zh, log = json.loads(value)
        return Failure(base, verbatim(en, zh), Path(log) if log else None)

    def set_failure(self, failure: Failure) -> None:
        """Say why there is no engine."""
        self._set_value("failure", _as_json(failure))

    def clear_failure(self) -> None:
        """Forget it."""
        self._set_value("failure", None)

    # Starts of vLLM that failed

    def refusal(self, base: str, python: str) -> Refusal | None:
        """Why vLLM is not to be started with a base by a Python; None if nothing speaks against it."""
        rows = self._database.rows(
            "SELECT * FROM engine_refusals WHERE base IN ('', ?) AND python=? ORDER BY base", (base, python)
        )
        return Refusal(rows[0]["base"], rows[0]["python"], verbatim(rows[0]["en"], rows[0]["zh"])) if rows else None

    def is_refused(self, base: str | None = None) -> bool:
        """Whether a start of vLLM with a base (None: with any) failed, by whichever Python."""
        if base is None:
            return bool(self._database.rows("SELECT 1 FROM engine_refusals LIMIT 1"))
        return bool(self._database.rows("SELECT 1 FROM engine_refusals WHERE base IN ('', ?)", (base,)))

    def add_refusal(self, refusal: Refusal) -> None:
        """Note a start that failed, so that it is not tried again and again."""
        with self._database.transaction() as sql:
            sql.execute(
                "INSERT OR REPLACE INTO engine_refusals VALUES (?,?,?,?)",
                (refusal.base, refusal.python, *refusal.message.pair()),
            )

    def clear_refusals(self) -> None:
        """Try vLLM again."""
        with self._database.transaction() as sql:
            sql.execute("DELETE FROM engine_refusals")

    def expected_seconds(self, kind: str, base: str) -> float | None:
        """How long the last start of such an engine with this base took; None if there was none."""
        rows = self._database.rows("SELECT seconds FROM engine_starts WHERE kind=? AND base=?", (kind, base))
        return float(rows[0]["seconds"]) if rows else None

    # What the engine holds

    def new_adapter(self, engine: EngineRecord, model: str) -> int:
        """A number never given before, for loading an adapter. It counts as loaded once `set_adapter` was called."""
        with self._database.transaction() as sql:
            cursor = sql.execute(
                "INSERT INTO engine_adapters (engine, model, path) VALUES (?,?,'')", (engine.id, model)
            )
            return int(cursor.lastrowid or 0)

    def set_adapter(self, number: int, path: Path) -> None:
        """Note that an adapter is loaded and verified; it answers for its model from now on."""
        with self._database.transaction() as sql:
            sql.execute("UPDATE engine_adapters SET path=? WHERE id=?", (str(path), number))

    def drop_adapter(self, number: int) -> None:
        """Forget a loaded adapter."""
        with self._database.transaction() as sql:
            sql.execute("DELETE FROM engine_adapters WHERE id=?", (number,))

    def all_adapters(self) -> set[int]:
        """The numbers that any engine holds."""
        return {int(row["id"]) for row in self._database.rows("SELECT id FROM engine_adapters")}

    def adapters(self, engine: EngineRecord) -> dict[str, int]:
        """Model name -> number under which the engine holds it now (the newest, where it was loaded again)."""
        rows = self._database.rows(
            "SELECT model, id FROM engine_adapters WHERE engine=? AND path != '' ORDER BY id", (engine.id,)
        )
        return {str(row["model"]): int(row["id"]) for row in rows}

    # A training that has the GPUs

    def paused(self) -> str | None:
        """How the engine has released its GPUs to a training (a `GpuRelease`); None if it has not."""
        return self._value("paused")

    def set_paused(self, how: str | None) -> None:
        """Record that the engine has released its GPUs, or is back."""
        self._set_value("paused", how)

    def training_gpus(self) -> tuple[int, ...] | None:
        """The GPUs that trainings use now, by index; empty for none, None for all."""
        value = self._value("training_cards")
        if value == "all":
            return None
        return tuple(int(index) for index in (value or "").split(",") if index)

    def add_training_gpus(self, gpus: Sequence[int] | None) -> None:
        """Note the GPUs of one more training; None if unknown: then all count."""
        before = self.training_gpus()
        if gpus is None or before is None:
            self._set_value("training_cards", "all")
        else:
            self._set_value("training_cards", ",".join(map(str, sorted({*before, *gpus}))))

    def clear_training_gpus(self) -> None:
        """Note that no training runs."""
        self._set_value("training_cards", None)

    def close(self) -> None:
        """Close this thread's connection."""
        self._database.close()

    # The current model

    def current(self) -> str | None:
        """The model that answers when none is named."""
        return self._value("current")

    def set_current(self, name: str | None) -> None:
        """Choose the model that answers when none is named."""
        self._set_value("current", name)

    def _value(self, key: str) -> str | None:
        rows = self._database.rows("SELECT value FROM serving WHERE key=?", (key,))
        return str(rows[0]["value"]) if rows else None

    def _set_value(self, key: str, value: str | None) -> None:
        with self._database.transaction() as sql:
            if value is None:
                sql.execute("DELETE FROM serving WHERE key=?", (key,))
            else:
                sql.execute("INSERT OR REPLACE INTO serving VALUES (?,?)", (key, value))

    def _model(self, row: sqlite3.Row) -> RegisteredModel:
        config: dict[str, Any] = json.loads(row["config"])
        return RegisteredModel(
            name=row["name"],
            kind=cast("ModelKind", row["kind"]),
            path=row["path"],
            base=row["base"],
            created_at=row["created_at"],
            config=config,
            size_bytes=row["size_bytes"],
            last_used_at=row["last_used_at"],
        )


def _as_json(failure: Failure) -> str:
    log = str(failure.log_path) if failure.log_path is not None else ""
    return json.dumps([failure.base, *failure.message.pair(), log])


def _more(model: RegisteredModel) -> tuple[str, int]:
    return json.dumps(model.config), model.size_bytes


def _set_phase(sql: sqlite3.Connection, engine: EngineRecord, phase: Phase) -> None:
    now = time.time()
    sql.execute("UPDATE engines SET phase=? WHERE id=?", (phase, engine.id))
    if phase == "ready" and engine.ready_at is None:
        sql.execute("UPDATE engines SET ready_at=? WHERE id=?", (now, engine.id))
        sql.execute(
            "INSERT OR REPLACE INTO engine_starts VALUES (?,?,?)",
            (engine.kind, engine.base.location, now - engine.started_at),
        )
