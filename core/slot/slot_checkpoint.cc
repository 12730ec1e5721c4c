#include "core/slot/slot_checkpoint.h"

#include "absl/strings/str_cat.h"
#include "core/error.h"
#include "core/slot/slot_id.h"

namespace esper::slot {
namespace {

absl::Status Corrupt(const std::string& key, const std::string& what) {
  ErrorDetail detail;
  detail.reason = "CORRUPT_CHECKPOINT";
  detail.field = key;
  detail.hint = "Restore the checkpoint from a good copy.";
  return MakeStatus(absl::StatusCode::kDataLoss, detail,
                    absl::StrCat("Slot checkpoint, ", key, ": ", what, "."));
}

absl::Status CheckStage(const SeedRecord& seed) {
  const StageRecord& stage = seed.stage;
  if (stage.stage == SeedStage::kUnknown ||
      stage.stage == SeedStage::kDormant) {
    return Corrupt("seed.stage.stage",
                   absl::StrCat("no seed is ever ", StageName(stage.stage)));
  }
  if (stage.history.empty() || stage.history.back().first != stage.stage ||
      stage.history.size() > StageMachine::kHistoryLength) {
    return Corrupt(
        "seed.stage.history",
        absl::StrCat("must have 1 to ", StageMachine::kHistoryLength,
                     " entries and end with ", StageName(stage.stage)));
  }
  if (!IsLegalTransition(stage.previous, stage.stage)) {
    return Corrupt("seed.stage.previous",
                   absl::StrCat(StageName(stage.previous), " does not lead to ",
                                StageName(stage.stage)));
  }
  return absl::OkStatus();
}

absl::Status CheckAlpha(const SeedRecord& seed) {
  const auto controller = AlphaController::FromState(seed.alpha);
  if (!controller.ok() || !(controller->state() == seed.alpha)) {
    return Corrupt("seed.alpha", "a number is out of its range");
  }
  const bool moving = seed.alpha.mode != AlphaMode::kHold;
  const bool right_way = !moving || (seed.alpha.mode == AlphaMode::kUp) ==
                                        (seed.alpha.target > seed.alpha.start);
  if (!right_way || (moving && seed.alpha.steps_total == 0)) {
    return Corrupt("seed.alpha.mode",
                   absl::StrCat(AlphaModeName(seed.alpha.mode),
                                " does not go with start, target and steps"));
  }
  if (seed.metrics.current_alpha != seed.alpha.alpha) {
    return Corrupt(
        "seed.metrics.current_alpha",
        absl::StrCat("is ", seed.metrics.current_alpha,
                     " where seed.alpha.alpha is ", seed.alpha.alpha));
  }
  if (!(seed.alpha_target > 0 && seed.alpha_target <= 1)) {
    return Corrupt("seed.alpha_target", "must be in (0, 1]");
  }
  return absl::OkStatus();
}

absl::Status CheckGate(const SlotRecord& record) {
  if (!record.seed) {
    if (record.gate) return Corrupt("gate", "there is no seed to own it");
    return absl::OkStatus();
  }
  const SeedRecord& seed = *record.seed;
  const bool gated = seed.algorithm == AlphaAlgorithm::kGate;
  if (gated != (seed.blend_id == BlendId::kGated)) {
    return Corrupt(
        "seed.blend_id",
        absl::StrCat(BlendIdName(seed.blend_id), " does not go with algorithm ",
                     AlphaAlgorithmName(seed.algorithm)));
  }
  const bool live = !IsFailureStage(seed.stage.stage);
  if (!record.gate) {
    if (gated && live)
      return Corrupt("gate",
                     "a seed that blends by GATE "
                     "has none");
    return absl::OkStatus();
  }
  if (!gated || !live) {
    return Corrupt("gate",
                   absl::StrCat("a seed that blends by ",
                                AlphaAlgorithmName(seed.algorithm), " in ",
                                StageName(seed.stage.stage), " owns none"));
  }
  if (record.gate->algorithm_id != "gated") {
    return Corrupt(
        "gate.algorithm_id",
        absl::StrCat("must be gated, is \"", record.gate->algorithm_id, "\""));
  }
  if (record.gate->total_steps < 1) {
    return Corrupt("gate.total_steps", "must be at least 1");
  }
  return absl::OkStatus();
}

absl::Status CheckCounts(const SlotRecord& record) {
  const SeedRecord& seed = *record.seed;
  if (seed.generation < 1 || seed.generation > record.germinations) {
    return Corrupt("seed.generation",
                   absl::StrCat("must be from 1 to ", record.germinations));
  }
  if (seed.tempo < 1) return Corrupt("seed.tempo", "must be at least 1");
  const std::pair<const char*, int64_t> counts[] = {
      {"seed.stage.previous_epochs", seed.stage.previous_epochs},
      {"seed.metrics.epochs_total", seed.metrics.epochs_total},
      {"seed.metrics.epochs_in_stage", seed.metrics.epochs_in_stage},
      {"seed.metrics.alpha_ramp_step", seed.metrics.alpha_ramp_step},
      {"seed.metrics.host_param_count", seed.metrics.host_param_count},
      {"seed.metrics.seed_param_count", seed.metrics.seed_param_count},
      {"seed.cooldown_ticks", seed.cooldown_ticks},
      {"seed.ste_blocked_steps", seed.ste_blocked_steps},
  };
  for (const auto& [key, count] : counts) {
    if (count < 0) return Corrupt(key, absl::StrCat("is ", count));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckSlotRecord(const SlotRecord& record) {
  if (record.version != kSlotRecordVersion) {
    return Corrupt("version", absl::StrCat("must be ", kSlotRecordVersion,
                                           ", is ", record.version));
  }
  if (const auto id = SlotId::Parse(record.slot_id); !id.ok()) {
    return Corrupt("slot_id", std::string(id.status().message()));
  }
  if (record.channels < 1) return Corrupt("channels", "must be above 0");
  if (absl::Status status = CheckGate(record); !status.ok()) return status;
  if (!record.seed) return absl::OkStatus();
  const SeedRecord& seed = *record.seed;
  if (seed.seed_id.empty()) return Corrupt("seed.seed_id", "is empty");
  if (seed.blueprint_id.empty()) {
    return Corrupt("seed.blueprint_id", "is empty");
  }
  if (absl::Status status = CheckStage(seed); !status.ok()) return status;
  if (absl::Status status = CheckAlpha(seed); !status.ok()) return status;
  return CheckCounts(record);
}

}  // namespace esper::slot
