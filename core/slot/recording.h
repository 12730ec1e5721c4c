#ifndef ESPER_CORE_SLOT_RECORDING_H_
#define ESPER_CORE_SLOT_RECORDING_H_

// Whether the operators of this thread are being written down to be run again
// later. A number that the host decides on at that time (a forced alpha, say)
// would be frozen into the record.
namespace esper::slot {

// The thread's current CUDA stream is capturing a graph. Asks the CUDA runtime
// only where LibTorch's CUDA library is loaded, and costs two atomic reads
// elsewhere. No device synchronisation.
bool IsCapturing();

// The TorchScript tracer is recording on this thread.
bool IsTracing();

// Replaces what IsCapturing asks; null restores the CUDA runtime. Returns the
// previous probe. For backends that record in their own way, and for tests.
// Any thread may call it; it holds for all threads.
using CaptureProbe = bool (*)();
CaptureProbe ExchangeCaptureProbe(CaptureProbe probe);

}  // namespace esper::slot
#endif  // ESPER_CORE_SLOT_RECORDING_H_
