"""The operator's settings: ``configs/studio.yaml``, overridden by ``SAGE_STUDIO_`` environment variables."""

import os
import re
from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    YamlConfigSettingsSource,
)

from sage_studio.errors import InvalidSetting
from sage_studio.text import Text
from sage_studio.validation_errors import RuleError, first_error

PROJECT = Path(__file__).resolve().parent.parent
CONFIGS = next(path for path in (PROJECT / "configs", PROJECT / "sage_studio" / "configs") if path.is_dir())
"""Beside the package in a checkout, inside it where a wheel was installed."""
PREFIX = "SAGE_STUDIO_"
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII)
SECRETS = ("auth", "engine_api_key")
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Settings(BaseSettings):
    """All settings, checked once at the start and never changed after it."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, frozen=True, extra="forbid")

    home: Path = Field(Path("~/.sage"), description="Where the studio keeps everything it writes.")
    host: str = Field("127.0.0.1", description="Address to bind. Anything but loopback requires a login.")
    port: int = Field(7860, ge=1, le=65535, description="Port of the web app and the REST API.")
    share: bool = Field(False, description="Open a public Gradio link. Requires a login.")
    auth: str = Field("", description="user:password. Empty: none on loopback, generated and printed otherwise.")
    public_names: str = Field(
        "",
        description="Names under which a reverse proxy offers the studio, such as studio.example.org, by commas. "
        "Pages of any other origin are refused.",
    )
    allowed_users: str = Field(
        "", description="On a Space with OAuth: who may sign in beside its owner; names on the hub, by commas."
    )
    local_roots: str = Field(
        "",
        description="Folders of this machine that requests may name, by commas or colons. Empty: none where a login is "
        "needed, any on loopback.",
    )
    default_model: str = Field("", description="Model offered first. Empty: chosen by the hardware found.")
    trust_remote_code: bool = Field(False, description="Run code that comes with models typed by hand.")

    docs_repo: str = Field(
        "https://github.com/intellistream/SAGE-Pub.git",
        description="SAGE documentation: a git address, a mirror, file://, a local folder or a git bundle.",
    )
    docs_branch: str = Field("", description="Branch or tag; empty: the repository's default.")
    docs_folder: str = Field("docs_src", description="Folder inside the repository that holds the Markdown.")

    max_upload_mb: int = Field(2048, ge=1, description="Largest file that may be uploaded, in MiB.")
    max_running: int = Field(0, ge=0, description="Trainings at the same time; 0: one per GPU. The rest wait in order.")
    stop_grace_seconds: float = Field(120.0, gt=0, description="Time for a checkpoint after stop, before SIGKILL.")

    engine: Literal["auto", "vllm", "transformers", "openai"] = Field(
        "auto", description="Inference engine. auto: vLLM where it is installed, else transformers."
    )
    engine_url: str = Field("", description="For engine=openai: base address of the server, ending in /v1.")
    engine_api_key: str = Field("", description="For engine=openai: its key.")
    engine_start_seconds: float = Field(600.0, gt=0, description="Longest wait for an engine to become ready.")
    vllm_python: str = Field("", description="Python of another environment that holds vLLM.")
    gpu_memory_utilization: float = Field(0.8, gt=0, le=1, description="Share of a GPU that vLLM may take.")
    max_loras: int = Field(4, ge=1, le=64, description="Adapters that answer side by side in one engine.")
    sleep_mode: bool | Literal["auto"] = Field(
        "auto",
        description="On a GPU, vLLM sleeps while a training runs instead of stopping; auto: yes.",
    )
    chat_while_training: Literal["refuse", "wait"] = Field(
        "refuse", description="What a chat does while a training has the GPU: a polite error, or wait for its end."
    )
    max_lora_rank: int = Field(64, ge=1, le=512, description="Largest LoRA rank the engine accepts.")
    keep_engine: bool = Field(False, description="Leave the engine running when the studio stops.")
    restore_backend: bool = Field(False, description="After a restart, make the last model current again.")

    @field_validator("allowed_users")
    @classmethod
    def _are_names(cls, value: str) -> str:
        for name in split_names(value):
            if not HUB_NAME.fullmatch(name):
                raise RuleError(Text("{name!r} is no user name; separate names by commas", name=name))
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What is passed in wins over the environment, the environment over the file."""
        return init_settings, env_settings, YamlConfigSettingsSource(settings_cls, config_file())

    @property
    def root(self) -> Path:
        """Everything but ``studio.log`` lies under here."""
        return self.home.expanduser().absolute() / "studio_finetune"

    @property
    def log_path(self) -> Path:
        """One line per event."""
        return self.root.parent / "studio.log"

    @property
    def database_path(self) -> Path:
        """Tasks, models and datasets."""
        return self.root / "studio.db"

    @property
    def docs_dir(self) -> Path:
        """The clone of the SAGE documentation."""
        return self.root / "sage_docs"

    @property
    def docs_data_path(self) -> Path:
        """The SAGE documentation as Alpaca rows."""
        return self.root / "sage_docs_finetune_data.json"

    @property
    def datasets_dir(self) -> Path:
        """One folder per dataset."""
        return self.root / "datasets"

    @property
    def jobs_dir(self) -> Path:
        """One folder per piece of long work on a dataset."""
        return self.root / "dataset_jobs"

    @property
    def models_dir(self) -> Path:
        """Base models unpacked on this machine."""
        return self.root / "models"

    @property
    def downloads_dir(self) -> Path:
        """One folder per download of a hub model; the models themselves lie in the Hugging Face cache."""
        return self.root / "downloads"

    @property
    def outputs_dir(self) -> Path:
        """One folder per task."""
        return self.root / "outputs"

    @property
    def uploads_dir(self) -> Path:
        """Files on their way in; on the same disk as the datasets they become."""
        return self.root / "uploads"

    @property
    def local_roots_list(self) -> list[Path]:
        """The folders that requests may name."""
        given = re.split(f"[,{os.pathsep}]", self.local_roots)
        return [Path(root.strip()) for root in given if root.strip()]

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which a child process reads the same settings; without secrets."""
        values = self.model_dump(mode="json", exclude=set(SECRETS))
        return {f"{PREFIX}{name.upper()}": str(value) for name, value in values.items() if value != ""}

    @property
    def needs_login(self) -> bool:
        """Whether anyone but this machine's users could reach the studio, or a login was asked for."""
        return self.share or self.host not in LOOPBACK or bool(self.auth)


def split_names(value: str) -> list[str]:
    """The names in a list separated by commas or blanks."""
    return value.replace(",", " ").split()


def config_file() -> Path:
    """The YAML file in force: ``SAGE_STUDIO_CONFIG`` or the one shipped in ``configs/``."""
    return Path(os.environ.get(f"{PREFIX}CONFIG", CONFIGS / "studio.yaml"))


def load_settings(**overrides: object) -> Settings:
    """Read the settings.

    Args:
        overrides: values that win over the environment and the file.

    Raises:
        InvalidSetting: naming the setting, its value and the rule.
    """
    try:
        return Settings(**overrides)  # type: ignore[arg-type]  # pydantic checks them
    except ValidationError as error:
        first = first_error(error.errors())
        name, message = first.name, first.sentence
        raise InvalidSetting(
            Text("A setting cannot be used. {message}.", message=message),
            Text(
                "Correct {prefix}{upper} or the key {name} in {config_file}.",
                prefix=PREFIX,
                upper=name.upper(),
                name=name,
                config_file=config_file(),
            ),
        ) from error
    except (OSError, yaml.YAMLError) as error:
        raise InvalidSetting(
            Text("{config_file} cannot be read: {error}", config_file=config_file(), error=error),
            Text("Correct the file, or unset SAGE_STUDIO_CONFIG."),
        ) from error
