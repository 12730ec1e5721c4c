// Slots in captured CUDA graphs. LibTorch's CUDA library is loaded at run time
// where there is one, and its headers are not part of the build, so the few
// runtime calls are found by name. Without a GPU the tests are skipped.

#include <ATen/core/grad_mode.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cos.h>
#include <ATen/ops/full.h>
#include <ATen/ops/sin.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <dlfcn.h>

#include <functional>
#include <memory>

#include "core/slot/blend.h"
#include "core/slot/recording.h"
#include "core/slot/replay_guard.h"
#include "core/slot/slot_lifecycle.h"
#include "gtest/gtest.h"
#include "tests/core/slot/test_seeds.h"
#include "tests/testing/status_matchers.h"

namespace esper::slot {
namespace {

using at::Tensor;
using ::esper::testing::GrowTo;
using ::esper::testing::IsOk;
using ::esper::testing::MakeLifecycle;
using ::esper::testing::MakeSlot;
using ::esper::testing::Refused;

bool HaveCuda() {
  return c10::impl::hasDeviceGuardImpl(at::kCUDA) &&
         c10::impl::getDeviceGuardImpl(at::kCUDA)->deviceCount() > 0;
}

// Calls a function of the CUDA runtime; a failure fails the test.
template <typename... Args>
void Cuda(const char* name, Args... args) {
  const auto function =
      reinterpret_cast<int (*)(Args...)>(dlsym(RTLD_DEFAULT, name));
  ASSERT_NE(function, nullptr) << name;
  ASSERT_EQ(function(args...), 0) << name;
}

// A graph captured on a stream of its own, which is current while this lives.
class CudaGraph {
 public:
  CudaGraph()
      : cuda_(c10::impl::getDeviceGuardImpl(at::kCUDA)),
        stream_(cuda_->getStreamFromGlobalPool({at::kCUDA, 0})),
        before_(cuda_->exchangeStream(stream_)) {}
  ~CudaGraph() {
    Sync();
    cuda_->exchangeStream(before_);
  }

  // Warms up, so that the allocator has blocks to give, and captures.
  void Capture(const std::function<void()>& work) {
    for (int i = 0; i < 3; ++i) work();
    Sync();
    constexpr int kRelaxed = 2;
    Cuda("cudaStreamBeginCapture", handle(), kRelaxed);
    EXPECT_TRUE(IsCapturing());
    work();
    void* graph = nullptr;
    Cuda("cudaStreamEndCapture", handle(), &graph);
    Cuda("cudaGraphInstantiate", &executable_, graph, 0ULL);
    EXPECT_FALSE(IsCapturing());
  }
  void Replay() {
    Cuda("cudaGraphLaunch", executable_, handle());
    Sync();
  }

 private:
  void* handle() { return cuda_->getStreamNativeHandle(stream_); }
  void Sync() { Cuda("cudaDeviceSynchronize"); }

  const c10::impl::DeviceGuardImplInterface* const cuda_;
  const c10::Stream stream_;
  const c10::Stream before_;
  void* executable_ = nullptr;
};

class CudaGraphTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!HaveCuda()) {
      GTEST_SKIP() << "LibTorch's CUDA library is not loaded, or there is no "
                      "GPU: graphs cannot be captured.";
    }
  }
  Tensor Features(double phase = 0) {
    return at::sin(at::arange(72).mul(0.7).add(phase))
        .reshape({2, 4, 3, 3})
        .to(at::kCUDA);
  }
  std::shared_ptr<SeedSlot> Blending() {
    SeedSlot::Options options;
    options.channels = 4;
    options.device = at::Device(at::kCUDA, 0);
    auto slot = MakeSlot(options);
    GrowTo(lifecycle_, *slot, SeedStage::kBlending);
    EXPECT_OK(lifecycle_.SetAlpha(*slot, 0.3).status());
    return slot;
  }
  const SlotLifecycle lifecycle_ = MakeLifecycle();
};

TEST_F(CudaGraphTest, AReplaySeesANewAlphaWithoutRecapture) {
  const auto slot = Blending();
  const at::NoGradGuard no_grad;
  const Tensor host = Features();
  Tensor out = host.clone();
  CudaGraph graph;
  graph.Capture([&] { out.copy_(slot->forward(host)); });
  const ReplayGuard guard({slot});
  for (const double alpha : {0.3, 0.8, 0.0, 1.0}) {
    ASSERT_OK(lifecycle_.SetAlpha(*slot, alpha).status());
    ASSERT_OK(guard.CheckReplay());
    graph.Replay();
    EXPECT_TRUE(at::allclose(out, slot->forward(host))) << alpha;
  }
}

TEST_F(CudaGraphTest, AStaleGraphIsRefused) {
  const auto slot = Blending();
  const at::NoGradGuard no_grad;
  const Tensor host = Features();
  CudaGraph graph;
  graph.Capture([&] { slot->forward(host); });
  const ReplayGuard guard({slot});
  ASSERT_OK(lifecycle_.Prune(*slot, "test").status());
  EXPECT_THAT(guard.CheckReplay(),
              Refused(absl::StatusCode::kFailedPrecondition, "STALE_CAPTURE"));
}

TEST_F(CudaGraphTest, ForwardAndBackwardOfBlendsReplayOnNewData) {
  const Tensor host = Features().set_requires_grad(true);
  const Tensor seed = Features(1).set_requires_grad(true);
  const Tensor alpha = at::full({}, 0.4, host.options());
  Tensor host_grad = host.detach().clone(), seed_grad = host_grad.clone();
  CudaGraph graph;
  const auto work = [&] {
    host.mutable_grad().reset();
    seed.mutable_grad().reset();
    SteForward(BlendAdd(host, seed, alpha), seed).sum().backward();
    const at::NoGradGuard no_grad;
    host_grad.copy_(host.grad());
    seed_grad.copy_(seed.grad());
  };
  graph.Capture(work);
  {
    const at::NoGradGuard no_grad;
    host.copy_(at::cos(host));
    seed.copy_(at::cos(seed));
  }
  graph.Replay();
  const Tensor replayed_host = host_grad.clone();
  const Tensor replayed_seed = seed_grad.clone();
  work();
  EXPECT_TRUE(at::allclose(replayed_host, host_grad));
  EXPECT_TRUE(at::allclose(replayed_seed, seed_grad));
}

}  // namespace
}  // namespace esper::slot
