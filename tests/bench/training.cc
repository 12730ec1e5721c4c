// One part of the training benchmark (docs/training-service.md); training.sh
// runs them all. Talks to this machine only.
//
//   training in_process  takes steps as standard input says
//   training stream      the same through the server on --port
//   training export      writes the batch, its loss and gradient to --file
//   training error       relative difference of the gradients of bf16, by
//                        parameter; one line of JSON
//   training abandon     gives streams up in the middle; one line of JSON
//   training hold        keeps graphs open until it is killed
//
// Steps: each line of standard input is a number of steps; the answer is a line
// of JSON with the seconds and the CPU seconds of each.
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "ATen/Parallel.h"
#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/synchronization/mutex.h"
#include "spdlog/spdlog.h"
#include "tests/bench/training_in_process.h"
#include "tests/bench/training_stream.h"

ABSL_FLAG(int64_t, rows, 4, "Episodes of the batch.");
ABSL_FLAG(int64_t, steps, 25, "Steps of each.");
ABSL_FLAG(std::string, precision, "fp32", "fp32 or bf16.");
ABSL_FLAG(std::string, file, "", "Where `export` writes.");
ABSL_FLAG(int, port, 0, "Port of the server on 127.0.0.1.");
ABSL_FLAG(int, server_pid, 0, "Process whose memory `abandon` reads.");
ABSL_FLAG(int64_t, warmup, 500, "Streams before the first reading.");
ABSL_FLAG(int64_t, streams, 10000, "Streams of `abandon` or `hold`.");

namespace esper::bench {
namespace {

double CpuSeconds() {
  rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) +
           1e-6 * static_cast<double>(t.tv_usec);
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

// `prepare` runs before each step and is not timed.
absl::Status TakeSteps(const std::function<absl::Status()>& prepare,
                       const std::function<absl::Status()>& step) {
  std::cout << "{}" << std::endl;  // Ready.
  for (int count; std::cin >> count;) {
    std::vector<double> seconds, cpu;
    for (int i = 0; i < count; ++i) {
      if (absl::Status status = prepare(); !status.ok()) return status;
      const double used = CpuSeconds();
      const auto start = std::chrono::steady_clock::now();
      if (absl::Status status = step(); !status.ok()) return status;
      seconds.push_back(std::chrono::duration<double>(
                            std::chrono::steady_clock::now() - start)
                            .count());
      cpu.push_back(CpuSeconds() - used);
    }
    std::cout << "{\"seconds\": [" << absl::StrJoin(seconds, ", ")
              << "], \"cpu\": [" << absl::StrJoin(cpu, ", ") << "]}"
              << std::endl;
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<InProcessTraining>> InProcess(
    policy::TrainingPrecision precision) {
  return InProcessTraining::Create(absl::GetFlag(FLAGS_rows),
                                   absl::GetFlag(FLAGS_steps), precision);
}

absl::Status GradientError() {
  std::vector<tensor::NamedTensors> gradients;
  for (const auto precision :
       {policy::TrainingPrecision::kFp32, policy::TrainingPrecision::kBf16}) {
    const auto training = InProcess(precision);
    if (!training.ok()) return training.status();
    if (auto status = (*training)->Step(); !status.ok()) return status;
    gradients.push_back((*training)->Gradients());
  }
  std::vector<double> errors;
  double worst = 0, squares = 0, total = 0;
  std::string where;
  for (size_t i = 0; i < gradients[0].size(); ++i) {
    const at::Tensor& exact = gradients[0][i].second;
    const double norm = exact.norm().item<double>();
    const double error =
        gradients[1][i].second.sub(exact).norm().item<double>();
    squares += error * error;
    total += norm * norm;
    if (norm == 0) continue;
    errors.push_back(error / norm);
    if (errors.back() > worst) {
      worst = errors.back();
      where = gradients[0][i].first;
    }
  }
  std::sort(errors.begin(), errors.end());
  std::cout << "{\"whole\": " << std::sqrt(squares / total)
            << ", \"median_parameter\": " << errors[errors.size() / 2]
            << ", \"worst_parameter\": " << worst << ", \"worst\": \"" << where
            << "\"}" << std::endl;
  return absl::OkStatus();
}

absl::Status Run(const std::string& part) {
  const std::string address =
      absl::StrCat("127.0.0.1:", absl::GetFlag(FLAGS_port));
  if (part == "stream") {
    const auto training = StreamTraining::Connect(
        address, absl::GetFlag(FLAGS_rows), absl::GetFlag(FLAGS_steps));
    if (!training.ok()) return training.status();
    return TakeSteps([&] { return (*training)->Clear(); },
                     [&] { return (*training)->Step(); });
  }
  if (part == "abandon") {
    const auto report = AbandonStreams(
        absl::GetFlag(FLAGS_port), absl::GetFlag(FLAGS_server_pid),
        absl::GetFlag(FLAGS_warmup), absl::GetFlag(FLAGS_streams));
    if (!report.ok()) return report.status();
    std::cout << report->ToJson() << std::endl;
    return absl::OkStatus();
  }
  if (part == "hold") {
    return HoldGraphs(address, static_cast<int>(absl::GetFlag(FLAGS_streams)));
  }
  if (part == "error") return GradientError();
  const auto precision =
      policy::ParseTrainingPrecision(absl::GetFlag(FLAGS_precision));
  if (!precision.ok()) return precision.status();
  const auto training = InProcess(*precision);
  if (!training.ok()) return training.status();
  if (part == "export") return (*training)->Export(absl::GetFlag(FLAGS_file));
  if (part == "in_process") {
    return TakeSteps([] { return absl::OkStatus(); },
                     [&] { return (*training)->Step(); });
  }
  return absl::InvalidArgumentError(
      "Name a part: in_process, stream, export, error, abandon or hold.");
}

}  // namespace
}  // namespace esper::bench

int main(int argc, char** argv) {
  const std::vector<char*> arguments = absl::ParseCommandLine(argc, argv);
  spdlog::set_level(spdlog::level::warn);
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  at::set_num_threads(1);
  const absl::Status status =
      esper::bench::Run(arguments.size() == 2 ? arguments[1] : "");
  if (!status.ok()) {
    std::cerr << status.ToString() << std::endl;
    return 1;
  }
  return 0;
}
