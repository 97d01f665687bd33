"""What a child process is told of the studio's environment: never a secret that it does not need.

Imports nothing but the standard library: the doctor runs before anything is installed.
"""

import os
import re
from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

SECRET = re.compile(r"(^|_)(AUTH|TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|PAT|(API)?KEY)$", re.IGNORECASE)
"""Names of variables that hold secrets: SAGE_STUDIO_AUTH, OPENAI_API_KEY, GITHUB_TOKEN, AWS_SECRET_ACCESS_KEY …"""
PASSWORD_IN_ADDRESS = re.compile(r"://[^/\s@]*:[^/\s@]+@")
HUB = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_ENDPOINT")
"""What it takes to ask the model hub: the token, and the address, which may hold a password."""
SWITCHES = ("HF_HUB_DISABLE_IMPLICIT_TOKEN",)
"""Sound like secrets and are none."""
PROXY = re.compile(r"(https?|all|no|ftp|socks)_proxy", re.IGNORECASE)
SYSTEM = re.compile(
    r"PATH|HOME|USER|LOGNAME|SHELL|LANG|LANGUAGE|LC_\w+|TZ|TMPDIR|TEMP|TMP|LD_LIBRARY_PATH|PYTHON\w+|VIRTUAL_ENV|XDG_\w+"
)
NETWORK = re.compile(r"SSL_CERT_(FILE|DIR)|CURL_CA_BUNDLE|REQUESTS_CA_BUNDLE|GIT_\w+|SSH_(AUTH_SOCK|AGENT_PID)")


class Needs(StrEnum):
    """What a child process needs of the environment. It gets no more.

    SYSTEM: what any program needs (paths, language, temporary folder). For programs that read untrusted files.
    NETWORK: proxies, certificates and the ssh agent besides. For git and the share tunnel.
    LIBRARIES: every variable but secrets, for those that steer torch, CUDA, vLLM and the like.
    HUB: the model hub's token and address besides. For what may download a model.
    EVERYTHING: for the studio itself, started in the background.
    """

    SYSTEM = "system"
    NETWORK = "network"
    LIBRARIES = "libraries"
    HUB = "hub"
    EVERYTHING = "everything"


def child_environment(
    needs: Needs,
    variables: Mapping[str, str] = MappingProxyType({}),
    environment: Mapping[str, str] = os.environ,
) -> dict[str, str]:
    """The whole environment of a child process. Every child is started with it; a test looks.

    Args:
        needs: what the child gets of ``environment``.
        variables: the child's own, its key among them; they win.
        environment: the studio's.

    Example:
        >>> studio = {"PATH": "/bin", "SAGE_STUDIO_AUTH": "me:secret", "HF_TOKEN": "hf_1", "CUDA_VISIBLE_DEVICES": "0"}
        >>> child_environment(Needs.LIBRARIES, {"OMP_NUM_THREADS": "1"}, studio)
        {'PATH': '/bin', 'CUDA_VISIBLE_DEVICES': '0', 'OMP_NUM_THREADS': '1'}
    """
    return {name: value for name, value in environment.items() if _may_have(needs, name, value)} | dict(variables)


def _may_have(needs: Needs, name: str, value: str) -> bool:
    if needs is Needs.EVERYTHING or (needs is Needs.HUB and name in HUB):
        return True
    if PROXY.fullmatch(name):  # may hold a password, without which nothing outside is reached
        return needs in (Needs.NETWORK, Needs.HUB)
    if (SECRET.search(name) and name not in SWITCHES) or PASSWORD_IN_ADDRESS.search(value):
        return False
    if needs in (Needs.LIBRARIES, Needs.HUB):
        return True
    return bool(SYSTEM.fullmatch(name)) or (needs is Needs.NETWORK and bool(NETWORK.fullmatch(name)))
