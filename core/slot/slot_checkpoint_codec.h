#ifndef ESPER_CORE_SLOT_SLOT_CHECKPOINT_CODEC_H_
#define ESPER_CORE_SLOT_SLOT_CHECKPOINT_CODEC_H_

#include <string>

#include "absl/status/statusor.h"
#include "core/slot/slot_checkpoint.h"

namespace esper::slot {

// A record as one JSON object with a key per field (nested structs as nested
// objects): stage, alpha mode, curve and algorithm by their numbers, other
// enumerations by name, times in RFC 3339 at full precision, absent values as
// null. Numbers come back bit by bit. INVALID_ARGUMENT if one is not finite.
absl::StatusOr<std::string> EncodeSlotRecord(const SlotRecord& record);

// The way back. Every key must be there, and no other. DATA_LOSS
// (CORRUPT_CHECKPOINT) naming the key at fault: missing, unknown, of another
// type, an unknown enumerator, another version, or whatever CheckSlotRecord
// finds.
absl::StatusOr<SlotRecord> DecodeSlotRecord(const std::string& json);

// One slot as a safetensors file: the tensors, and the record as the metadata
// entry "esper.slot". `source` names the file in errors; those of the file
// format as in core/tensor/safetensors.h.
absl::StatusOr<std::string> EncodeSlotCheckpoint(
    const SlotCheckpoint& checkpoint);
absl::StatusOr<SlotCheckpoint> DecodeSlotCheckpoint(const std::string& bytes,
                                                    const std::string& source);

}  // namespace esper::slot
#endif  // ESPER_CORE_SLOT_SLOT_CHECKPOINT_CODEC_H_
