// Memory: mappings and what they allow, from the manual pages of mmap, mprotect, mremap, brk,
// madvise, shmat, mincore, mlock. Long because it is one table of many small cases.
#include "conformance.h"

#include <fcntl.h>
#include <setjmp.h>
#include <sys/ipc.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/uio.h>
#include <sys/wait.h>

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif

// --- What an access meets -----------------------------------------------------------------------
static sigjmp_buf after_fault;
static volatile int fault_signal, fault_code;
static void* volatile fault_address;
static void on_fault(int signal, siginfo_t* info, void* context) {
  (void)context;
  fault_signal = signal;
  fault_code = info->si_code;
  fault_address = info->si_addr;
  siglongjmp(after_fault, 1);
}
static void catch_faults(void) {
  install(SIGSEGV, on_fault, 0);
  install(SIGBUS, on_fault, 0);
}
enum Access { kRead, kWrite, kExecute };
// The signal that the access raises, 0 if none.
static int access_raises(volatile char* at, enum Access access) {
  catch_faults();
  fault_signal = 0;
  if (sigsetjmp(after_fault, 1) == 0) {
    if (access == kRead)
      (void)*at;
    else if (access == kWrite)
      *at = 1;
    else
      ((void (*)(void))(uintptr_t)at)();
  }
  return fault_signal;
}
static int raises_at(volatile char* at, enum Access access, int signal, int code) {
  return access_raises(at, access) == signal && fault_code == code && fault_address == at;
}

static int new_file(size_t size) {
  int fd = memfd_create("conformance", MFD_CLOEXEC);
  CHECK(fd >= 0 && ftruncate(fd, (off_t)size) == 0);
  return fd;
}

// --- mmap ---------------------------------------------------------------------------------------
static void anonymous_is_zero(void) {
  char* p = new_pages(16);
  for (size_t i = 0; i < 16 * kPage; ++i)
    CHECK(p[i] == 0);
  memset(p, 7, 16 * kPage);
  CHECK(munmap(p, 16 * kPage) == 0);
}
static void fixed_replaces(void) {
  char* p = new_pages(3);
  memset(p, 7, 3 * kPage);
  CHECK(mmap(p + kPage, kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
             0) == p + kPage);
  CHECK(p[0] == 7 && p[kPage] == 0 && p[2 * kPage] == 7);
  munmap(p, 3 * kPage);
}
static void fixed_noreplace(void) {
  char* p = new_pages(1);
  CHECK_FAILS(
      (long)mmap(p, kPage, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0),
      EEXIST);
  munmap(p, kPage);
  CHECK(mmap(p, kPage, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == p);
  munmap(p, kPage);
}
static void mmap_errors(void) {
  int fd = new_file(kPage);
  CHECK_FAILS((long)mmap(NULL, 0, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), EINVAL);
  CHECK_FAILS((long)mmap(NULL, kPage, PROT_READ, MAP_ANONYMOUS, -1, 0), EINVAL); // neither kind
  CHECK_FAILS((long)mmap(NULL, kPage, PROT_READ, MAP_PRIVATE, fd, 100), EINVAL);
  CHECK_FAILS((long)mmap(NULL, kPage, PROT_READ, MAP_PRIVATE, -1, 0), EBADF);
  CHECK_FAILS(
      (long)mmap((void*)1, kPage, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0),
      EINVAL);
  CHECK_FAILS((long)mmap(NULL, SIZE_MAX - 2 * kPage, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
              ENOMEM);
  int only_read = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
  CHECK_FAILS((long)mmap(NULL, kPage, PROT_READ | PROT_WRITE, MAP_SHARED, only_read, 0), EACCES);
  int only_write = open("/dev/null", O_WRONLY | O_CLOEXEC);
  CHECK_FAILS((long)mmap(NULL, kPage, PROT_READ, MAP_PRIVATE, only_write, 0), EACCES);
  int directory = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  CHECK_FAILS((long)mmap(NULL, kPage, PROT_READ, MAP_PRIVATE, directory, 0), ENODEV);
  close(fd), close(only_read), close(only_write), close(directory);
}
static void private_file_is_copied(void) {
  int fd = new_file(kPage);
  CHECK(pwrite(fd, "abc", 3, 0) == 3);
  char* p = mmap(NULL, kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
  CHECK(memcmp(p, "abc", 3) == 0);
  p[0] = 'X';
  char byte = 0;
  CHECK(pread(fd, &byte, 1, 0) == 1 && byte == 'a');
  munmap(p, kPage);
  close(fd);
}
static void shared_file_is_shared(void) {
  int fd = new_file(2 * kPage);
  char* p = mmap(NULL, kPage, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)kPage);
  char* q = mmap(NULL, 2 * kPage, PROT_READ, MAP_SHARED, fd, 0);
  p[5] = 'X';
  char byte = 0;
  CHECK(q[kPage + 5] == 'X' && pread(fd, &byte, 1, (off_t)kPage + 5) == 1 && byte == 'X');
  CHECK(pwrite(fd, "Y", 1, (off_t)kPage + 6) == 1 && p[6] == 'Y');
  CHECK(msync(p, kPage, MS_SYNC) == 0);
  CHECK_FAILS(msync(p, kPage, MS_SYNC | MS_ASYNC), EINVAL);
  munmap(p, kPage), munmap(q, 2 * kPage);
  CHECK_FAILS(msync(p, kPage, MS_SYNC), ENOMEM);
  close(fd);
}
static void shared_with_a_child(void) {
  volatile int* shared =
      mmap(NULL, kPage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  char* own = new_pages(1);
  pid_t child = fork();
  if (child == 0) {
    *shared = 17;
    own[0] = 17;
    _exit(0);
  }
  CHECK(status_of(child) == 0 && *shared == 17 && own[0] == 0);
  munmap((void*)shared, kPage), munmap(own, kPage);
}
static void beyond_the_end_of_a_file(void) {
  int fd = new_file(kPage + 100);
  char* p = mmap(NULL, 4 * kPage, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  CHECK(access_raises(p + kPage + 101, kRead) == 0 && p[kPage + 101] == 0);
  CHECK(raises_at(p + 2 * kPage + 8, kRead, SIGBUS, BUS_ADRERR));
  CHECK(raises_at(p + 3 * kPage + 9, kWrite, SIGBUS, BUS_ADRERR));
  CHECK(ftruncate(fd, 3 * (off_t)kPage) == 0);
  CHECK(access_raises(p + 2 * kPage + 8, kRead) == 0);
  CHECK(ftruncate(fd, 100) == 0);
  CHECK(raises_at(p + kPage, kRead, SIGBUS, BUS_ADRERR)); // it was there
  CHECK(access_raises(p, kRead) == 0);
  munmap(p, 4 * kPage);
  close(fd);
}
static void truncated_while_mapped(void) {
  int fd = new_file(8 * kPage);
  char* p = mmap(NULL, 8 * kPage, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  memset(p, 3, 8 * kPage);
  CHECK(ftruncate(fd, 0) == 0 && ftruncate(fd, 8 * (off_t)kPage) == 0);
  for (int i = 0; i < 8; ++i)
    CHECK(p[(size_t)i * kPage] == 0);
  CHECK(fallocate(fd, 0, 0, 8 * (off_t)kPage) == 0);
  memset(p, 4, 8 * kPage);
  CHECK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)kPage, (off_t)kPage) == 0);
  CHECK(p[0] == 4 && p[kPage] == 0 && p[2 * kPage] == 4);
  munmap(p, 8 * kPage);
  close(fd);
}
static void populated(void) {
  char* p = mmap(NULL, 8 * kPage, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  unsigned char in_core[8];
  CHECK(mincore(p, 8 * kPage, in_core) == 0);
  for (int i = 0; i < 8; ++i)
    CHECK(in_core[i] & 1);
  munmap(p, 8 * kPage);
}
static void below_4g(void) {
  char* p =
      mmap(NULL, kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
  CHECK(p != MAP_FAILED && (uintptr_t)p < 1ul << 31);
  CHECK(access_raises(p, kWrite) == 0);
  munmap(p, kPage);
}
static void hint_above_47_bits(void) {
  // Without five levels of page tables the hint is only that.
  char* p =
      mmap((void*)(1ul << 50), kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(p != MAP_FAILED && access_raises(p, kWrite) == 0);
  char* moved = mremap(p, kPage, kPage, MREMAP_MAYMOVE | MREMAP_FIXED, (void*)(1ul << 51));
  if (moved == MAP_FAILED)
    CHECK(errno == EINVAL);
  else
    p = moved;
  CHECK(access_raises(p, kWrite) == 0);
  munmap(p, kPage);
}
static void grows_down(void) {
  char* area = new_pages(64);
  munmap(area, 64 * kPage);
  char* p = mmap(area + 60 * kPage, 2 * kPage, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE | MAP_GROWSDOWN, -1, 0);
  CHECK(p == area + 60 * kPage);
  for (int page = 59; page >= 50; --page) {
    CHECK(access_raises(area + (size_t)page * kPage + 100, kWrite) == 0);
    CHECK(area[(size_t)page * kPage + 100] == 1 && area[(size_t)page * kPage] == 0);
  }
  CHECK(mapped_as(area + 50 * kPage, "rw-p"));
  munmap(area + 50 * kPage, 12 * kPage);
}
static void the_stack_grows(void) {
  struct rlimit limit;
  CHECK(getrlimit(RLIMIT_STACK, &limit) == 0);
  volatile char low[512 * 1024];
  for (size_t i = sizeof low; i >= 4096; i -= 4096)
    low[i - 1] = (char)i;
  CHECK(low[sizeof low - 1] == (char)sizeof low);
}
static void the_kernel_writes_into_the_grown_stack(void) {
  // By read(2), into stack that no instruction has touched.
  int fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);
  volatile char low[1024 * 1024];
  CHECK(read(fd, (char*)low + 4096, 64) == 64 && low[4096] == 0);
  close(fd);
}

// --- munmap -------------------------------------------------------------------------------------
static void unmapped_faults(void) {
  char* p = new_pages(3);
  memset(p, 1, 3 * kPage);
  CHECK(munmap(p + kPage, kPage) == 0);
  CHECK(raises_at(p + kPage + 16, kRead, SIGSEGV, SEGV_MAPERR));
  CHECK(raises_at(p + kPage + 17, kWrite, SIGSEGV, SEGV_MAPERR));
  CHECK(raises_at(p + kPage + 18, kExecute, SIGSEGV, SEGV_MAPERR));
  CHECK(p[0] == 1 && p[2 * kPage] == 1);
  munmap(p, 3 * kPage);
}
static void munmap_errors(void) {
  char* p = new_pages(2);
  CHECK_FAILS(munmap(p + 1, kPage), EINVAL);
  CHECK_FAILS(munmap(p, 0), EINVAL);
  CHECK_FAILS(munmap((void*)~0xffful, kPage), EINVAL);
  CHECK(munmap(p, 2 * kPage) == 0 && munmap(p, 2 * kPage) == 0); // nothing there is no error
}
static volatile int stop_reader;
static char* volatile remapped;
static void* rereader(void* unused) {
  while (!stop_reader) {
    // Sees zero or one whole: each new mapping is filled before it is put there.
    char value = *(volatile char*)remapped;
    CHECK(value == 5);
  }
  return unused;
}
static void moved_over_while_read(void) {
  stop_reader = 0;
  remapped = new_pages(1);
  remapped[0] = 5;
  pthread_t reader = start(rereader, NULL);
  for (int i = 0; i < 300; ++i) {
    char* next = new_pages(1);
    next[0] = 5;
    CHECK(mremap(next, kPage, kPage, MREMAP_MAYMOVE | MREMAP_FIXED, remapped) == remapped);
  }
  stop_reader = 1;
  finish(reader);
  munmap(remapped, kPage);
}

// --- mprotect -----------------------------------------------------------------------------------
static void rights_are_kept_to(void) {
  char* p = new_pages(1);
  p[0] = (char)0xc3; // ret
  CHECK(raises_at(p, kExecute, SIGSEGV, SEGV_ACCERR));
  CHECK(mprotect(p, kPage, PROT_READ) == 0);
  CHECK(access_raises(p, kRead) == 0 && raises_at(p, kWrite, SIGSEGV, SEGV_ACCERR));
  CHECK(mprotect(p, kPage, PROT_READ | PROT_EXEC) == 0);
  CHECK(access_raises(p, kExecute) == 0 && raises_at(p, kWrite, SIGSEGV, SEGV_ACCERR));
  CHECK(mprotect(p, kPage, PROT_NONE) == 0);
  CHECK(raises_at(p + 1, kRead, SIGSEGV, SEGV_ACCERR));
  CHECK(mprotect(p, kPage, PROT_READ | PROT_WRITE) == 0);
  CHECK(p[0] == (char)0xc3 && access_raises(p, kWrite) == 0);
  munmap(p, kPage);
}
static void rights_of_a_part(void) {
  char* p = new_pages(5);
  memset(p, 1, 5 * kPage);
  CHECK(mprotect(p + kPage, kPage, PROT_READ) == 0);
  CHECK(mprotect(p + 3 * kPage, kPage, PROT_NONE) == 0);
  CHECK(mapped_as(p + kPage, "r--p") && mapped_as(p + 3 * kPage, "---p") &&
        mapped_as(p + 4 * kPage, "rw-p"));
  CHECK(access_raises(p + 2 * kPage, kWrite) == 0 && access_raises(p + kPage, kWrite) == SIGSEGV &&
        access_raises(p + 3 * kPage, kRead) == SIGSEGV);
  munmap(p, 5 * kPage);
}
static void mprotect_errors(void) {
  char* p = new_pages(3);
  CHECK_FAILS(mprotect(p + 1, kPage, PROT_READ), EINVAL);
  CHECK_FAILS(mprotect(p, kPage, 0x100), EINVAL);
  CHECK_FAILS(mprotect(p, kPage, PROT_READ | PROT_GROWSUP | PROT_GROWSDOWN), EINVAL);
  munmap(p + kPage, kPage);
  CHECK_FAILS(mprotect(p, 3 * kPage, PROT_READ), ENOMEM);
  int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
  char* file = mmap(NULL, kPage, PROT_READ, MAP_SHARED, fd, 0);
  CHECK_FAILS(mprotect(file, kPage, PROT_READ | PROT_WRITE), EACCES);
  munmap(file, kPage), munmap(p, 3 * kPage);
  close(fd);
}
static void code_is_rewritten(void) {
  char* p =
      mmap(NULL, kPage, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  for (int i = 0; i < 200; ++i) {
    const unsigned char code[] = {0xb8, (unsigned char)i, 0, 0, 0, 0xc3}; // mov $i,%eax; ret
    memcpy(p, code, sizeof code);
    CHECK(((int (*)(void))(uintptr_t)p)() == i);
  }
  munmap(p, kPage);
}
static void code_through_another_mapping(void) {
  int fd = new_file(kPage);
  unsigned char* w = mmap(NULL, kPage, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  char* x = mmap(NULL, kPage, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
  for (int i = 0; i < 200; ++i) {
    const unsigned char code[] = {0xb8, (unsigned char)i, 0, 0, 0, 0xc3};
    memcpy(w, code, sizeof code);
    CHECK(((int (*)(void))(uintptr_t)x)() == i);
  }
  munmap(w, kPage), munmap(x, kPage);
  close(fd);
}
static volatile int writer_ready, writer_stopped_by;
static void on_writer_fault(int signal, siginfo_t* info, void* context) {
  (void)info, (void)context;
  writer_stopped_by = signal;
  siglongjmp(after_fault, 1);
}
static void* writes_until_stopped(void* page) {
  if (sigsetjmp(after_fault, 1) == 0)
    for (;;) {
      ++*(volatile long*)page;
      writer_ready = 1;
    }
  return NULL;
}
static void taken_from_a_running_thread(void) {
  writer_ready = writer_stopped_by = 0;
  install(SIGSEGV, on_writer_fault, 0);
  volatile long* page = (volatile long*)new_pages(1);
  pthread_t writer = start(writes_until_stopped, (void*)page);
  while (!writer_ready)
    sched_yield();
  CHECK(mprotect((void*)page, kPage, PROT_READ) == 0);
  long seen = *page; // from now on nobody writes
  for (int i = 0; i < 100000; ++i)
    CHECK(*page == seen);
  finish(writer);
  CHECK(writer_stopped_by == SIGSEGV && *page == seen);
  munmap((void*)page, kPage);
}

// --- mremap -------------------------------------------------------------------------------------
static void grows_in_place_or_moves(void) {
  char* p = new_pages(4);
  for (int i = 0; i < 4; ++i)
    p[(size_t)i * kPage] = (char)(i + 1);
  munmap(p + 2 * kPage, 2 * kPage);
  CHECK(mremap(p, 2 * kPage, 3 * kPage, 0) == p && p[kPage] == 2 && p[2 * kPage] == 0);
  char* big = mremap(p, 3 * kPage, 300 * kPage, MREMAP_MAYMOVE);
  CHECK(big != MAP_FAILED && big[0] == 1 && big[kPage] == 2 && big[299 * kPage] == 0);
  if (big != p)
    CHECK(access_raises(p, kRead) == SIGSEGV);
  CHECK(mremap(big, 300 * kPage, kPage, 0) == big && access_raises(big + kPage, kRead) == SIGSEGV);
  munmap(big, kPage);
}
static void moves_to_an_address(void) {
  char* p = new_pages(2);
  char* to = new_pages(4);
  p[0] = 1, p[kPage] = 2, to[kPage] = 9;
  CHECK(mremap(p, 2 * kPage, 2 * kPage, MREMAP_MAYMOVE | MREMAP_FIXED, to + kPage) == to + kPage);
  CHECK(to[kPage] == 1 && to[2 * kPage] == 2 && access_raises(p, kRead) == SIGSEGV);
  munmap(to, 4 * kPage);
}
static void keeps_the_old_one_mapped(void) {
  char* p = new_pages(2);
  p[0] = 1;
  char* q = mremap(p, 2 * kPage, 2 * kPage, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL);
  CHECK(q != MAP_FAILED && q != p && q[0] == 1 && p[0] == 0);
  munmap(p, 2 * kPage), munmap(q, 2 * kPage);
}
static void doubles_a_shared_one(void) {
  char* p = mmap(NULL, kPage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  char* q = mremap(p, 0, kPage, MREMAP_MAYMOVE);
  CHECK(q != MAP_FAILED && q != p);
  p[3] = 4;
  CHECK(q[3] == 4);
  munmap(p, kPage), munmap(q, kPage);
}
static void mremap_errors(void) {
  char* p = new_pages(4);
  CHECK_FAILS((long)mremap(p + 1, kPage, kPage, 0), EINVAL);
  CHECK_FAILS((long)mremap(p, kPage, 0, 0), EINVAL);
  CHECK_FAILS((long)mremap(p, kPage, kPage, 0x80), EINVAL);
  CHECK_FAILS((long)mremap(p, kPage, kPage, MREMAP_FIXED, p + 2 * kPage), EINVAL);
  CHECK_FAILS((long)mremap(p, 2 * kPage, 2 * kPage, MREMAP_MAYMOVE | MREMAP_FIXED, p + kPage),
              EINVAL);
  CHECK_FAILS((long)mremap(p, kPage, 3 * kPage, 0), ENOMEM); // the neighbour is in the way
  munmap(p, 4 * kPage);
  CHECK_FAILS((long)mremap(p, kPage, 2 * kPage, MREMAP_MAYMOVE), EFAULT);
}

// --- brk ----------------------------------------------------------------------------------------
static void brk_moves_the_end(void) {
  char* end = (char*)syscall(SYS_brk, 0);
  char* grown = (char*)syscall(SYS_brk, end + 16 * kPage);
  CHECK(grown == end + 16 * kPage);
  memset(end, 3, 16 * kPage);
  CHECK((char*)syscall(SYS_brk, end) == end);
  char* above = (char*)(((uintptr_t)end + kPage - 1) & ~(kPage - 1));
  CHECK(raises_at(above + kPage, kRead, SIGSEGV, SEGV_MAPERR));
  CHECK((char*)syscall(SYS_brk, end + 16 * kPage) == end + 16 * kPage && above[kPage] == 0);
  CHECK((char*)syscall(SYS_brk, end) == end);
}
static void brk_refuses_with_the_old_end(void) {
  char* end = (char*)syscall(SYS_brk, 0);
  CHECK(end == sbrk(0));
  CHECK((char*)syscall(SYS_brk, (char*)1) == end);
  CHECK((char*)syscall(SYS_brk, (char*)(1ul << 46)) == end);
  struct rlimit old, small;
  CHECK(getrlimit(RLIMIT_DATA, &old) == 0);
  small = old;
  small.rlim_cur = 0;
  CHECK(setrlimit(RLIMIT_DATA, &small) == 0);
  CHECK((char*)syscall(SYS_brk, end + 64 * kPage) == end);
  CHECK(setrlimit(RLIMIT_DATA, &old) == 0);
}

// --- madvise ------------------------------------------------------------------------------------
static void dontneed_zeroes(void) {
  char* p = new_pages(4);
  memset(p, 1, 4 * kPage);
  CHECK(madvise(p + kPage, 2 * kPage, MADV_DONTNEED) == 0);
  CHECK(p[0] == 1 && p[kPage] == 0 && p[2 * kPage] == 0 && p[3 * kPage] == 1);
  munmap(p, 4 * kPage);
}
static void dontneed_shows_the_file(void) {
  int fd = new_file(kPage);
  CHECK(pwrite(fd, "file", 4, 0) == 4);
  char* p = mmap(NULL, kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
  memcpy(p, "mine", 4);
  CHECK(madvise(p, kPage, MADV_DONTNEED) == 0 && memcmp(p, "file", 4) == 0);
  munmap(p, kPage);
  close(fd);
}
static void* drops_it(void* page) {
  CHECK(madvise(page, kPage, MADV_DONTNEED) == 0);
  return NULL;
}
static void dontneed_by_another_thread(void) {
  volatile char* p = new_pages(1);
  for (int i = 0; i < 50; ++i) {
    p[10] = 1;
    finish(start(drops_it, (void*)p));
    CHECK(p[10] == 0);
  }
  munmap((void*)p, kPage);
}
static void remove_punches(void) {
  int fd = new_file(2 * kPage);
  char* p = mmap(NULL, 2 * kPage, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  memset(p, 1, 2 * kPage);
  CHECK(madvise(p, kPage, MADV_REMOVE) == 0);
  char byte = 9;
  CHECK(p[0] == 0 && p[kPage] == 1 && pread(fd, &byte, 1, 0) == 1 && byte == 0);
  munmap(p, 2 * kPage);
  close(fd);
}
static void dontfork(void) {
  char* p = new_pages(2);
  CHECK(madvise(p, kPage, MADV_DONTFORK) == 0);
  pid_t child = fork();
  if (child == 0)
    _exit(readable(p) * 2 + readable(p + kPage));
  CHECK(status_of(child) == 1 << 8);
  CHECK(madvise(p, kPage, MADV_DOFORK) == 0);
  munmap(p, 2 * kPage);
}
static void wiped_on_fork(void) {
  char* p = new_pages(1);
  p[0] = 1;
  CHECK(madvise(p, kPage, MADV_WIPEONFORK) == 0);
  pid_t child = fork();
  if (child == 0)
    _exit(p[0] + 10);
  CHECK(status_of(child) == 10 << 8 && p[0] == 1);
  munmap(p, kPage);
}
static void populate_answers(void) {
  char* p = new_pages(2);
  CHECK(madvise(p, 2 * kPage, MADV_POPULATE_WRITE) == 0);
  CHECK(mprotect(p, kPage, PROT_READ) == 0);
  CHECK(madvise(p, kPage, MADV_POPULATE_READ) == 0);
  CHECK_FAILS(madvise(p, kPage, MADV_POPULATE_WRITE), EINVAL);
  int fd = new_file(kPage);
  char* q = mmap(NULL, 2 * kPage, PROT_READ, MAP_SHARED, fd, 0);
  CHECK_FAILS(madvise(q, 2 * kPage, MADV_POPULATE_READ), EFAULT);
  munmap(p, 2 * kPage), munmap(q, 2 * kPage);
  close(fd);
}
static void madvise_errors(void) {
  char* p = new_pages(3);
  CHECK_FAILS(madvise(p + 1, kPage, MADV_NORMAL), EINVAL);
  CHECK_FAILS(madvise(p, kPage, 9999), EINVAL);
  munmap(p + kPage, kPage);
  CHECK_FAILS(madvise(p, 3 * kPage, MADV_DONTNEED), ENOMEM);
  munmap(p, 3 * kPage);
}
static void huge_page_is_asked_for(void) {
  const size_t kHuge = 2ul << 20;
  char* area = mmap(NULL, 3 * kHuge, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  char* p = (char*)(((uintptr_t)area + kHuge - 1) & ~(kHuge - 1));
  madvise(p, kHuge, MADV_HUGEPAGE); // a kernel without them refuses
  for (size_t i = 0; i < kHuge; i += kPage)
    p[i] = (char)(i / kPage);
  CHECK(mprotect(p + 5 * kPage, kPage, PROT_READ) == 0); // splits it
  CHECK(access_raises(p + 5 * kPage, kWrite) == SIGSEGV);
  CHECK(madvise(p + 9 * kPage, kPage, MADV_DONTNEED) == 0);
  for (size_t i = 0; i < kHuge; i += kPage)
    CHECK(p[i] == (i == 9 * kPage ? 0 : (char)(i / kPage)));
  pid_t child = fork();
  if (child == 0) {
    p[0] = 77;
    _exit(p[6 * kPage]);
  }
  CHECK(status_of(child) == 6 << 8 && p[0] == 0);
  munmap(area, 3 * kHuge);
}
static void huge_tlb(void) {
  const size_t kHuge = 2ul << 20;
  char* p =
      mmap(NULL, kHuge, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
  say("%s", p == MAP_FAILED ? strerror(errno) : "there");
  if (p == MAP_FAILED)
    return;
  p[kHuge - 1] = 1;
  CHECK_FAILS(mprotect(p, kPage, PROT_READ), EINVAL);
  munmap(p, kHuge);
}

// --- System V -----------------------------------------------------------------------------------
static int segment;
static void remove_segment(void) { shmctl(segment, IPC_RMID, NULL); }
static int new_segment(size_t size) {
  segment = shmget(IPC_PRIVATE, size, IPC_CREAT | 0700);
  CHECK(segment >= 0);
  clean_up = remove_segment;
  return segment;
}
static void attached_segment(void) {
  int id = new_segment(3 * kPage);
  char* p = shmat(id, NULL, 0);
  char* q = shmat(id, NULL, SHM_RDONLY);
  CHECK(shmctl(id, IPC_RMID, NULL) == 0);
  CHECK(p != (void*)-1 && q != (void*)-1);
  p[kPage] = 5;
  CHECK(q[kPage] == 5 && raises_at(q, kWrite, SIGSEGV, SEGV_ACCERR));
  CHECK(shmdt(q) == 0 && raises_at(q, kRead, SIGSEGV, SEGV_MAPERR));
  CHECK_FAILS(shmdt(q), EINVAL);
  struct shmid_ds state;
  CHECK(shmctl(id, IPC_STAT, &state) == 0 && state.shm_nattch == 1);
  CHECK(shmdt(p) == 0);
  CHECK_FAILS((long)shmat(id, NULL, 0), EINVAL); // the last one is gone, and so is it
}
static void segment_over_a_mapping(void) {
  int id = new_segment(kPage);
  char* p = new_pages(2);
  p[0] = 1, p[kPage] = 2;
  CHECK_FAILS((long)shmat(id, p, 0), EINVAL);
  CHECK_FAILS((long)shmat(id, p + 1, 0), EINVAL);
  CHECK(shmat(id, p, SHM_REMAP) == p && p[0] == 0 && p[kPage] == 2);
  CHECK(shmctl(id, IPC_RMID, NULL) == 0 && shmdt(p) == 0);
  CHECK(access_raises(p, kRead) == SIGSEGV);
  munmap(p, 2 * kPage);
}

// --- Where nothing is ---------------------------------------------------------------------------
// Between the heap and what mmap gives is a hole, wherever the kernel has put them. (In Dune mode
// it is where the agent has its room.)
static const uintptr_t kHoleBegin = 0x7e0000000000, kHoleEnd = 0x7ec000000000;
static void a_hole_is_one_to_every_call(void) {
  unsigned char in_core;
  for (uintptr_t at = kHoleBegin; at < kHoleEnd; at += 1ul << 32) {
    void* p = (void*)at;
    CHECK_FAILS(mincore(p, kPage, &in_core), ENOMEM);
    CHECK_FAILS(msync(p, kPage, MS_ASYNC), ENOMEM);
    CHECK_FAILS(mlock(p, kPage), ENOMEM);
    CHECK_FAILS(mlock2(p, kPage, MLOCK_ONFAULT), ENOMEM);
    CHECK_FAILS(munlock(p, kPage), ENOMEM);
    CHECK_FAILS(madvise(p, kPage, MADV_NORMAL), ENOMEM);
    CHECK_FAILS(mremap(p, kPage, 2 * kPage, MREMAP_MAYMOVE), EFAULT);
    CHECK_FAILS(remap_file_pages(p, kPage, 0, 0, 0), EINVAL);
    CHECK_FAILS(syscall(SYS_mbind, p, kPage, 1 /* MPOL_PREFERRED */, NULL, 0, 0), EFAULT);
    CHECK_FAILS(syscall(SYS_pkey_mprotect, p, kPage, PROT_READ, -1), ENOMEM); // libc has mprotect
    CHECK(syscall(462 /* mseal */, p, kPage, 0) == -1 && (errno == ENOMEM || errno == ENOSYS));
    CHECK_FAILS(mprotect(p, kPage, PROT_READ), ENOMEM);
  }
}
static void a_hole_can_be_unmapped(void) {
  void* hole = (void*)kHoleBegin;
  CHECK_FAILS(madvise(hole, kHoleEnd - kHoleBegin, MADV_DONTNEED), ENOMEM);
  CHECK(munmap(hole, kHoleEnd - kHoleBegin) == 0);
  CHECK(getppid() > 0); // and on it goes
}

// --- Code that is replaced by what cannot be executed --------------------------------------------
static void a_mapping_replaces_code(void) {
  int fd = new_file(kPage);
  CHECK(pwrite(fd, "\xc3", 1, 0) == 1); // ret
  char* p = mmap(NULL, kPage, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0);
  CHECK(p != MAP_FAILED && access_raises(p, kExecute) == 0);
  CHECK(mmap(p, kPage, PROT_READ, MAP_PRIVATE | MAP_FIXED, fd, 0) == p);
  CHECK(raises_at(p, kExecute, SIGSEGV, SEGV_ACCERR));
  munmap(p, kPage);
  close(fd);
}
static void a_segment_replaces_code(void) {
  int id = new_segment(kPage);
  char* p = shmat(id, NULL, SHM_EXEC);
  CHECK(p != (void*)-1);
  p[0] = (char)0xc3; // ret
  CHECK(access_raises(p, kExecute) == 0);
  CHECK(shmat(id, p, SHM_REMAP) == p);
  CHECK(raises_at(p, kExecute, SIGSEGV, SEGV_ACCERR));
  CHECK(shmdt(p) == 0);
  remove_segment();
}

// --- What else looks at mappings ----------------------------------------------------------------
static void mincore_answers(void) {
  char* p = new_pages(4);
  unsigned char in_core[4] = {9, 9, 9, 9};
  p[kPage] = 1;
  CHECK(mincore(p, 4 * kPage, in_core) == 0);
  CHECK((in_core[0] & 1) == 0 && (in_core[1] & 1) == 1);
  CHECK_FAILS(mincore(p + 1, kPage, in_core), EINVAL);
  munmap(p, kPage);
  CHECK_FAILS(mincore(p, 4 * kPage, in_core), ENOMEM);
  munmap(p, 4 * kPage);
}
static void locked_memory(void) {
  char* p = new_pages(4);
  CHECK(mlock(p, 2 * kPage) == 0);
  unsigned char in_core[4];
  CHECK(mincore(p, 2 * kPage, in_core) == 0 && (in_core[0] & in_core[1] & 1));
  CHECK_FAILS(madvise(p, kPage, MADV_DONTNEED), EINVAL);
  CHECK_FAILS(msync(p, kPage, MS_INVALIDATE), EBUSY);
  CHECK(munlock(p, 2 * kPage) == 0 && madvise(p, kPage, MADV_DONTNEED) == 0);
  munmap(p, 4 * kPage);
  CHECK_FAILS(mlock(p, kPage), ENOMEM);
}
static void address_space_limit(void) {
  struct rlimit old, small;
  CHECK(getrlimit(RLIMIT_AS, &old) == 0);
  small = old;
  small.rlim_cur = 1ul << 20;
  CHECK(setrlimit(RLIMIT_AS, &small) == 0);
  void* p = mmap(NULL, 4ul << 20, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  int error = errno;
  CHECK(setrlimit(RLIMIT_AS, &old) == 0);
  CHECK(p == MAP_FAILED && error == ENOMEM);
}
static void copied_on_write_in_both(void) {
  char* p = new_pages(64);
  memset(p, 1, 64 * kPage);
  int ends[2];
  CHECK(pipe2(ends, O_CLOEXEC) == 0);
  pid_t child = fork();
  if (child == 0) {
    char go;
    if (read(ends[0], &go, 1) != 1)
      _exit(99);
    int wrong = 0;
    for (size_t i = 0; i < 64 * kPage; i += 512)
      wrong |= p[i] != 1;
    memset(p, 3, 64 * kPage);
    _exit(wrong);
  }
  memset(p, 2, 64 * kPage);
  CHECK(write(ends[1], "g", 1) == 1);
  CHECK(status_of(child) == 0);
  for (size_t i = 0; i < 64 * kPage; i += 512)
    CHECK(p[i] == 2);
  close(ends[0]), close(ends[1]);
  munmap(p, 64 * kPage);
}
static void zero_page_is_read_then_written(void) {
  volatile char* p = new_pages(2);
  CHECK(p[5] == 0 && p[kPage + 5] == 0);
  p[5] = 1;
  CHECK(p[5] == 1 && p[6] == 0 && p[kPage + 5] == 0);
  munmap((void*)p, 2 * kPage);
}
static void the_kernel_faults_pages_in(void) {
  int ends[2];
  CHECK(pipe2(ends, O_CLOEXEC) == 0);
  char* p = new_pages(4);
  CHECK(write(ends[1], "abcdefgh", 8) == 8);
  CHECK(read(ends[0], p + kPage - 4, 8) == 8); // over two pages that nobody has touched
  CHECK(memcmp(p + kPage - 4, "abcdefgh", 8) == 0);
  CHECK(mprotect(p + kPage, kPage, PROT_READ) == 0);
  CHECK(write(ends[1], "12345678", 8) == 8);
  CHECK_FAILS(read(ends[0], p + kPage, 8), EFAULT);
  close(ends[0]), close(ends[1]);
  munmap(p, 4 * kPage);
}
static void other_process_memory(void) {
  char* p = new_pages(1);
  char copy[8] = "", changed[8] = "changed";
  strcpy(p, "before");
  struct iovec here = {copy, 7}, there = {p, 7};
  CHECK(process_vm_readv(getpid(), &here, 1, &there, 1, 0) == 7 && strcmp(copy, "before") == 0);
  here.iov_base = changed;
  CHECK(process_vm_writev(getpid(), &here, 1, &there, 1, 0) == 7 && memcmp(p, "changed", 7) == 0);
  munmap(p, kPage);
  CHECK_FAILS(process_vm_readv(getpid(), &here, 1, &there, 1, 0), EFAULT);
}
static void proc_self_mem(void) {
  char* p = new_pages(1);
  CHECK(mprotect(p, kPage, PROT_READ) == 0);
  int fd = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
  CHECK(pwrite(fd, "forced", 6, (off_t)(uintptr_t)p) == 6 && memcmp(p, "forced", 6) == 0);
  munmap(p, kPage);
  char byte;
  CHECK_FAILS(pread(fd, &byte, 1, (off_t)(uintptr_t)p), EIO);
  close(fd);
}
static void protection_keys(void) {
  int key = (int)syscall(SYS_pkey_alloc, 0, 0);
  say("%s", key < 0 ? strerror(errno) : "there");
  if (key < 0)
    return;
  char* p = new_pages(1);
  CHECK(syscall(SYS_pkey_mprotect, p, kPage, PROT_READ | PROT_WRITE, key) == 0);
  CHECK(syscall(SYS_pkey_free, key) == 0);
  munmap(p, kPage);
}
static void userfault_is_answered(void) {
  long fd = syscall(SYS_userfaultfd, O_CLOEXEC | 1 /* UFFD_USER_MODE_ONLY */);
  say("%s", fd < 0 ? strerror(errno) : "there");
  if (fd >= 0)
    close((int)fd);
}

#define AREA "memory"
const struct Case cases[] = {
    ROW(anonymous_is_zero, mmap munmap),
    ROW(fixed_replaces, mmap),
    ROW(fixed_noreplace, mmap),
    ROW(mmap_errors, mmap),
    ROW(private_file_is_copied, mmap pread64),
    ROW(shared_file_is_shared, mmap msync pwrite64),
    ROW(shared_with_a_child, mmap clone),
    ROW(beyond_the_end_of_a_file, mmap ftruncate #PF),
    ROW(truncated_while_mapped, ftruncate fallocate),
    ROW(populated, mmap mincore),
    ROW(below_4g, mmap),
    ROW(hint_above_47_bits, mmap),
    ROW(grows_down, mmap #PF),
    ROW(the_stack_grows, #PF),
    ROW(the_kernel_writes_into_the_grown_stack, read),
    ROW(unmapped_faults, munmap #PF),
    ROW(munmap_errors, munmap),
    ROW(moved_over_while_read, mremap),
    ROW(rights_are_kept_to, mprotect #PF),
    ROW(rights_of_a_part, mprotect #PF),
    ROW(mprotect_errors, mprotect),
    ROW(code_is_rewritten, mmap),
    ROW(code_through_another_mapping, mmap),
    ROW(taken_from_a_running_thread, mprotect #PF),
    ROW(grows_in_place_or_moves, mremap),
    ROW(moves_to_an_address, mremap),
    ROW(keeps_the_old_one_mapped, mremap),
    ROW(doubles_a_shared_one, mremap),
    ROW(mremap_errors, mremap),
    ROW(brk_moves_the_end, brk),
    ROW(brk_refuses_with_the_old_end, brk prlimit64),
    ROW(dontneed_zeroes, madvise),
    ROW(dontneed_shows_the_file, madvise),
    ROW(dontneed_by_another_thread, madvise),
    ROW(remove_punches, madvise),
    ROW(dontfork, madvise clone),
    ROW(wiped_on_fork, madvise clone),
    ROW(populate_answers, madvise),
    ROW(madvise_errors, madvise),
    ROW(huge_page_is_asked_for, madvise mprotect clone),
    ROW(huge_tlb, mmap),
    ROW(attached_segment, shmat shmdt shmctl #PF),
    ROW(segment_over_a_mapping, shmat shmdt),
    ROW(a_hole_is_one_to_every_call, mincore msync mlock mlock2 munlock madvise mremap
                                         remap_file_pages mbind pkey_mprotect mprotect),
    ROW(a_hole_can_be_unmapped, madvise munmap),
    ROW(a_mapping_replaces_code, mmap),
    ROW(a_segment_replaces_code, shmat),
    ROW(mincore_answers, mincore),
    ROW(locked_memory, mlock munlock),
    ROW(address_space_limit, prlimit64 mmap),
    ROW(copied_on_write_in_both, clone),
    ROW(zero_page_is_read_then_written, mmap),
    ROW(the_kernel_faults_pages_in, read write),
    ROW(other_process_memory, process_vm_readv process_vm_writev),
    ROW(proc_self_mem, pread64 pwrite64),
    ROW(protection_keys, pkey_alloc pkey_mprotect pkey_free),
    ROW(userfault_is_answered, userfaultfd),
};
const size_t case_count = sizeof cases / sizeof *cases;
