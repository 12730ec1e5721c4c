#include "core/slot/recording.h"

#include <ATen/TracerMode.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <dlfcn.h>

#include <atomic>

namespace esper::slot {
namespace {

// By name, since this library is built without CUDA's headers and runs with
// and without its runtime.
using CudaStreamIsCapturing = int (*)(void* stream, int* status);

bool CudaIsCapturing() {
  if (!c10::impl::hasDeviceGuardImpl(at::kCUDA)) return false;
  static const auto stream_is_capturing =
      reinterpret_cast<CudaStreamIsCapturing>(
          dlsym(RTLD_DEFAULT, "cudaStreamIsCapturing"));
  const auto* cuda = c10::impl::getDeviceGuardImpl(at::kCUDA);
  if (stream_is_capturing == nullptr || cuda->deviceCount() == 0) return false;
  const c10::Stream stream = cuda->getStream(cuda->getDevice());
  int status = 0;  // cudaStreamCaptureStatusNone.
  return stream_is_capturing(cuda->getStreamNativeHandle(stream), &status) ==
             0 &&
         status != 0;
}

std::atomic<CaptureProbe>& Probe() {
  static std::atomic<CaptureProbe> probe{&CudaIsCapturing};
  return probe;
}

}  // namespace

bool IsCapturing() { return Probe().load(std::memory_order_relaxed)(); }

bool IsTracing() { return at::tracer::impl::is_dispatch_enabled(); }

CaptureProbe ExchangeCaptureProbe(CaptureProbe probe) {
  return Probe().exchange(probe != nullptr ? probe : &CudaIsCapturing);
}

}  // namespace esper::slot
