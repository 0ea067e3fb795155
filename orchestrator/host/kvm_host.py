"""The guest that is a KVM host itself: what it is unless a scenario says otherwise."""

from __future__ import annotations

from orchestrator.host.machine import Machine

KVM_HOST = "kvm-host"  # guests/kvm-host.yaml
NESTED_KERNEL = "7.x"  # 6.12's cloud kernel has no KVM
# One vCPU: with two, each a thread of TCG's with a core of its own, every third ballooning lost the guest
# (it reset without a word, or the kernel of its host died). docs/second-level.md has what was seen.
NESTED_MACHINE = Machine.model_validate(
    {"vcpus": 1, "memory": "2GiB", "virtio_mem": {"size": "2GiB", "plugged": "1GiB"}}
)
