"""The model answers what an audit asked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_audit_exports import MEMINFO, audit
from test_audit_vm import read, vm
from vm_host import qemu

from orchestrator.audit.overcommit import overcommit_text
from orchestrator.cli import main


@pytest.mark.slow
def test_the_model_answers_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "host.yaml"
    (one,) = read(vm(argv=qemu("-accel", "kvm", name="a b/../<&>")))
    text = overcommit_text(audit(one), MEMINFO.replace(str(16 << 20), str(9 << 20)))
    # Of policies two will do: each other one is compiled for seconds.
    assert "policies: [none, empty, pressure_random, lru]" in text
    path.write_text(text.replace(", pressure_random, lru]", "]"))
    with pytest.raises(SystemExit) as ended:
        main(["model", "overcommit", str(path), "--html", str(tmp_path / "page.html"), "--json"])
    said = capsys.readouterr()
    assert ended.value.code == 0, said.err
    assert "a_b_.._" in path.read_text()
    assert json.loads(said.out)


@pytest.mark.parametrize("policy", ["flush", "collapse", "collapse-and-flush", "drop"])
def test_a_policy_over_a_tree_is_none_of_its_policies(
    policy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says once which second-level tables go, and nothing of which is evicted when memory is short."""
    path = tmp_path / "host.yaml"
    (one,) = read(vm(argv=qemu("-accel", "kvm", name="a")))
    path.write_text(overcommit_text(audit(one), MEMINFO).replace("[none,", f"[{policy}, none,"))
    with pytest.raises(SystemExit) as ended:
        main(["model", "overcommit", str(path), "--json"])
    said = " ".join(capsys.readouterr().err.split())
    assert ended.value.code == 2
    assert f"policy '{policy}' answers no question over a trace" in said
    assert "pressure_random" in said
