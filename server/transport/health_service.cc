#include "server/transport/health_service.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace esper::server {

using grpc::health::v1::HealthCheckRequest;
using grpc::health::v1::HealthCheckResponse;

// One stream of Watch: writes the status whenever it is another one than the
// last that was written. Deletes itself.
class HealthWatch final : public grpc::ServerWriteReactor<HealthCheckResponse> {
 public:
  HealthWatch(HealthService* service, std::string name)
      : service_(service), name_(std::move(name)) {}

  void Begin() {
    if (!service_->Add(this)) {
      End();
      return;
    }
    Update();
  }

  // Under the service's lock, or before anybody else knows this.
  void Update() ABSL_LOCKS_EXCLUDED(mu_) {
    absl::MutexLock lock(&mu_);
    WriteIfNews();
  }

  void End() ABSL_LOCKS_EXCLUDED(mu_) {
    absl::MutexLock lock(&mu_);
    FinishOnce(grpc::Status(grpc::StatusCode::UNAVAILABLE,
                            "The server is shutting down."));
  }

  void OnWriteDone(bool ok) override {
    absl::MutexLock lock(&mu_);
    writing_ = false;
    if (!ok) {
      FinishOnce(grpc::Status::CANCELLED);
    } else {
      WriteIfNews();
    }
  }
  void OnCancel() override {
    absl::MutexLock lock(&mu_);
    FinishOnce(grpc::Status::CANCELLED);
  }
  void OnDone() override {
    service_->Remove(this);
    delete this;
  }

 private:
  void WriteIfNews() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (writing_ || finished_) return;
    const auto status = service_->StatusOf(name_);
    if (status == last_) return;
    last_ = status;
    response_.set_status(status);
    writing_ = true;
    StartWrite(&response_);
  }
  void FinishOnce(const grpc::Status& status)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (std::exchange(finished_, true)) return;
    Finish(status);
  }

  HealthService* const service_;
  const std::string name_;
  absl::Mutex mu_;
  HealthCheckResponse response_;
  HealthCheckResponse::ServingStatus last_ ABSL_GUARDED_BY(mu_) =
      HealthCheckResponse::UNKNOWN;
  bool writing_ ABSL_GUARDED_BY(mu_) = false;
  bool finished_ ABSL_GUARDED_BY(mu_) = false;
};

HealthService::HealthService(std::map<std::string, Serving> services)
    : services_(std::move(services)) {}

HealthCheckResponse::ServingStatus HealthService::StatusOf(
    const std::string& service) const {
  const auto found = services_.find(service);
  if (found == services_.end()) return HealthCheckResponse::SERVICE_UNKNOWN;
  return found->second() ? HealthCheckResponse::SERVING
                         : HealthCheckResponse::NOT_SERVING;
}

bool HealthService::Add(HealthWatch* watch) {
  absl::MutexLock lock(&mu_);
  if (shut_down_) return false;
  watches_.insert(watch);
  return true;
}

void HealthService::Remove(HealthWatch* watch) {
  absl::MutexLock lock(&mu_);
  watches_.erase(watch);
}

void HealthService::NotifyWatchers() {
  // `OnDone` waits for this lock, so no watch goes away meanwhile.
  absl::MutexLock lock(&mu_);
  for (HealthWatch* watch : watches_) watch->Update();
}

void HealthService::Shutdown() {
  absl::MutexLock lock(&mu_);
  shut_down_ = true;
  for (HealthWatch* watch : watches_) watch->End();
}

grpc::ServerUnaryReactor* HealthService::Check(
    grpc::CallbackServerContext* context, const HealthCheckRequest* request,
    HealthCheckResponse* response) {
  auto* reactor = context->DefaultReactor();
  const auto status = StatusOf(request->service());
  if (status == HealthCheckResponse::SERVICE_UNKNOWN) {
    reactor->Finish(grpc::Status(grpc::StatusCode::NOT_FOUND,
                                 absl::StrCat("There is no service \"",
                                              request->service(), "\" here.")));
    return reactor;
  }
  response->set_status(status);
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

grpc::ServerWriteReactor<HealthCheckResponse>* HealthService::Watch(
    grpc::CallbackServerContext*, const HealthCheckRequest* request) {
  auto* watch = new HealthWatch(this, request->service());
  watch->Begin();
  return watch;
}

}  // namespace esper::server
