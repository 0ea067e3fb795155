"""The machine that runs guests: libvirt, its QEMU processes, and what belongs to a run on it."""
