"""What a run folder says, one class for each fact: it is written and read by the same one."""
