// A short program with what is awkward to step: calls that the agent answers or makes itself, repeated
// strings, flags, a fork.
#define _GNU_SOURCE
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void say(const char* text) {
  if (write(1, text, strlen(text)) < 0)
    _exit(1);
}

int main(void) {
  char from[100] = "abc", to[100];
  void *source = from, *target = to;
  size_t count = sizeof from;
  __asm__ volatile("rep movsb" : "+S"(source), "+D"(target), "+c"(count)::"memory");
  __asm__ volatile("pushfq; popfq; pushfq; orq $1, (%%rsp); popfq; std; cld" ::: "cc", "memory");
  sigset_t set, before;
  sigfillset(&set);
  sigprocmask(SIG_BLOCK, &set, &before);
  sigprocmask(SIG_SETMASK, &before, NULL);
  stack_t stack;
  sigaltstack(NULL, &stack);
  say(stack.ss_flags & SS_DISABLE ? "no stack\n" : "wrong\n");
  pid_t child = fork();
  if (child == 0) {
    say("child\n");
    _exit(2);
  }
  int status = 0;
  waitpid(child, &status, 0);
  say(WIFEXITED(status) && WEXITSTATUS(status) == 2 ? "fork\n" : "wrong\n");
  child = vfork();
  if (child == 0)
    _exit(3);
  waitpid(child, &status, 0);
  say(WIFEXITED(status) && WEXITSTATUS(status) == 3 ? "vfork\n" : "wrong\n");
  char* arguments[] = {(char*)"none", NULL};
  execv("/nonexistent", arguments);
  say(to);
  return 6;
}
