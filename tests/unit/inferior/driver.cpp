#include "tests/unit/inferior/driver.h"

#include <csignal>
#include <cstring>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <sstream>
#include <sys/wait.h>
#include <unistd.h>

namespace ddbg::engine::test {

Folder::Folder() {
  char name[] = "/tmp/ddbg-inferior-XXXXXX";
  path_ = mkdtemp(name);
}
Folder::~Folder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::ostream& operator<<(std::ostream& out, const Outcome& o) {
  return out << o.status << ", output:\n" << o.output;
}

std::string target_path(const std::string& name) {
  return std::string(DDBG_TEST_TARGETS) + "/" + name;
}

std::string file_text(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

std::string status_text(const keeper::ExitStatus& s) {
  switch (s.kind) {
  case keeper::ExitStatus::Kind::kExited:
    return fmt::format("exit {}", s.value);
  case keeper::ExitStatus::Kind::kSignaled:
    return fmt::format("signal {}", s.value);
  case keeper::ExitStatus::Kind::kUnknown:
    break;
  }
  return "unknown";
}

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

Outcome run_native(const std::string& command) {
  Folder folder;
  const std::string line = fmt::format("exec {} > {} 2>&1", command, folder / "output");
  const auto begin = Clock::now();
  const pid_t pid = fork();
  if (pid == 0) {
    setpgid(0, 0);
    execl("/bin/sh", "sh", "-c", line.c_str(), nullptr);
    _exit(127);
  }
  int status = 0;
  waitpid(pid, &status, 0);
  Outcome o;
  o.seconds = seconds_since(begin);
  o.status = WIFSIGNALED(status) ? fmt::format("signal {}", WTERMSIG(status))
                                 : fmt::format("exit {}", WEXITSTATUS(status));
  o.output = file_text(folder / "output");
  return o;
}

Traced::Traced(const std::string& command) {
  auto client = keeper::Client::start();
  if (!client) {
    ADD_FAILURE() << client.error().message;
    return;
  }
  client_ = std::move(*client);
  keeper::LaunchOptions options;
  options.program = command.substr(0, command.find(' '));
  options.shell_command = fmt::format("{} > {} 2>&1", command, folder_ / "output");
  for (char** e = environ; *e; ++e)
    if (strncmp(*e, "SHELL=", 6) != 0)
      options.environment.push_back(*e);
  if (const char* backend = getenv("DDBG_TEST_BACKEND"))
    options.backend = backend;
  auto inferior = Inferior::launch(*client_, options);
  if (!inferior) {
    ADD_FAILURE() << command << ": " << inferior.error().message;
    return;
  }
  inferior_ = std::move(*inferior);
  if (auto started = modules_.start(*inferior_, options.program); !started)
    ADD_FAILURE() << started.error().message;
  begin_ = Clock::now();
}

Traced::~Traced() {
  if (inferior_ && inferior_->alive()) {
    (void)!inferior_->kill();
    if (inferior_->running())
      while (inferior_->alive())
        if (!inferior_->wait())
          break;
  }
}

TargetAddr Traced::symbol(const std::string& name) {
  if (const symbols::LoadedModule* main = modules_.map().main())
    if (auto found = main->module->symbols().find(name); !found.empty())
      return main->to_target(found.front().address);
  ADD_FAILURE() << "no symbol " << name;
  return TargetAddr(0);
}

TargetAddr Traced::symbol_in(const std::string& module, const std::string& name) {
  for (const symbols::LoadedModule& m : modules_.map().modules())
    if (m.path.find(module) != std::string::npos)
      if (auto found = m.module->symbols().find(name); !found.empty())
        return m.to_target(found.front().address);
  ADD_FAILURE() << "no symbol " << name << " in " << module;
  return TargetAddr(0);
}

RecordId Traced::record(TargetAddr address, const RecordSpec& spec) {
  auto id = inferior_->add_record(address, spec);
  if (!id) {
    ADD_FAILURE() << id.error().message;
    return dune::session::kNone;
  }
  return *id;
}

int64_t Traced::read_variable(const std::string& name, unsigned size) {
  int64_t value = 0;
  if (auto ok = inferior_->read_memory(symbol(name), {reinterpret_cast<uint8_t*>(&value), size});
      !ok)
    ADD_FAILURE() << ok.error().message;
  return value;
}

void Traced::run_to_main() {
  const RecordId at_main = record("main");
  Event e = next();
  EXPECT_EQ(e.fired, std::vector<RecordId>{at_main});
  (void)!inferior_->remove_record(at_main);
}

Event Traced::next(const ResumePlan& plan) {
  Event gone;
  gone.kind = Event::Kind::kLost;
  ResumePlan now = plan;
  const auto begin = Clock::now();
  bool timed_out = false;
  for (;;) {
    if (auto ok = inferior_->resume(now); !ok) {
      ADD_FAILURE() << ok.error().message;
      return gone;
    }
    now = {};
    auto e = inferior_->wait([&] {
      if (seconds_since(begin) > give_up)
        return timed_out = true;
      return interrupt && interrupt();
    });
    if (!e) {
      ADD_FAILURE() << e.error().message;
      return gone;
    }
    if (timed_out) {
      ADD_FAILURE() << "the target did not come to an end; its output so far: "
                    << file_text(folder_ / "output");
      (void)!inferior_->kill();
      return gone;
    }
    if (e->kind == Event::Kind::kExeced) {
      modules_.forget_target();
      if (auto ok = modules_.start(*inferior_, ""); !ok)
        ADD_FAILURE() << ok.error().message;
      if (on_exec)
        on_exec();
      continue;
    }
    if (e->kind == Event::Kind::kStopped && e->fired.size() == 1 &&
        modules_.is_linker_record(e->fired[0])) {
      if (auto ok = modules_.refresh(*inferior_); !ok)
        ADD_FAILURE() << ok.error().message;
      continue;
    }
    EXPECT_NE(e->kind, Event::Kind::kLost) << e->text;
    if (e->kind == Event::Kind::kStopped)
      ++stops;
    return std::move(*e);
  }
}

Outcome Traced::outcome(const Event& exited) {
  Outcome o;
  o.seconds = seconds_since(begin_);
  o.status =
      exited.kind == Event::Kind::kExited ? status_text(exited.status) : "lost: " + exited.text;
  o.output = file_text(folder_ / "output");
  return o;
}

Outcome Traced::run_to_end(const std::function<ResumePlan(const Event&)>& at_stop) {
  ResumePlan plan;
  for (;;) {
    const Event e = next(plan);
    if (e.kind != Event::Kind::kStopped)
      return outcome(e);
    plan = at_stop ? at_stop(e) : ResumePlan{};
  }
}

std::vector<uint8_t> condition_constant(bool value) {
  return {0xb8, value, 0, 0, 0, 0xc3}; // mov $value, %eax; ret
}

std::vector<uint8_t> condition_low_bits_zero(dune::Reg reg, uint32_t mask) {
  const uint32_t offset = static_cast<uint32_t>(reg) * 8;
  std::vector<uint8_t> code = {0x8b, 0x87, 0,    0, 0, 0, // mov offset(%rdi), %eax
                               0x25, 0,    0,    0, 0,    // and $mask, %eax
                               0x0f, 0x94, 0xc0,          // sete %al
                               0x0f, 0xb6, 0xc0,          // movzbl %al, %eax
                               0xc3};
  memcpy(&code[2], &offset, 4);
  memcpy(&code[7], &mask, 4);
  return code;
}

} // namespace ddbg::engine::test
