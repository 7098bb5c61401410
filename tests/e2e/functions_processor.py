"""Executions of instructions as the processor counts them, with its own breakpoints: the program runs at its native speed or under
ddbg, whose breakpoint at the same place traps after the processor's."""
import ctypes
import os
import struct

AT_ONCE = 4  # debug registers

SYS_PERF_EVENT_OPEN, PERF_FLAG_FD_CLOEXEC = 298, 8
PERF_TYPE_BREAKPOINT, HW_BREAKPOINT_X = 5, 4
ATTRIBUTE_SIZE = 136
INHERIT, EXCLUDE_KERNEL, EXCLUDE_HV, INHERIT_THREAD = (1 << bit for bit in (1, 5, 6, 35))


def open_event(tid, address):
    attribute = bytearray(ATTRIBUTE_SIZE)
    struct.pack_into("II", attribute, 0, PERF_TYPE_BREAKPOINT, ATTRIBUTE_SIZE)
    # New threads count too, forked children do not.
    struct.pack_into("Q", attribute, 40, INHERIT | INHERIT_THREAD | EXCLUDE_KERNEL | EXCLUDE_HV)
    struct.pack_into("=IQQ", attribute, 52, HW_BREAKPOINT_X, address, 8)
    fd = ctypes.CDLL(None, use_errno=True).syscall(SYS_PERF_EVENT_OPEN, ctypes.c_char_p(bytes(attribute)), tid, -1, -1, PERF_FLAG_FD_CLOEXEC)
    if fd < 0:
        raise OSError(ctypes.get_errno(), f"perf_event_open: {os.strerror(ctypes.get_errno())}")
    return fd


class Counters:
    """Of one process from now on, which has to stand still meanwhile."""

    def __init__(self, pid, addresses):
        tids = [int(tid) for tid in os.listdir(f"/proc/{pid}/task")]
        self.events = {address: [open_event(tid, address) for tid in tids] for address in addresses}

    def close(self):
        """{address: executions}"""
        counts = {}
        for address, fds in self.events.items():
            counts[address] = sum(struct.unpack("Q", os.read(fd, 8))[0] for fd in fds)
            for fd in fds:
                os.close(fd)
        return counts


def why_not():
    """Why the processor cannot count here, "" if it can."""
    function = ctypes.CDLL(None).labs
    address = ctypes.cast(function, ctypes.c_void_p).value
    try:
        counters = Counters(os.getpid(), [address])
    except OSError as error:
        return str(error)
    for _ in range(3):
        function(1)
    return "" if counters.close() == {address: 3} else "the processor's breakpoints do not count"
