// ddbg-keeper: the process between front end and target. Started by Client::start with one end of a
// socket pair as descriptor 3; not meant to be run by hand.
#include "dtrace-lite/keeper/server.h"

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <initializer_list>
#include <sys/prctl.h>
#include <unistd.h>

int main(int argc, char** argv) {
  if (argc != 2) {
    fprintf(stderr, "ddbg-keeper is started by ddbg.\n");
    return 2;
  }
  // It has to outlive everything the terminal can do to the front end.
  setpgid(0, 0);
  for (int signal : {SIGINT, SIGQUIT, SIGHUP, SIGTERM, SIGTSTP, SIGTTIN, SIGTTOU, SIGPIPE})
    ::signal(signal, SIG_IGN);
  return ddbg::keeper::serve(3, static_cast<pid_t>(atoi(argv[1])));
}
