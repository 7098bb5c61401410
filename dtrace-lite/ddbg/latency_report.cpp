// The report of `ddbg latency` as text, JSON and a chart.
#include "dtrace-lite/ddbg/latency.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace ddbg::ui {

namespace {

std::string time_text(double nanoseconds) {
  if (nanoseconds < 1000)
    return fmt::format("{:.0f} ns", nanoseconds);
  if (nanoseconds < 1e6)
    return fmt::format("{:.2f} us", nanoseconds / 1e3);
  return fmt::format("{:.2f} ms", nanoseconds / 1e6);
}

std::string time_text(const std::optional<double>& nanoseconds) {
  return nanoseconds ? time_text(*nanoseconds) : "-";
}

// What a row is drawn and compared with.
double typical(const LatencyRow& row) { return row.median.value_or(row.mean); }

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text)
    out += c == '<' ? "&lt;" : c == '>' ? "&gt;" : c == '&' ? "&amp;" : std::string(1, c);
  return out;
}

} // namespace

std::string latency_text(const LatencyReport& report) {
  std::string out =
      fmt::format("{}: {}\n{}\n{}\nbetween two events the program takes {}\n\n", report.program,
                  report.event, report.machine, report.load, time_text(report.own_nanoseconds));
  out += fmt::format("{:<20} {:<16} {:>10} {:>11} {:>11} {:>11} {:>9}\n", "", "", "hits", "median",
                     "p99", "mean", "ptrace/it");
  for (const LatencyRow& row : report.rows)
    out += fmt::format("{:<20} {:<16} {:>10} {:>11} {:>11} {:>11} {:>9}\n", row.tracer, row.way,
                       row.hits, time_text(row.median), time_text(row.p99), time_text(row.mean),
                       row.ratio > 0 ? fmt::format("{:.1f}x", row.ratio) : "-");
  out +=
      "\nstop and resume: all threads stop, the tracer has the registers, all run on; timed one by "
      "one,\nthe program's own time taken off. condition false: nothing stops; the run's time less "
      "that of\nthe program alone, divided by the hits. ptrace/it: the faster ptrace row's median, "
      "divided by this.\n";
  return out;
}

std::string latency_json(const LatencyReport& report) {
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  for (const LatencyRow& row : report.rows) {
    nlohmann::ordered_json one = {{"tracer", row.tracer}, {"way", row.way}, {"hits", row.hits}};
    one["median_ns"] = row.median ? nlohmann::ordered_json(*row.median) : nullptr;
    one["p99_ns"] = row.p99 ? nlohmann::ordered_json(*row.p99) : nullptr;
    one["mean_ns"] = row.mean;
    one["ended"] = row.ended;
    one["ratio"] = row.ratio > 0 ? nlohmann::ordered_json(row.ratio) : nullptr;
    rows.push_back(std::move(one));
  }
  const nlohmann::ordered_json all = {{"program", report.program},        {"event", report.event},
                                      {"machine", report.machine},        {"load", report.load},
                                      {"own_ns", report.own_nanoseconds}, {"rows", rows}};
  // Names of files and programs may be any bytes.
  return all.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

// Horizontal bars on a logarithmic scale from 10 ns, or less where something is faster.
std::string latency_svg(const LatencyReport& report) {
  constexpr double kLeft = 260, kWidth = 520, kRow = 26, kTop = 56;
  double least = 10, most = 100;
  for (const LatencyRow& row : report.rows) {
    const double value = std::max(typical(row), 0.1);
    least = std::min(least, value);
    most = std::max(most, value);
  }
  const double low = std::floor(std::log10(least)), high = std::ceil(std::log10(most));
  auto x = [&](double value) {
    return kLeft + kWidth * (std::log10(std::max(value, 0.1)) - low) / (high - low);
  };
  const double bottom = kTop + kRow * static_cast<double>(report.rows.size());
  std::string out =
      fmt::format("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {:.0f} {:.0f}\" "
                  "font-family=\"sans-serif\" font-size=\"12\">\n"
                  "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
                  "<text x=\"10\" y=\"20\" font-size=\"14\">{}: {}, time per event</text>\n"
                  "<text x=\"10\" y=\"38\" fill=\"#666\">{}</text>\n",
                  kLeft + kWidth + 120, bottom + 30, escaped(report.program), escaped(report.event),
                  escaped(report.machine));
  for (double decade = low; decade <= high; ++decade) {
    const double at = x(std::pow(10, decade));
    out += fmt::format("<line x1=\"{0:.1f}\" y1=\"{1:.0f}\" x2=\"{0:.1f}\" y2=\"{2:.0f}\" "
                       "stroke=\"#ccc\"/>\n<text x=\"{0:.1f}\" y=\"{3:.0f}\" fill=\"#666\" "
                       "text-anchor=\"middle\">{4}</text>\n",
                       at, kTop - 6, bottom, bottom + 16, time_text(std::pow(10, decade)));
  }
  double y = kTop;
  for (const LatencyRow& row : report.rows) {
    const double end = x(typical(row));
    const bool ptrace = row.tracer.compare(0, 6, "ptrace") == 0;
    out += fmt::format("<text x=\"{:.0f}\" y=\"{:.0f}\" text-anchor=\"end\">{}, {}</text>\n",
                       kLeft - 8, y + 15, escaped(row.tracer), escaped(row.way));
    out += fmt::format("<rect x=\"{:.0f}\" y=\"{:.0f}\" width=\"{:.1f}\" height=\"{:.0f}\" "
                       "fill=\"{}\"/>\n",
                       kLeft, y + 2, std::max(end - kLeft, 1.0), kRow - 8,
                       ptrace ? "#b0b0b0" : "#3070b0");
    out += fmt::format("<text x=\"{:.1f}\" y=\"{:.0f}\">{}</text>\n", end + 6, y + 15,
                       time_text(typical(row)));
    y += kRow;
  }
  return out + "</svg>\n";
}

} // namespace ddbg::ui
