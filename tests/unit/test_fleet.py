"""What a fleet is made of: its configuration and certificates, what trials need, and folders on their way."""

from __future__ import annotations

import hashlib
import io
import ssl
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_execute import plan

from orchestrator.errors import BadInputError, FileProblemsError, InfrastructureError
from orchestrator.fleet.archive import Packed, pack, unpack
from orchestrator.fleet.card import HostCard, Program, this_host, this_program
from orchestrator.fleet.certificates import make_fleet
from orchestrator.fleet.config import load_fleet
from orchestrator.fleet.needs import missing, must_be_able, must_run_on_its_host, needs_by_arm
from orchestrator.plan import Plan
from orchestrator.records.plan import PlanRecord
from orchestrator.scenario.model import Requires

GIB = 1 << 30
PROGRAM = Program(commit="c0ffee", lock="10c", sources="50")
CARD = HostCard(
    name="h1",
    token="t1",  # noqa: S106  # names one life of a worker
    program=PROGRAM,
    memory=8 * GIB,
    cores=4,
    disk=20 * GIB,
    kvm="",
    second_level="EPT",
    nested=False,
    architecture="x86_64",
    kernel="6.12.43+deb13-amd64",
    cpu="a CPU",
)
STEPS = "  - wait: {time: 1s}\n"


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    make_fleet(tmp_path / "keys")
    return tmp_path / "keys"


def test_keys_are_their_owner_s_and_a_client_cannot_pass_for_a_head(keys: Path) -> None:
    assert {path.name: path.stat().st_mode & 0o777 for path in keys.glob("*.key")} == {
        f"{name}.key": 0o600 for name in ("ca", "head", "worker", "client")
    }

    def shake_hands(server: str, client: str) -> str:
        """By TLS alone; empty, or why not."""
        ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        theirs.check_hostname = False
        for context, name in ((ours, server), (theirs, client)):
            context.load_cert_chain(keys / f"{name}.pem", keys / f"{name}.key")
            context.load_verify_locations(keys / "ca.pem")
            context.verify_mode = ssl.CERT_REQUIRED
        up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
        ends = [ours.wrap_bio(up, down, server_side=True), theirs.wrap_bio(down, up)]
        for _ in range(4):
            for end in reversed(ends):
                try:
                    end.do_handshake()
                except ssl.SSLWantReadError:
                    pass
                except ssl.SSLError as error:
                    return str(error.reason)
        return ""

    assert (
        shake_hands("head", "worker") == shake_hands("head", "client") == shake_hands("worker", "head") == ""
    )
    assert shake_hands("client", "worker") == "CERTIFICATE_VERIFY_FAILED"
    with pytest.raises(BadInputError, match="nothing was written"):
        make_fleet(keys)


def test_what_init_writes_is_read(keys: Path) -> None:
    fleet = load_fleet(keys / "fleet.toml")
    assert (fleet.text.head, fleet.text.retries, fleet.text.silent) == ("tls://127.0.0.1:8786", 2, 300)
    files = fleet.certificates("worker")
    assert files is not None
    assert files.key == keys / "worker.key"
    (keys / "worker.key").chmod(0o640)
    with pytest.raises(BadInputError, match="others may read"):
        fleet.certificates("worker")
    (keys / "client.pem").unlink()
    with pytest.raises(BadInputError, match=r"client\.pem: No such file"):
        fleet.certificates("client")
    text = (keys / "fleet.toml").read_text()
    for name, default in (("worker_port", "8788"), ("silent", '"5min"'), ("retries", "2"), ("wait", '"30s"')):
        assert f"\n# {name} = {default}\n" in text
        (keys / "fleet.toml").write_text(text.replace(f"# {name}", name))
        assert load_fleet(keys / "fleet.toml").text == fleet.text, "what is commented is the default"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("version = 1\nhead = 1", ":2:1: head is 1; "),
        ("version = 1\nhead = 'tcp://10.0.0.1:1'", ":2:1: head: tcp://10.0.0.1:1 has neither authentication"),
        ("version = 1\nhead = 'tcp://node1:1'", "and node1 is not loopback"),
        ("version = 1\nhead = 'tls://a:70000'", "is no address; write it as tls://HOST:PORT"),
        ("version = 1\nhead = 'tls://a:1'", "takes certificates; add a table [tls]"),
        (
            "version = 1\nhead = 'tcp://[::1]:1'\nretry = 1",
            ":3:1: unknown key 'retry' in the file; did you mean",
        ),
        (
            "version = 1\nhead = 'tcp://127.0.0.1:1'\n[tls]\nkey = 1",
            ":3:1: tls has no key 'ca'; add `ca = ...`",
        ),
        ("head = 'tcp://localhost:1'", ":1:1: the file has no key 'version'"),
        ("version = 1\nhead = \n", ":2:8: Invalid value"),
        (
            "version = 1\nhead = 'tcp://127.0.0.1:1'\nsilent = '5s'",
            ":3:1: silent is '5s'; it should be greater",
        ),
    ],
)
def test_every_fault_of_the_file_has_its_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "fleet.toml"
    path.write_text(text)
    with pytest.raises(FileProblemsError) as refused:
        load_fleet(path)
    assert said in str(refused.value), str(refused.value)


def test_on_loopback_there_need_be_no_certificates(tmp_path: Path) -> None:
    path = tmp_path / "fleet.toml"
    path.write_text("version = 1\nhead = 'tcp://127.0.0.1:8786'\n")
    assert load_fleet(path).certificates("worker") is None


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "a-01"
    (made / "snapshots").mkdir(parents=True)
    (made / "unit.json").write_text("{}")
    (made / "snapshots" / "1.npz").write_bytes(b"x" * 1000)
    (made / "console.log").symlink_to("/etc/passwd")
    return made


def test_a_folder_arrives_as_it_was_without_links(tmp_path: Path, folder: Path) -> None:
    unpack(pack(folder, 2000), tmp_path / "there", 2000)
    found = {
        path.relative_to(tmp_path / "there"): path.read_bytes() for path in (tmp_path / "there").rglob("*.*")
    }
    assert found == {Path("unit.json"): b"{}", Path("snapshots/1.npz"): b"x" * 1000}
    with pytest.raises(InfrastructureError, match="at most"):
        pack(folder, 1000)


def member(name: str, size: int = 0, **words: Any) -> Packed:
    """An archive with one member."""
    info = tarfile.TarInfo(name)
    info.size = size
    for key, value in words.items():
        setattr(info, key, value)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        archive.addfile(info, io.BytesIO(b"\0" * size))
    return Packed(buffer.getvalue(), hashlib.sha256(buffer.getvalue()).hexdigest())


@pytest.mark.parametrize(
    ("packed", "why"),
    [
        (member("../out"), "leads out"),
        (member("/tmp/out"), "leads out"),
        (member("a/../../out"), "leads out"),
        (member("a", type=tarfile.SYMTYPE, linkname="/etc/passwd"), "is no file"),
        (member("a", type=tarfile.LNKTYPE, linkname="/etc/passwd"), "is no file"),
        (member("a", type=tarfile.CHRTYPE), "is no file"),
        (member("a", type=tarfile.DIRTYPE), "is no file"),
        (member("a", 1 << 20), "too large"),
        (replace(member("a"), sha256="0" * 64), "not what its SHA-256 says"),
        (Packed(b"\x1f\x8bnot", hashlib.sha256(b"\x1f\x8bnot").hexdigest()), "cannot be unpacked"),
        (
            Packed(member("a", 5000).data[:40], hashlib.sha256(member("a", 5000).data[:40]).hexdigest()),
            "cannot be unpacked",
        ),
    ],
)
def test_what_is_no_folder_of_a_trial_is_refused(tmp_path: Path, packed: Packed, why: str) -> None:
    with pytest.raises(InfrastructureError, match=why):
        unpack(packed, tmp_path / "there", 10_000)
    assert {path.name for path in tmp_path.iterdir()} <= {"there"}
    assert not any(path.is_file() for path in (tmp_path / "there").rglob("*"))


def of(**words: Any) -> Plan:
    """A plan that requires this."""
    return plan(STEPS).model_copy(update={"requires": Requires.model_validate(words)})


def test_a_machine_implies_what_its_trials_need() -> None:
    planned = plan(STEPS)
    needs = needs_by_arm(planned)
    assert set(needs) == {arm.name for arm in planned.arms}
    one = next(iter(needs.values()))
    machine = planned.arms[0].machine
    assert one.memory > machine.maximum_memory, "and QEMU's own"
    assert (one.cores, one.exclusive, one.kvm) == (machine.vcpus, True, False)
    assert missing(one, CARD) == []
    assert one.takes(CARD).cores == CARD.cores, "where times are measured nothing else runs there"
    ignored = needs_by_arm(planned.model_copy(update={"times": "ignored"}))
    assert next(iter(ignored.values())).takes(CARD).cores == machine.vcpus
    small = CARD.model_copy(update={"memory": one.memory - 1})
    assert missing(one, small)[0].startswith("memory: ")


@pytest.mark.parametrize(
    ("requires", "has", "lacks"),
    [
        ({"cores": 8}, {}, "cores: 4 of 8"),
        ({"memory": "9GiB"}, {}, "memory: 8 GiB of 9 GiB"),
        ({"disk": "30GiB"}, {}, "free disk: 20 GiB of 30 GiB"),
        ({"kvm": True}, {"kvm": "there is no /dev/kvm"}, "KVM: there is no /dev/kvm"),
        ({"second_level": "NPT"}, {}, "NPT: it has EPT"),
        ({"nested": True}, {}, "nested KVM"),
        ({"architecture": "aarch64"}, {}, "architecture aarch64: it is x86_64"),
        ({"kernel": "6.13"}, {}, "Linux 6.13: it has 6.12.43+deb13-amd64"),
        ({"kernel": "6.12"}, {}, None),
        ({"kernel": "6.9", "kvm": True, "second_level": "EPT", "cores": 4}, {}, None),
    ],
)
def test_what_is_required_beyond_that(
    requires: dict[str, Any], has: dict[str, Any], lacks: str | None
) -> None:
    card = CARD.model_copy(update=has)
    needs = needs_by_arm(of(**requires))
    found = {tuple(missing(one, card)) for one in needs.values()}
    assert found == {(lacks,) if lacks else ()}
    if lacks is None:
        must_be_able(needs, [card], PROGRAM)
        return
    with pytest.raises(BadInputError, match="no host of the fleet can do trials of") as refused:
        must_be_able(needs, [card], PROGRAM)
    assert refused.value.details == f"h1: {lacks}"


def test_another_program_is_no_host_and_both_are_named() -> None:
    other = CARD.model_copy(update={"program": PROGRAM.model_copy(update={"lock": "20c"})})
    with pytest.raises(BadInputError) as refused:
        must_be_able(needs_by_arm(plan(STEPS)), [other], PROGRAM)
    assert refused.value.details == "h1: lock: 20c, not 10c"
    must_be_able(needs_by_arm(plan(STEPS)), [other, CARD], PROGRAM)


def test_a_plan_with_a_host_of_its_own_is_not_spread() -> None:
    with pytest.raises(BadInputError, match="and not on a fleet"):
        must_run_on_its_host(plan(STEPS).model_copy(update={"host": "qemu+ssh://root@elsewhere/system"}))
    must_run_on_its_host(plan(STEPS))


def test_a_plan_that_requires_nothing_has_the_hash_that_it_had() -> None:
    """Units of an older version name it by that."""
    planned = plan(STEPS)
    assert '"requires"' not in planned.to_json()
    required = of(cores=2)
    assert Plan.from_json(required.to_json()) == required
    assert PlanRecord.model_validate_json(required.to_json()).requires is not None


def test_this_host_says_what_it_is(tmp_path: Path) -> None:
    card = this_host("here", "t", tmp_path)
    assert card.program == this_program()
    assert len(card.program.sources) == len(card.program.lock) == 64
    assert card.kvm, "no image is in this cache to try it with"
    assert HostCard.model_validate(card.model_dump(mode="json")) == card
    assert card.memory > 0
