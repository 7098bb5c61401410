// The first process of the machine that scripts/vm starts: loads the modules, runs one command and carries its input, output
// and end through a port, so that they share no line with the kernel's messages.
//
// A frame on the port is a type, the length of what follows (32 bits, little endian), and that. To the host: 'r' the command is
// about to start, 'n' the host may send a frame with so many bytes (32 bits), 'o' and 'e' its output, 'x' how it ended ("exit N",
// "signal N", or what went wrong here). From the host, one for each 'n': 'i' input (none: its end), 'w' the terminal's rows and columns.
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/io.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

enum { kHead = 5, kInput = 4096, kOutput = 32768, kMostStrings = 4096 };

static const char kModules[] = "/vm/modules", kJob[] = "/vm/job";

// How this machine's port works; `port` is the descriptor to read from.
struct port_kind {
  const char *name; // Machine.PORT of scripts/vm_machine.py
  void (*open)(void);
  void (*put)(const void *bytes, size_t size);
  uint32_t input; // bytes of a frame that the host may send at once
};
static const struct port_kind *kind;
static int port = -1;

static void send_frame(char type, const void *bytes, uint32_t size) {
  char head[kHead] = {type};
  memcpy(head + 1, &size, sizeof size);
  kind->put(head, sizeof head);
  kind->put(bytes, size);
}

static void ask_for_input(void) { send_frame('n', &kind->input, sizeof kind->input); }

// The last word. The host switches the machine off when it has read it; an init that returned would make the kernel panic.
__attribute__((noreturn, format(printf, 1, 2))) static void end(const char *format, ...) {
  char text[256];
  va_list arguments;
  va_start(arguments, format);
  const int size = vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  if (port < 0) {
    fprintf(stderr, "init: %s\n", text);
    exit(1);
  }
  send_frame('x', text, (uint32_t)size);
  for (;;)
    pause();
}

static void check(bool good, const char *what) {
  if (!good)
    end("%s: %s", what, strerror(errno));
}

static void mount_all(void) {
  static const struct {
    const char *type, *where, *options;
  } kMounts[] = {
      {"proc", "/proc", NULL},
      {"sysfs", "/sys", NULL},
      {"devtmpfs", "/dev", NULL},
      {"devpts", "/dev/pts", "ptmxmode=666"},
      {"tmpfs", "/dev/shm", "mode=1777"},
  };
  for (size_t i = 0; i < sizeof kMounts / sizeof *kMounts; ++i) {
    mkdir(kMounts[i].where, 0755);
    check(mount(kMounts[i].type, kMounts[i].where, kMounts[i].type, 0, kMounts[i].options) == 0,
          kMounts[i].where);
  }
  mkdir("/tmp", 0);
  chmod("/tmp", 01777);
  static const char *const kLinks[][2] = {{"/proc/self/fd", "/dev/fd"},
                                          {"/proc/self/fd/0", "/dev/stdin"},
                                          {"/proc/self/fd/1", "/dev/stdout"},
                                          {"/proc/self/fd/2", "/dev/stderr"}};
  for (size_t i = 0; i < sizeof kLinks / sizeof *kLinks; ++i)
    check(symlink(kLinks[i][0], kLinks[i][1]) == 0, kLinks[i][1]);
}

// In the order of their names, which says who needs whom; behind a space there are a module's parameters.
static void load_modules(void) {
  struct dirent **found;
  const int count = scandir(kModules, &found, NULL, alphasort);
  check(count >= 0, kModules);
  for (int i = 0; i < count; ++i) {
    if (found[i]->d_name[0] == '.')
      continue;
    char path[512];
    snprintf(path, sizeof path, "%s/%s", kModules, found[i]->d_name);
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    const char *parameters = strchr(found[i]->d_name, ' ');
    check(fd >= 0 && syscall(SYS_finit_module, fd, parameters ? parameters + 1 : "", 0) == 0, path);
    close(fd);
  }
}

// --- the ports -----------------------------------------------------------------------------------

static void open_virtio(void) {
  static const char kPort[] = "/dev/vport0p1";
  const int watch = inotify_init1(IN_CLOEXEC);
  check(watch >= 0 && inotify_add_watch(watch, "/dev", IN_CREATE) >= 0, "inotify");
  while ((port = open(kPort, O_RDWR | O_CLOEXEC)) < 0) {
    check(errno == ENOENT || errno == ENXIO, kPort);
    char events[4096];
    check(read(watch, events, sizeof events) > 0, "inotify");
  }
  close(watch);
}

// Every byte, or the host is gone and nobody is left to tell.
static void put_virtio(const void *bytes, size_t size) {
  for (const char *at = bytes; size > 0;) {
    const ssize_t n = write(port, at, size);
    if (n < 0 && errno == EINTR)
      continue;
    if (n <= 0)
      exit(1);
    at += n;
    size -= (size_t)n;
  }
}

// To the host by a parallel port: an emulator hands on each byte before the processor goes on, so none can be lost, and there is
// no driver and no line speed. From the host by the second serial one, whose receiver holds kFifo bytes: whatever keeps its
// driver from running, the one frame that may be under way fits.
enum { kPrinter = 0x378, kControl = kPrinter + 2, kSelected = 0x0c, kStrobe = 0x01, kFifo = 16 };

static void open_parallel(void) {
  static const char kPort[] = "/dev/ttyS1";
  port = open(kPort, O_RDWR | O_CLOEXEC | O_NOCTTY);
  struct termios settings;
  check(port >= 0 && tcgetattr(port, &settings) == 0, kPort);
  cfmakeraw(&settings);
  settings.c_cflag |= CLOCAL;
  cfsetspeed(&settings, B115200);
  check(tcsetattr(port, TCSANOW, &settings) == 0, kPort);
  check(ioperm(kPrinter, 3, 1) == 0, "ioperm");
}

static void put_parallel(const void *bytes, size_t size) {
  for (const unsigned char *at = bytes; size > 0; --size) {
    outb(*at++, kPrinter);
    outb(kSelected | kStrobe, kControl);
    outb(kSelected, kControl);
  }
}

static const struct port_kind kPorts[] = {
    {"virtio", open_virtio, put_virtio, kInput},
    {"parallel", open_parallel, put_parallel, kFifo - kHead},
};

static void open_port(const char *name) {
  for (size_t i = 0; i < sizeof kPorts / sizeof *kPorts; ++i)
    if (strcmp(kPorts[i].name, name) == 0)
      kind = &kPorts[i];
  if (kind == NULL)
    end("there is no port %s", name);
  kind->open();
}

// --- the command ---------------------------------------------------------------------------------

// What to run, as strings that end in 0: the port; for output and errors each a letter, 't' for the terminal and 'p' for a pipe; rows;
// columns; the folder; how many arguments; those; the environment.
struct job {
  const char *port;
  bool terminal, errors_apart;
  struct winsize size;
  const char *folder;
  char **arguments, **environment;
};

static struct job read_job(void) {
  static char text[1 << 20];
  static char *strings[kMostStrings];
  const int fd = open(kJob, O_RDONLY | O_CLOEXEC);
  check(fd >= 0, kJob);
  size_t size = 0;
  for (ssize_t n; (n = read(fd, text + size, sizeof text - size)) > 0;)
    size += (size_t)n;
  close(fd);
  size_t count = 0;
  for (char *at = text; at < text + size; at += strlen(at) + 1) {
    if (count == kMostStrings || size == sizeof text)
      end("the command line is too long");
    strings[count++] = at;
  }
  struct job job = {.port = strings[0],
                    .terminal = strings[1][0] == 't',
                    .errors_apart = strings[1][1] == 'p',
                    .size = {.ws_row = (unsigned short)atoi(strings[2]),
                             .ws_col = (unsigned short)atoi(strings[3])},
                    .folder = strings[4]};
  // The arguments move down over their number, and a null ends them.
  const int arguments = atoi(strings[5]);
  job.environment = strings + 6 + arguments;
  job.arguments = memmove(strings + 5, strings + 6, (size_t)arguments * sizeof *strings);
  job.arguments[arguments] = NULL;
  return job;
}

// Our ends of the command's three descriptors, -1 once there is no more; with a terminal the first two are the same.
struct ends {
  int in, out, err;
  int terminal; // the command's side of it, open here too: without anyone there a read of our side fails
};

static pid_t start(const struct job *job, struct ends *ends, const sigset_t *signals) {
  int in[2], out[2], err[2] = {-1, -1};
  ends->terminal = -1;
  if (job->terminal) {
    check(openpty(&in[1], &in[0], NULL, NULL, &job->size) == 0, "openpty");
    out[0] = in[1];
    out[1] = ends->terminal = in[0];
  } else {
    check(pipe(in) == 0 && pipe(out) == 0, "pipe");
  }
  check(!job->errors_apart || pipe(err) == 0, "pipe");
  const pid_t pid = fork();
  check(pid >= 0, "fork");
  if (pid == 0) {
    setsid();
    sigprocmask(SIG_UNBLOCK, signals, NULL);
    if (job->terminal)
      ioctl(in[0], TIOCSCTTY, 0);
    dup2(in[0], STDIN_FILENO);
    dup2(out[1], STDOUT_FILENO);
    dup2(job->errors_apart ? err[1] : out[1], STDERR_FILENO);
    close_range(3, ~0u, 0);
    ioperm(kPrinter, 3, 0); // which fork and exec pass on
    if (chdir(job->folder) == 0)
      execvpe(job->arguments[0], job->arguments, job->environment);
    dprintf(STDERR_FILENO, "vm: %s: %s\n", job->arguments[0], strerror(errno));
    _exit(errno == ENOENT ? 127 : 126);
  }
  if (!job->terminal) {
    close(in[0]);
    close(out[1]);
  }
  close(err[1]);
  fcntl(in[1], F_SETFL, O_NONBLOCK);
  ends->in = in[1];
  ends->out = out[0];
  ends->err = err[0];
  return pid;
}

static void drop(int *fd) {
  close(*fd);
  *fd = -1;
}

// Passes on what there is. A pty's other end gives EIO when its last program is gone.
static void pass_output(int *fd, char type) {
  static char bytes[kOutput];
  const ssize_t n = read(*fd, bytes, sizeof bytes);
  if (n > 0)
    send_frame(type, bytes, (uint32_t)n);
  else if (n == 0 || (errno != EAGAIN && errno != EINTR))
    drop(fd);
}

// What the command has not taken yet.
static struct {
  char bytes[kInput];
  size_t done, size;
} input;

static void pass_input(struct ends *ends) {
  const ssize_t n = write(ends->in, input.bytes + input.done, input.size - input.done);
  if (n > 0)
    input.done += (size_t)n;
  else if (errno != EAGAIN && errno != EINTR)
    input.done = input.size; // it reads no more; the first process of a system survives SIGPIPE
  if (input.done == input.size)
    ask_for_input();
}

static void get(void *bytes, size_t size) {
  for (char *at = bytes; size > 0;) {
    const ssize_t n = read(port, at, size);
    if (n < 0 && errno == EINTR)
      continue;
    if (n <= 0)
      exit(1);
    at += n;
    size -= (size_t)n;
  }
}

static void take_frame(struct ends *ends) {
  char type;
  uint32_t size;
  get(&type, sizeof type);
  get(&size, sizeof size);
  if (type == 'w') {
    struct winsize to = {0};
    get(&to.ws_row, sizeof to.ws_row);
    get(&to.ws_col, sizeof to.ws_col);
    ioctl(ends->terminal, TIOCSWINSZ, &to);
    ask_for_input();
  } else if (size == 0 && ends->terminal < 0) {
    drop(&ends->in);
  } else if (size <= kInput) {
    get(input.bytes, size);
    input.done = 0;
    input.size = size;
  } else {
    end("the host sent a frame of %u bytes", size);
  }
}

// Until the command ends; its wait status.
static int serve(pid_t command, struct ends *ends, int children) {
  for (;;) {
    struct pollfd polls[] = {{children, POLLIN, 0},
                             {port, POLLIN, 0},
                             {ends->out, POLLIN, 0},
                             {ends->err, POLLIN, 0},
                             {input.done < input.size ? ends->in : -1, POLLOUT, 0}};
    if (poll(polls, sizeof polls / sizeof *polls, -1) < 0)
      continue;
    if (polls[1].revents)
      take_frame(ends);
    if (polls[2].revents)
      pass_output(&ends->out, 'o');
    if (polls[3].revents)
      pass_output(&ends->err, 'e');
    if (polls[4].revents)
      pass_input(ends);
    if (polls[0].revents) {
      struct signalfd_siginfo ignored;
      check(read(children, &ignored, sizeof ignored) > 0, "signalfd");
      int status;
      for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;)
        if (pid == command)
          return status;
    }
  }
}

int main(void) {
  mount_all();
  const struct job job = read_job();
  load_modules();
  open_port(job.port);

  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGCHLD);
  sigprocmask(SIG_BLOCK, &signals, NULL);
  const int children = signalfd(-1, &signals, SFD_CLOEXEC);
  check(children >= 0, "signalfd");
  // A write waits until the host's side of the port is open, which a read takes for its end.
  send_frame('r', "", 0);
  ask_for_input();
  struct ends ends;
  const pid_t command = start(&job, &ends, &signals);
  const int status = serve(command, &ends, children);

  // Whoever is left goes down with the machine; what they wrote counts.
  kill(-1, SIGKILL);
  while (waitpid(-1, NULL, 0) > 0)
    ;
  if (job.terminal)
    close(ends.terminal);
  while (ends.out >= 0)
    pass_output(&ends.out, 'o');
  while (ends.err >= 0)
    pass_output(&ends.err, 'e');
  if (WIFSIGNALED(status))
    end("signal %d", WTERMSIG(status));
  end("exit %d", WEXITSTATUS(status));
}
