"""A good scenario, and every way to spoil it with the exact faults that follow."""

from __future__ import annotations

GOOD = """\
version: 1
name: quick
guest: debian-13
machine:
  memory: 1GiB
  virtio_mem: {size: 2GiB, block: 2MiB}
arms:
  a: {kernel: "6.12"}
steps:
  - grow: {to: 1GiB}
"""


def case(old: str, new: str, *expected: str) -> tuple[str, str, list[str]]:
    """What is replaced in the good file, by what, and the faults that this makes."""
    return old, new, [f"s.yaml:{fault}" for fault in expected]


# Every column is where the key or value begins.
FAULTS = [
    case("version: 1", "version: 2", "1:10: version is 2; it should be 1"),
    case("version: 1\n", "", "1:1: the file has no key 'version'; add `version: ...`"),
    case(
        "name: quick",
        "name: Quick/../x",
        "2:7: name: 'Quick/../x' cannot name a folder; "
        "use up to 64 of a-z 0-9 . _ - and begin with a letter or digit",
    ),
    case("guest: debian-13", "guest: debian-1", "3:8: no guest is called 'debian-1'; there are: debian-13"),
    case(
        "guest: debian-13",
        "guests: x",
        "1:1: the file has no key 'guest'; add `guest: ...`",
        "3:1: unknown key 'guests' in the file; did you mean 'guest'?",
    ),
    case(
        "  memory: 1GiB",
        "  memroy: 1GiB",
        "5:3: machine has no key 'memory'; add `memory: ...`",
        "5:3: unknown key 'memroy' in machine; did you mean 'memory'?",
    ),
    case(
        "memory: 1GiB",
        "memory: 1536MB",
        "5:11: machine.memory: '1536MB' is not a size; write 1536MiB (units are B, KiB, MiB, GiB, TiB)",
    ),
    case(
        "memory: 1GiB",
        "memory: 2g",
        "5:11: machine.memory: '2g' is not a size; write 2GiB (units are B, KiB, MiB, GiB, TiB)",
    ),
    case(
        "memory: 1GiB",
        "memory: 1024",
        "5:11: machine.memory: 1024 is not a size; "
        "write a number with B, KiB, MiB, GiB or TiB, as in 1536MiB",
    ),
    case(
        "memory: 1GiB",
        "memory: 64MiB",
        "5:11: machine.memory is 64MiB, too little to boot; it should be at least 128MiB",
    ),
    case(
        "memory: 1GiB",
        "memory: 1025MiB",
        "5:11: machine.memory is 1025MiB, not a multiple of 2MiB; it should be 1GiB or 1026MiB",
    ),
    case(
        "block: 2MiB",
        "block: 3MiB",
        "6:35: machine.virtio_mem.block is 3MiB; it should be a power of two of at least 2MiB, such as 4MiB",
    ),
    case(
        "block: 2MiB",
        "block: 1MiB",
        "6:35: machine.virtio_mem.block is 1MiB; it should be a power of two of at least 2MiB, such as 2MiB",
    ),
    case(
        "size: 2GiB",
        "size: 2049MiB",
        "6:22: machine.virtio_mem.size is 2049MiB, not a multiple of 2MiB; it should be 2GiB or 2050MiB",
    ),
    case("size: 2GiB", "size: 0B", "6:22: machine.virtio_mem.size is 0B; it should be at least one block"),
    case(
        "  memory: 1GiB",
        "  memory: 1GiB\n  dimms: [256MiB, 200MiB, 0B, 100MiB]",
        "6:19: machine.dimms[1] is 200MiB, not a multiple of 128MiB; it should be 128MiB or 256MiB",
        "6:27: machine.dimms[2] is 0B, where it takes at least 128MiB; it should be 128MiB",
        "6:31: machine.dimms[3] is 100MiB, not a multiple of 128MiB; it should be 128MiB",
    ),
    case(
        "machine:\n",
        "clock: instructions\nmachine:\n",
        "1:1: accel is 'auto', and QEMU counts instructions under TCG only; "
        "write `accel: tcg`, or `clock: time`",
        "6:3: machine.vcpus is 2, and all vCPUs advance the clock that counts instructions; "
        "write `vcpus: 1`, or `clock: time`",
    ),
    case(
        '{kernel: "6.12"}',
        "{machine: {vcpus: 3}}\nclock: instructions\naccel: tcg",
        "8:24: machine.vcpus is 3, and all vCPUs advance the clock that counts instructions; "
        "write `vcpus: 1`, or `clock: time`",
    ),
    case(
        "machine:\n",
        "clock: cycles\nmachine:\n",
        "4:8: clock is 'cycles'; it should be 'time' or 'instructions'",
    ),
    case(
        "  memory: 1GiB",
        "  memory: 1GiB\n  dimms: 256MiB",
        "6:10: machine.dimms is '256MiB'; it should be a list",
    ),
    case(
        "  virtio_mem: {size: 2GiB, block: 2MiB}",
        "  balloon:",
        "6:3: machine.balloon is empty; it should be a mapping with keys of: free_page_reporting, "
        "deflate_on_oom",
    ),
    case(
        "machine:\n",
        "machine: 3\nx:\n",
        "4:10: machine is 3; it should be a mapping with keys of: vcpus, memory, virtio_mem, dimms, balloon",
        "5:1: unknown key 'x' in the file; there are: version, name, description, guest, "
        "kernel, kernel_args, host, host_machine, host_kernel, host_setup, accel, clock, start, machine, "
        "setup, sample_every, deadline, repeats, boots, times, warm_up, seed, requires, "
        "expect, steps, "
        "matrix, arms",
    ),
    case('{kernel: "6.12"}', "{kernel: 6.12}", '8:15: arms.a.kernel is 6.12; write it in quotes: "6.12"'),
    case(
        '"6.12"',
        '"6.1"',
        "8:15: there is no kernel '6.1'; did you mean '6.12'? A path has a '/', as in ./bzImage",
    ),
    case('{kernel: "6.12"}', "{kernal: x}", "8:7: unknown key 'kernal' in arms.a; did you mean 'kernel'?"),
    case(
        '{kernel: "6.12"}',
        "{setup: {thp: nevr}}",
        "8:20: setup.thp is 'nevr'; it should be 'image', 'always', 'madvise' or 'never'; "
        "did you mean 'never'?",
    ),
    case(
        '{kernel: "6.12"}',
        "{machine: {virtio_mem: {block: 5MiB}}}",
        "8:37: machine.virtio_mem.block is 5MiB; it should be a power of two of at least 2MiB, such as 8MiB",
    ),
    case('  a: {kernel: "6.12"}', "  a: {setup: 3}", "8:14: arms.a.setup is 3; it should be a mapping"),
    case(
        'a: {kernel: "6.12"}',
        "A b: {}",
        "8:3: arms.A b: 'A b' cannot name a folder; "
        "use up to 64 of a-z 0-9 . _ - and begin with a letter or digit",
    ),
    case('arms:\n  a: {kernel: "6.12"}\n', "", "1:1: the file has no key 'arms'; add `arms: ...`"),
    case(
        '\n  a: {kernel: "6.12"}\n', " {}\n", "7:7: arms is an empty mapping; it should have at least 1 item"
    ),
    case(
        "arms:\n",
        'setup: {redis_config: {save: "a\\nb", Dir: 1}}\narms:\n',
        "7:30: setup.redis_config.save: 'a\\nb' has a control character; write it in one line",
        "7:38: setup.redis_config.Dir: 'Dir' is not a directive of redis.conf; "
        "write it as in `maxmemory-policy`",
    ),
    case(
        "arms:\n",
        "repeats: 0\nsample_every: 1\narms:\n",
        "7:10: repeats is 0; it should be greater than or equal to 1",
        "8:15: sample_every: 1 is not a duration; write a number with ms, s, min or h, as in 30s",
    ),
    case(
        "steps:\n  - grow: {to: 1GiB}\n",
        "steps: []\n",
        "9:8: steps is an empty list; it should have at least 1 item",
    ),
    case("grow: {to: 1GiB}", "gorw: {to: 1GiB}", "10:5: there is no action 'gorw'; did you mean 'grow'?"),
    case("grow: {to: 1GiB}", "xyz:", "10:5: there is no action 'xyz'; there are: grow, look"),
    case("grow: {to: 1GiB}", "grow:", "10:5: steps[0].grow has no key 'to'; add `to: ...`"),
    case(
        "grow: {to: 1GiB}",
        "grow: 1GiB",
        "10:11: steps[0].grow is '1GiB'; it should be a mapping with keys of: to",
    ),
    case(
        "grow: {to: 1GiB}",
        "grow: {ot: 1GiB}",
        "10:11: steps[0].grow has no key 'to'; add `to: ...`",
        "10:12: unknown key 'ot' in steps[0].grow; there are: to",
    ),
    case(
        "grow: {to: 1GiB}",
        "grow: {to: 3GiB}",
        "10:16: steps[0].grow.to: 3GiB is more than the device's 2GiB; use at most 2GiB",
    ),
    case(
        "grow: {to: 1GiB}",
        "grow:\n    to: 1GiB",
        "11:5: steps[0] has 2 actions (grow, to); a step has one: "
        "indent its parameters below it, begin a new step with `- `, or name arms with `in`",
    ),
    case(
        "grow: {to: 1GiB}",
        "grow: {to: 1GiB}\n    in: a\n    look:",
        "12:5: steps[0] has 2 actions (grow, look); a step has one: "
        "indent its parameters below it, begin a new step with `- `, or name arms with `in`",
    ),
    case(
        "grow: {to: 1GiB}",
        "in: [a]",
        "10:5: steps[0] has no action, only `in`; write the action beside it, as in `unplug: {to: 0B}`",
    ),
    case(
        "grow: {to: 1GiB}",
        "look:\n    in: []",
        "11:9: steps[0].in is an empty list; it should have at least 1 item",
    ),
    case("grow: {to: 1GiB}", "look:\n    in:", "11:5: steps[0].in is empty; it should be a valid string"),
    case(
        'a: {kernel: "6.12"}\nsteps:\n  - grow: {to: 1GiB}',
        '"6.12": {}\nsteps:\n  - look:\n    in: [6.12]',
        '11:10: steps[0].in[0] is 6.12; write it in quotes: "6.12"',
    ),
    case(
        'a: {kernel: "6.12"}\nsteps:\n  - grow: {to: 1GiB}',
        "plain:\n  virtio-mem:\nsteps:\n  - look:\n  - look: {}\n    in: [plain, virtio_mem]",
        "13:17: there is no arm 'virtio_mem'; did you mean 'virtio-mem'?",
    ),
    case(
        'arms:\n  a: {kernel: "6.12"}\nsteps:\n  - grow: {to: 1GiB}',
        "arms: {}\nsteps:\n  - look:\n    in: a",
        "7:7: arms is an empty mapping; it should have at least 1 item",
    ),
    case("grow: {to: 1GiB}", "look:\n    in: every", "11:9: there is no arm 'every'; there are: a"),
    case("grow: {to: 1GiB}", "look:\n    in: [a, a]", "11:13: steps[0].in names 'a' twice; remove one"),
    case(
        'a: {kernel: "6.12"}\nsteps:\n  - grow: {to: 1GiB}',
        "a:\n  b:\n  c:\nsteps:\n  - look:\n    in: [b]\n  - grow: {to: 1GiB}\n    in: [c, b]",
        "8:3: arms.a has no steps: each is `in` other arms; add it to the `in` of a step, or remove the arm",
    ),
    # A step that is not understood may be any arm's: no second fault comes of it.
    case(
        'a: {kernel: "6.12"}\nsteps:\n  - grow: {to: 1GiB}',
        "a:\n  b:\nsteps:\n  - look:\n    in: b\n  - grow: {to: 9GiB}\n    in: [c]",
        "14:10: there is no arm 'c'; there are: a, b",
    ),
    # Only the arms that have a step are asked whether it suits them.
    case(
        'a: {kernel: "6.12"}\nsteps:\n  - grow: {to: 1GiB}',
        "a: {machine: {virtio_mem: null}}\n  b:\n  c: {machine: {virtio_mem: {size: 512MiB}}}\n"
        "steps:\n  - look:\n  - grow: {to: 1GiB}\n    in: [b, c]",
        "13:16: steps[1].grow.to: 1GiB is more than the device's 512MiB (in c); use at most 512MiB",
    ),
    case(
        "arms:\n",
        'kernel_args: "a\\tb"\narms:\n',
        "7:14: kernel_args: 'a\\tb' has a character that is not printable ASCII; "
        "write it in one line of ASCII",
    ),
    case(
        '{kernel: "6.12"}',
        f"{{kernel_args: {'x' * 513}}}",
        f"8:20: arms.a.kernel_args is '{'x' * 56}...; it should have at most 512 characters",
    ),
    case(
        '{kernel: "6.12"}',
        "{kernel_args: [quiet]}",
        "8:20: arms.a.kernel_args is a list; it should be a valid string",
    ),
    case(
        "arms:\n",
        "setup: {online_policy: movable}\narms:\n",
        "7:24: setup.online_policy is 'movable'; it should be 'online', 'online_kernel', 'online_movable' "
        "or 'auto-movable'; did you mean 'auto-movable'?",
    ),
    case(
        "arms:\n",
        "setup: {auto_movable_ratio: 200}\narms:\n",
        "7:29: setup.auto_movable_ratio: it means nothing with online_policy 'online'; "
        "remove it, or use auto-movable; in an arm, `auto_movable_ratio: null` removes it",
    ),
    case(
        "arms:\n",
        "setup: {online_policy: auto-movable, auto_movable_ratio: 10001}\narms:\n",
        "7:58: setup.auto_movable_ratio is 10001; it should be less than or equal to 10000",
    ),
    case(
        '{kernel: "6.12"}',
        "{setup: {online_policy: auto-movable, auto_movable_ratio: 2.5}}",
        "8:64: setup.auto_movable_ratio is 2.5; it should be a valid integer",
    ),
    case(
        "arms:\n",
        'setup: {sysctl: {vm.Max: 1, -w: 1, vm.overcommit_memory: "1\\n2", vm.swappiness: 1.5}}\narms:\n',
        "7:18: setup.sysctl.vm.Max: 'vm.Max' is not the name of a sysctl; write it as in `vm.max_map_count`",
        "7:29: setup.sysctl.-w: '-w' is not the name of a sysctl; write it as in `vm.max_map_count`",
        "7:58: setup.sysctl.vm.overcommit_memory: '1\\n2' has a control character; write it in one line",
        '7:81: setup.sysctl.vm.swappiness is 1.5; write it in quotes: "1.5" or a valid integer',
    ),
    case(
        '{kernel: "6.12"}',
        '{setup: {sysctl: {vm.swappiness: ""}}}',
        "8:39: setup.sysctl.vm.swappiness is ''; it should have at least 1 character or a valid integer",
    ),
    case(
        "grow: {to: 1GiB}",
        "look",
        "10:5: steps[0] is not an action with parameters; write it as `- unplug: {to: 0B}`",
    ),
    case(
        "name: quick\n",
        "name: quick\nname: again\n",
        "3:1: key 'name' appears twice; remove one; the first is at 2:1",
    ),
]
