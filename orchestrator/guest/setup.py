"""Sets a guest up: what all have, by `playbooks/`; what arms differ in, by `guest-settings` in the guest.

Nothing else in the project imports ansible-runner.
"""

from __future__ import annotations

import os
import shlex
import sys
import threading
import time
from collections.abc import Callable, Mapping, Set
from pathlib import Path
from typing import Any

from orchestrator.errors import SetupError
from orchestrator.guest.keys import SshKeys
from orchestrator.guest.shell import GuestShell
from orchestrator.host.confined import DAC_READ_SEARCH, confine_children
from orchestrator.host.orphans import children, reap, zombies
from orchestrator.host.runtime import end, processes_of

SETUP_SECONDS = 600
SETTINGS_SECONDS = 120.0
SETTINGS = "/usr/local/bin/guest-settings"


def apply_playbook(
    playbook: Path,
    variables: dict[str, Any],
    shell: GuestShell,
    keys: SshKeys,
    scratch: Path,
    *,
    check: Callable[[], None],
) -> None:
    """Run a playbook against the guest `guest`. `scratch` is a folder that goes with the run.

    `check` is called every second, and raises when there is no use in going on. Raises SetupError with
    the failed task and what it said.
    """
    import ansible_runner

    scratch.mkdir(parents=True, exist_ok=True)
    host = {
        "ansible_host": "127.0.0.1",
        "ansible_port": shell.port,
        "ansible_user": "root",
        "ansible_ssh_private_key_file": str(keys.client),
        "ansible_python_interpreter": "/usr/bin/python3",
        # -F /dev/null: the user's own ssh configuration has no say here.
        "ansible_ssh_common_args": (
            f"-F /dev/null -o IdentitiesOnly=yes -o IdentityAgent=none -o StrictHostKeyChecking=yes"
            f" -o UserKnownHostsFile={shell.known_hosts} -o GlobalKnownHostsFile=/dev/null"
            + (f" -o ProxyCommand={shlex.quote(shell.proxy)}" if shell.proxy else "")
        ),
    }
    failures: list[str] = []
    connections = scratch / "c"

    def on_event(event: dict[str, Any]) -> bool:
        if event.get("event") in {"runner_on_failed", "runner_on_unreachable"}:
            data = event.get("event_data", {})
            said = data.get("res", {})
            # `msg` of a command that failed is but "non-zero return code"
            text = said.get("stderr") or said.get("module_stderr") or said.get("msg") or ""
            failures.append(f"{data.get('task', 'a task')}: {str(text)[:2000]}")
        return False  # keep no copy of the event on disk

    # ansible-runner installs signal handlers where it may; in a thread it leaves ours alone.
    finished: list[Any] = []
    cancel = threading.Event()

    def work() -> None:
        try:
            # Ansible takes what the guest answers apart. To read is what root has to be able to in the
            # home of a user, where it may be installed.
            confine_children((DAC_READ_SEARCH,), no_new_privileges=True)
            run()
        except Exception as error:  # noqa: BLE001  # raised to whoever waits for this thread, below
            failures.append(f"{type(error).__name__}: {error}")

    def run() -> None:
        finished.append(
            ansible_runner.run(
                private_data_dir=str(scratch),
                playbook=str(playbook.resolve()),
                inventory={"all": {"hosts": {"guest": host}}},
                extravars=_literal(variables),
                envvars={
                    # ansible-playbook is installed beside our own interpreter, on PATH or not
                    "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}",
                    "ANSIBLE_HOST_KEY_CHECKING": "True",  # ansible-runner switches it off by default
                    "ANSIBLE_PIPELINING": "True",
                    "ANSIBLE_SSH_CONTROL_PATH_DIR": str(connections),  # a unix socket's path is short
                    "ANSIBLE_LOCAL_TEMP": str(scratch / "tmp"),
                    "ANSIBLE_HOME": str(scratch / "home"),
                    "ANSIBLE_NOCOLOR": "True",
                    "ANSIBLE_TIMEOUT": "60",
                },
                quiet=True,
                event_handler=on_event,
                cancel_callback=cancel.is_set,
                settings={"suppress_ansible_output": True, "job_timeout": SETUP_SECONDS},
            )
        )

    others = children()
    thread = threading.Thread(target=work, name="ansible", daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(1.0)
            check()
    except BaseException:
        cancel.set()
        thread.join(10)
        raise
    finally:
        _end_connections(connections, others)
    if not finished or finished[0].status != "successful":
        status = finished[0].status if finished else "did not start"
        said = "\n".join(failures[-3:]) or (finished[0].stdout.read()[-2000:] if finished else "")
        raise SetupError(f"setting up the guest failed ({playbook.name}: {status})", details=said)


def _end_connections(folder: Path, others: Set[int]) -> None:
    """End what Ansible left for its next task (ControlPersist): an ssh, an orphan, whose parent we may be.

    `others`: our children before. One that has ended by itself has no command line any more to know it by.
    """
    left = tuple(processes_of(folder))
    end(left)
    for pid in {one.pid for one in left} | (zombies("ssh") - others):
        reap(pid)


def apply_settings(shell: GuestShell, settings: Mapping[str, object], *, clock: bool) -> None:
    """Set what arms may differ in (a scenario's `setup`), the clock to ours if `clock`, and that the OOM
    killer spares this connection.

    Raises SetupError with what the guest said.
    """
    words = ["connection=spared", *setting_words(settings)]
    if clock:
        words.insert(0, f"clock={time.time():.3f}")
    done = shell.run([SETTINGS, *words], seconds=SETTINGS_SECONDS, check=False)
    if done.code != 0:
        said = done.stderr.decode(errors="replace").strip()[-2000:]
        raise SetupError("the guest could not be set as the scenario asks", details=said)


def setting_words(settings: Mapping[str, object]) -> list[str]:
    """`NAME=VALUE` of each setting that is there; a key of a mapping comes after a dot."""
    words = []
    for name, value in settings.items():
        if isinstance(value, Mapping):
            words += [f"{name}.{word}" for word in setting_words(value)]
        elif value is not None:
            words.append(f"{name}={value}")
    return words


def _literal(value: Any) -> Any:
    """A variable whose texts stay what they are.

    Ansible takes extra variables for templates: a `{{ lookup('pipe', ...) }}` in a scenario would run a
    command on the host. In its JSON, texts marked so are none (AnsibleJSONDecoder, `__ansible_unsafe`).
    """
    if isinstance(value, dict):
        return {key: _literal(inner) for key, inner in value.items()}
    return {"__ansible_unsafe": value} if isinstance(value, str) else value
