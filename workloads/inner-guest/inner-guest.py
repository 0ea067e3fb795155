#!/usr/bin/python3
"""Runs a guest under KVM in this one, and measures the second-level page tables that KVM builds for it.

    inner-guest MEMORY fill=BYTES leave=BYTES

The inner guest is this kernel with busybox: it has no disk and no network, and does what it is told over its
serial console. It boots, writes FILL bytes to a tmpfs in four parts, removes them, and its balloon leaves it
LEAVE bytes. What it takes is measured at six moments, and printed as one line of JSON: second_level_bytes is
SecPageTables of /proc/meminfo, kvm_pages_* are KVM's own counts of leaf entries (/sys/kernel/debug/kvm),
ranges_4k and ranges_2m the aligned ranges of 2 MiB of its memory that QEMU has in pages of 4 KiB, or as a
huge page. The inner guest then runs on until SIGTERM.
"""

import array
import ctypes
import gzip
import json
import lzma
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

PAGE = 4096
RANGE = 2 << 20
PARTS = 4
SECONDS = 300  # for each thing that the inner guest is told to do
INIT = """#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t devtmpfs dev /dev
$b mount -t tmpfs -o size=95% fill /fill
$b insmod /virtio_balloon.ko || echo FAILED insmod
echo READY
while read -r what part mib; do
  case $what in
    fill) $b dd if=/dev/zero of=/fill/$part bs=1M count=$mib 2>/dev/null || echo FAILED fill ;;
    drop) $b rm -f /fill/* ;;
  esac
  echo DONE
done
"""


def give_up(why):
    sys.stderr.write(f"inner-guest: {why}\n")
    raise SystemExit(1)


def run(*argv, **options):
    done = subprocess.run(argv, capture_output=True, check=False, **options)
    if done.returncode:
        give_up(f"{argv[0]}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def initramfs(folder):
    """Busybox, the balloon's driver and a script, in the format of usr/gen_init_cpio.c."""
    root = folder / "root"
    for name in ("bin", "proc", "dev", "fill"):
        (root / name).mkdir(parents=True)
    shutil.copy("/bin/busybox", root / "bin" / "busybox")
    release = os.uname().release
    module = pathlib.Path(f"/lib/modules/{release}/kernel/drivers/virtio/virtio_balloon.ko.xz")
    (root / "virtio_balloon.ko").write_bytes(lzma.decompress(module.read_bytes()))
    (root / "init").write_text(INIT)
    (root / "init").chmod(0o755)
    names = "\n".join(str(path.relative_to(root)) for path in root.rglob("*"))
    packed = folder / "initramfs"
    packed.write_bytes(gzip.compress(run("cpio", "-o", "-H", "newc", input=names.encode(), cwd=root), 1))
    return packed


class Inner:
    """The inner guest's QEMU."""

    def __init__(self, folder, memory):
        self.folder, self.memory = folder, memory
        self.said, self.news = [], threading.Condition()
        argv = ["qemu-system-x86_64", "-accel", "kvm", "-cpu", "host", "-smp", "1", "-nodefaults"]
        argv += ["-no-reboot", "-display", "none", "-m", f"{memory >> 20}M", "-device", "virtio-balloon-pci"]
        argv += ["-kernel", f"/boot/vmlinuz-{os.uname().release}", "-initrd", str(initramfs(folder))]
        argv += ["-append", "console=ttyS0 quiet panic=-1"]
        argv += ["-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"]
        argv += ["-qmp", f"unix:{folder}/qmp,server=on,wait=off"]
        # It ends with this process, whatever ends this process (prctl(2), PR_SET_PDEATHSIG).
        libc = ctypes.CDLL(None)
        self.process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            preexec_fn=lambda: libc.prctl(1, signal.SIGKILL),  # noqa: PLW1509  # no other thread runs yet
        )
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self):
        for line in self.process.stdout:
            with self.news:
                self.said = [*self.said[-50:], line.decode(errors="replace").strip()]
                self.news.notify()
        with self.news:
            self.said.append("FAILED: QEMU ended")
            self.news.notify()

    def wait(self, word):
        ends = time.monotonic() + SECONDS
        with self.news:
            while True:
                if any("FAILED" in line for line in self.said):
                    give_up("; ".join(self.said[-5:]))
                if any(word in line for line in self.said):
                    self.said.clear()
                    return
                if not self.news.wait(ends - time.monotonic()):
                    give_up(f"the inner guest did not say {word} in {SECONDS} s: {'; '.join(self.said[-5:])}")

    def tell(self, what):
        self.process.stdin.write(f"{what}\n".encode())
        self.process.stdin.flush()
        self.wait("DONE")

    def balloon(self, leave):
        """Ask for it, and wait until nothing has changed for ten seconds."""
        with socket.socket(socket.AF_UNIX) as qmp:
            qmp.settimeout(30)
            qmp.connect(f"{self.folder}/qmp")
            stream = qmp.makefile("rw")
            stream.readline()
            ask(stream, "qmp_capabilities")
            ask(stream, "balloon", value=leave)
            ends = time.monotonic() + SECONDS
            last, since = None, time.monotonic()
            while time.monotonic() - since < 10:
                now = (ask(stream, "query-balloon")["actual"], second_level_bytes())
                if now != last:
                    last, since = now, time.monotonic()
                if time.monotonic() > ends:
                    give_up(f"the balloon still moves after {SECONDS} s")
                time.sleep(1)

    def measure(self):
        """What it takes now."""
        first, last, huge = self._ram()
        with pathlib.Path(f"/proc/{self.process.pid}/pagemap").open("rb") as pagemap:
            pagemap.seek(first // PAGE * 8)
            entries = array.array("Q", pagemap.read((last - first) // PAGE * 8))
        step = RANGE // PAGE
        # Bit 63: present (Documentation/admin-guide/mm/pagemap.rst).
        ranges = (entries[start : start + step] for start in range(0, len(entries), step))
        used = sum(any(entry >> 63 for entry in pages) for pages in ranges)
        return {
            "second_level_bytes": second_level_bytes(),
            "kvm_pages_4k": kvm_count("pages_4k"),
            "kvm_pages_2m": kvm_count("pages_2m"),
            "ranges_4k": used - huge // RANGE,
            "ranges_2m": huge // RANGE,
        }

    def _ram(self):
        """The inner guest's memory in QEMU: its address, its end, and bytes of it that are huge pages."""
        found = None
        for line in pathlib.Path(f"/proc/{self.process.pid}/smaps").read_text().splitlines():
            area = re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line)
            if area:
                first, last = (int(word, 16) for word in area.groups())
                here = last - first == self.memory
            elif here and line.startswith("AnonHugePages:"):
                found = (first, last, int(line.split()[1]) << 10)
        return found or give_up("QEMU has no area of the size of the inner guest's memory")


def ask(stream, command, **arguments):
    stream.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
    stream.flush()
    for line in stream:
        answer = json.loads(line)
        if "error" in answer:
            give_up(f"{command}: {answer['error']['desc']}")
        if "return" in answer:
            return answer["return"]
    return give_up("QEMU ended")


def second_level_bytes():
    return int(re.search(r"SecPageTables:\s+(\d+)", pathlib.Path("/proc/meminfo").read_text())[1]) << 10


def kvm_count(name):
    return int(pathlib.Path("/sys/kernel/debug/kvm", name).read_text())


def work(folder, memory, fill, leave, out):
    began = time.monotonic()
    subprocess.run(["modprobe", "-a", "kvm_amd", "kvm_intel"], capture_output=True, check=False)
    if not pathlib.Path("/dev/kvm").exists():
        give_up("there is no /dev/kvm here: this guest's CPU has no virtualization, or its kernel no KVM")
    if not os.path.ismount("/sys/kernel/debug"):
        run("mount", "-t", "debugfs", "debugfs", "/sys/kernel/debug")
    inner = Inner(folder, memory)
    moments = {}
    inner.wait("READY")
    moments["booted"] = inner.measure()
    for part in range(1, PARTS + 1):
        inner.tell(f"fill {part} {(fill >> 20) // PARTS}")
        moments[f"filled_{part}"] = inner.measure()
    inner.tell("drop")
    inner.balloon(leave)
    moments["emptied"] = inner.measure()
    figures = {"pid": os.getpid(), "start_seconds": round(time.monotonic() - began, 3)}
    for moment, found in moments.items():
        figures |= {f"{moment}_{name}": value for name, value in found.items()}
    os.write(out, (json.dumps(figures) + "\n").encode())
    os.close(out)
    os.dup2(1, 2)  # whoever started this waits for the end of its standard error
    inner.process.wait()


def main():
    memory = int(sys.argv[1])
    options = dict(word.split("=") for word in sys.argv[2:])
    reads, out = os.pipe()
    # As holder.h does it: the child works and stays, this process ends with the report.
    if os.fork() == 0:
        os.close(reads)
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(null, 1)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        with tempfile.TemporaryDirectory() as folder:
            work(pathlib.Path(folder), memory, int(options["fill"]), int(options["leave"]), out)
        sys.exit(1)
    os.close(out)
    answer = os.read(reads, 65536)
    if not answer:
        sys.exit(1)
    sys.stdout.buffer.write(answer)


main()
