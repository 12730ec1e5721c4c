#include "client/env/lease_board.h"

#include <utility>

namespace esper::client {

void LeaseBoard::Register(const std::string& worker_id) {
  absl::MutexLock lock(&mu_);
  worker_id_ = worker_id;
  leases_.clear();
  revoked_.clear();
}

std::string LeaseBoard::worker_id() const {
  absl::MutexLock lock(&mu_);
  return worker_id_;
}

void LeaseBoard::Add(const std::string& lease_id) {
  absl::MutexLock lock(&mu_);
  leases_.insert(lease_id);
}

void LeaseBoard::Remove(const std::string& lease_id) {
  absl::MutexLock lock(&mu_);
  leases_.erase(lease_id);
  revoked_.erase(lease_id);
}

std::vector<std::string> LeaseBoard::Leases() const {
  absl::MutexLock lock(&mu_);
  return {leases_.begin(), leases_.end()};
}

void LeaseBoard::Revoke(const std::vector<std::string>& lease_ids) {
  absl::MutexLock lock(&mu_);
  for (const std::string& id : lease_ids) {
    if (leases_.count(id) > 0) revoked_.insert(id);
  }
}

std::set<std::string> LeaseBoard::Revoked() const {
  absl::MutexLock lock(&mu_);
  return revoked_;
}

void LeaseBoard::EndRun() {
  absl::MutexLock lock(&mu_);
  run_ended_ = true;
}

bool LeaseBoard::run_ended() const {
  absl::MutexLock lock(&mu_);
  return run_ended_;
}

void LeaseBoard::CountSteps(int64_t steps) {
  absl::MutexLock lock(&mu_);
  steps_ += steps;
}

int64_t LeaseBoard::TakeSteps() {
  absl::MutexLock lock(&mu_);
  return std::exchange(steps_, 0);
}

void LeaseBoard::ForgetRegistration(const std::string& worker_id) {
  absl::MutexLock lock(&mu_);
  if (worker_id_ == worker_id) worker_id_.clear();
}

}  // namespace esper::client
