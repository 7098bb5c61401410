// ledger once: threads, signals, children and stores, so many of each that counts can be checked.
// ledger on: the same again and again, until it is killed.
#include <csignal>
#include <cstdio>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <vector>

static constexpr int kThreads = 3, kEntries = 200;
long total; // watched
static volatile long signals;

class Account {
public:
  virtual ~Account() = default;
  virtual long add(long amount) {
    balance_ += amount;
    return balance_;
  }

protected:
  long balance_ = 0;
};

class Limited : public Account {
public:
  explicit Limited(long limit) : limit_(limit) {}
  long add(long amount) override {
    if (balance_ + amount > limit_)
      throw std::runtime_error("over the limit");
    return Account::add(amount);
  }

private:
  long limit_;
};

template <class T> T sum(const std::vector<T>& values) {
  T result{};
  for (const T& value : values)
    result += value;
  return result;
}

static void keep_books() {
  Account account;
  for (long entry = 0; entry < kEntries; ++entry)
    account.add(entry);
}

static void on_signal(int) { signals = signals + 1; }

static void once() {
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i)
    threads.emplace_back(keep_books);
  for (std::thread& thread : threads)
    thread.join();
  std::unique_ptr<Account> account = std::make_unique<Limited>(10);
  try {
    for (long amount = 1; amount < 10; ++amount)
      total = account->add(amount);
  } catch (const std::exception& error) {
    total += sum(std::vector<long>{1, 2, 3});
  }
  raise(SIGUSR1);
  const pid_t child = fork();
  if (child == 0)
    _exit(static_cast<int>(Account().add(3)));
  int status = 0;
  waitpid(child, &status, 0);
  total += WEXITSTATUS(status);
}

int main(int, char** argv) {
  std::signal(SIGUSR1, on_signal);
  do {
    once();
    if (total == 19 && signals == 1)
      puts("total 19, a signal");
    fflush(stdout);
  } while (std::strcmp(argv[1], "on") == 0);
  return static_cast<int>(total);
}
