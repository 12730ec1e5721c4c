#include "tests/bench/serving_load.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <deque>
#include <fstream>
#include <memory>
#include <mutex>
#include <random>
#include <sstream>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "core/policy/policy_spec.h"
#include "esper/v1/policy_inference.grpc.pb.h"
#include "grpcpp/create_channel.h"
#include "proto/codec/mask_codec.h"

namespace esper::bench {
namespace {

using SteadyClock = std::chrono::steady_clock;
using Seconds = std::chrono::duration<double>;

constexpr int64_t kOpenAtOnce = 512;
constexpr std::chrono::seconds kDeadline(30);

double SecondsSince(SteadyClock::time_point start) {
  return Seconds(SteadyClock::now() - start).count();
}

double OwnCpu() {
  rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + 1e-6 * time.tv_usec;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

// User and system time of a process, seconds; 0 without one.
double CpuOf(int pid) {
  if (pid == 0) return 0;
  std::ifstream file(absl::StrCat("/proc/", pid, "/stat"));
  std::string text((std::istreambuf_iterator<char>(file)), {});
  // Fields are counted after the name, which may hold anything.
  std::istringstream fields(text.substr(text.rfind(')') + 2));
  std::string skipped;
  for (int i = 0; i < 11; ++i) fields >> skipped;
  double user = 0;
  double system = 0;
  fields >> user >> system;
  return (user + system) / static_cast<double>(sysconf(_SC_CLK_TCK));
}

int64_t ResidentBytes(int pid) {
  if (pid == 0) return 0;
  std::ifstream file(absl::StrCat("/proc/", pid, "/statm"));
  int64_t total = 0;
  int64_t resident = 0;
  file >> total >> resident;
  return resident * sysconf(_SC_PAGESIZE);
}

void Fill(v1::DataType dtype, int64_t rows, int64_t width, std::string data,
          v1::Tensor* tensor) {
  tensor->set_dtype(dtype);
  tensor->add_shape(rows);
  tensor->add_shape(width);
  tensor->set_data(std::move(data));
}

// Environments that step in one call.
struct Group {
  v1::PolicyInference::Stub* stub = nullptr;
  v1::GetActionRequest request;
  v1::GetActionResponse response;
  std::unique_ptr<grpc::ClientContext> context;
  std::unique_ptr<grpc::ClientAsyncResponseReader<v1::GetActionResponse>> call;
  grpc::Status status;
  SteadyClock::time_point due;
};

class Load {
 public:
  explicit Load(const LoadOptions& options)
      : options_(options), spec_(policy::PolicySpec::NetworkGrowing()) {}

  absl::StatusOr<LoadReport> Run() {
    const absl::Status opened = Open();
    if (!opened.ok()) return opened;
    std::thread arrivals;
    start_ = SteadyClock::now();
    if (options_.calls_per_second > 0) {
      arrivals = std::thread([this] { Arrive(); });
    } else {
      const size_t in_flight = options_.in_flight > 0
                                   ? static_cast<size_t>(options_.in_flight)
                                   : groups_.size();
      std::lock_guard<std::mutex> lock(mu_);
      for (size_t i = 0; i < std::min(in_flight, groups_.size()); ++i) {
        StartNext(SteadyClock::now());
      }
    }
    const absl::Status answered = TakeAnswers();
    if (arrivals.joinable()) arrivals.join();
    queue_.Shutdown();
    void* tag = nullptr;
    bool ok = false;
    while (queue_.Next(&tag, &ok)) {
    }
    if (!answered.ok()) return answered;
    return Report();
  }

 private:
  absl::Status Open() {
    for (int i = 0; i < options_.connections; ++i) {
      grpc::ChannelArguments arguments;
      // A connection of its own for each channel.
      arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
      arguments.SetMaxReceiveMessageSize(-1);
      stubs_.push_back(v1::PolicyInference::NewStub(grpc::CreateCustomChannel(
          options_.address, grpc::InsecureChannelCredentials(), arguments)));
    }
    std::vector<std::string> ids;
    for (int64_t begin = 0; begin < options_.environments;
         begin += kOpenAtOnce) {
      v1::OpenEpisodesRequest request;
      const int64_t end = std::min(begin + kOpenAtOnce, options_.environments);
      for (int64_t i = begin; i < end; ++i) {
        v1::EpisodeStart* start = request.add_episodes();
        start->set_environment_key(absl::StrCat(options_.key, "-", i));
        start->set_incarnation(options_.incarnation);
        start->set_seed(static_cast<uint64_t>(i));
      }
      grpc::ClientContext context;
      context.set_wait_for_ready(true);
      context.set_deadline(std::chrono::system_clock::now() + kDeadline);
      v1::OpenEpisodesResponse response;
      const grpc::Status status =
          stubs_.front()->OpenEpisodes(&context, request, &response);
      if (!status.ok()) {
        return absl::UnavailableError(
            absl::StrCat("OpenEpisodes: ", status.error_message()));
      }
      ids.insert(ids.end(), response.episode_ids().begin(),
                 response.episode_ids().end());
    }
    MakeGroups(ids);
    return absl::OkStatus();
  }

  void MakeGroups(const std::vector<std::string>& ids) {
    const codec::MaskCodec codec(spec_);
    v1::Tensor masks;
    codec.Encode(codec.AllowAll(options_.rows), &masks);
    std::mt19937 random(7);
    std::uniform_real_distribution<float> uniform(-1.0f, 1.0f);
    const int64_t rows = options_.rows;
    for (size_t first = 0; first < ids.size(); first += rows) {
      auto group = std::make_unique<Group>();
      group->stub = stubs_[groups_.size() % stubs_.size()].get();
      std::vector<float> values(rows * spec_.observation_width());
      for (float& value : values) value = uniform(random);
      Fill(v1::DATA_TYPE_FLOAT32, rows, spec_.observation_width(),
           std::string(reinterpret_cast<const char*>(values.data()),
                       values.size() * sizeof(float)),
           group->request.mutable_observations());
      Fill(v1::DATA_TYPE_INT8, rows, spec_.categorical_count(),
           std::string(rows * spec_.categorical_count(), '\xff'),
           group->request.mutable_categorical());
      *group->request.mutable_action_masks() = masks;
      for (int64_t row = 0; row < rows; ++row) {
        v1::StepRow* step = group->request.add_rows();
        step->set_episode_id(ids[first + row]);
        step->set_incarnation(options_.incarnation);
      }
      idle_.push_back(group.get());
      groups_.push_back(std::move(group));
    }
  }

  // Starts the call of the group that has been idle longest, or remembers that
  // one is due. Caller holds `mu_`.
  void StartNext(SteadyClock::time_point due) {
    if (idle_.empty()) {
      overdue_.push_back(due);
      return;
    }
    Group* group = idle_.front();
    idle_.pop_front();
    group->due = due;
    group->context = std::make_unique<grpc::ClientContext>();
    group->context->set_deadline(std::chrono::system_clock::now() + kDeadline);
    group->call = group->stub->AsyncGetAction(group->context.get(),
                                              group->request, &queue_);
    group->call->Finish(&group->response, &group->status, group);
    ++running_;
  }

  void Arrive() {
    std::mt19937_64 random(11);
    std::exponential_distribution<double> pause(options_.calls_per_second);
    auto due = start_;
    const auto end = start_ + std::chrono::duration_cast<SteadyClock::duration>(
                                  Seconds(options_.warmup + options_.seconds));
    while (true) {
      due += std::chrono::duration_cast<SteadyClock::duration>(
          Seconds(pause(random)));
      if (due >= end) return;
      std::this_thread::sleep_until(due);
      std::lock_guard<std::mutex> lock(mu_);
      if (failed_) return;
      StartNext(due);
    }
  }

  // Until the time is over and nothing runs.
  absl::Status TakeAnswers() {
    bool measuring = false;
    absl::Status failure;
    while (true) {
      const double now = SecondsSince(start_);
      if (!measuring && now >= options_.warmup) {
        measuring = true;
        client_cpu_ = OwnCpu();
        server_cpu_ = CpuOf(options_.server_pid);
        begin_ = SteadyClock::now();
      }
      const bool over = now >= options_.warmup + options_.seconds;
      if (over && duration_ == 0) EndMeasurement();
      void* tag = nullptr;
      bool ok = false;
      const auto next = queue_.AsyncNext(
          &tag, &ok,
          std::chrono::system_clock::now() + std::chrono::milliseconds(50));
      std::lock_guard<std::mutex> lock(mu_);
      if (next == grpc::CompletionQueue::GOT_EVENT) {
        auto* group = static_cast<Group*>(tag);
        --running_;
        if (!group->status.ok()) {
          failed_ = true;
          if (failure.ok()) {
            failure = absl::UnavailableError(
                absl::StrCat("GetAction: ", group->status.error_message()));
          }
        } else if (!failed_) {
          if (measuring && !over) {
            latencies_.push_back(SecondsSince(group->due));
          }
          for (auto& row : *group->request.mutable_rows()) {
            row.set_step(row.step() + 1);
          }
          idle_.push_back(group);
          if (!overdue_.empty()) {
            const auto due = overdue_.front();
            overdue_.pop_front();
            if (!over) StartNext(due);
          } else if (options_.calls_per_second == 0 && !over) {
            StartNext(SteadyClock::now());
          }
        }
      }
      if ((over || failed_) && running_ == 0) return failure;
    }
  }

  void EndMeasurement() {
    duration_ = SecondsSince(begin_);
    client_cpu_ = OwnCpu() - client_cpu_;
    server_cpu_ = CpuOf(options_.server_pid) - server_cpu_;
  }

  absl::StatusOr<LoadReport> Report() const {
    if (latencies_.empty()) {
      return absl::DeadlineExceededError("No call ended in the given time.");
    }
    LoadReport report;
    const double actions =
        static_cast<double>(latencies_.size() * options_.rows);
    report.actions_per_second = actions / duration_;
    report.calls_per_second =
        static_cast<double>(latencies_.size()) / duration_;
    report.latency = PercentilesOf(latencies_);
    report.client_cpu = 1000 * client_cpu_ / actions;
    report.server_cpu = 1000 * server_cpu_ / actions;
    report.server_bytes = ResidentBytes(options_.server_pid);
    return report;
  }

  const LoadOptions options_;
  const policy::PolicySpec spec_;
  std::vector<std::unique_ptr<v1::PolicyInference::Stub>> stubs_;
  std::vector<std::unique_ptr<Group>> groups_;
  grpc::CompletionQueue queue_;
  SteadyClock::time_point start_;
  SteadyClock::time_point begin_;  // Of the measurement.
  double duration_ = 0;
  double client_cpu_ = 0;
  double server_cpu_ = 0;
  std::vector<double> latencies_;  // Seconds.

  std::mutex mu_;  // Of what follows, shared with the arrivals.
  std::deque<Group*> idle_;
  std::deque<SteadyClock::time_point> overdue_;
  int64_t running_ = 0;
  bool failed_ = false;
};

}  // namespace

Percentiles PercentilesOf(std::vector<double> latencies) {
  std::sort(latencies.begin(), latencies.end());
  const auto at = [&](double share) {
    const size_t index =
        static_cast<size_t>(share * static_cast<double>(latencies.size()));
    return 1e6 * latencies[std::min(index, latencies.size() - 1)];
  };
  return {at(0.5), at(0.99)};
}

std::string LoadReport::ToJson() const {
  return absl::StrFormat(
      "{\"actions_per_second\": %.1f, \"calls_per_second\": %.1f, "
      "\"p50_us\": %.1f, \"p99_us\": %.1f, \"client_cpu\": %.5f, "
      "\"server_cpu\": %.5f, \"server_bytes\": %d}",
      actions_per_second, calls_per_second, latency.p50_us, latency.p99_us,
      client_cpu, server_cpu, server_bytes);
}

absl::StatusOr<LoadReport> RunLoad(const LoadOptions& options) {
  if (options.rows < 1 || options.environments < 1 ||
      options.environments % options.rows != 0 || options.connections < 1) {
    return absl::InvalidArgumentError(
        "environments must be a multiple of rows, and connections positive.");
  }
  return Load(options).Run();
}

}  // namespace esper::bench
