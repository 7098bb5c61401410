"""ledger.cpp's like for an interpreter: threads, a signal and a child, and 600 calls of umask(2), of which 12 are umask(5).
With nothing but what is compiled into python3. `on`: the same again and again, until it is killed."""
import _signal
import _thread
import posix
import sys

THREADS, ENTRIES = 2, 200
taken = []


def keep_books():
    for entry in range(ENTRIES):
        posix.umask(entry & 63)


def keep_books_in_thread(done):
    keep_books()
    done.release()


def once():
    threads = [_thread.allocate_lock() for _ in range(THREADS)]
    for done in threads:
        done.acquire()
        _thread.start_new_thread(keep_books_in_thread, (done,))
    for done in threads:
        done.acquire()
    keep_books()
    posix.kill(posix.getpid(), _signal.SIGUSR1)
    child = posix.fork()
    if child == 0:
        posix._exit(3)
    print("signals", len(taken), "child", posix.waitpid(child, 0)[1] >> 8, flush=True)


_signal.signal(_signal.SIGUSR1, lambda number, frame: taken.append(number))
once()
while "on" in sys.argv:
    once()
