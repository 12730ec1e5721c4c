#include "core/slot/rank_exchange.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/dist/frame.h"
#include "core/error.h"

namespace esper::slot {
namespace {

constexpr size_t kSlotIdBytes = 24;  // "r2147483647c2147483647" has 22.
// Fields that say which decision it is, before those that say what a rank
// makes of it.
constexpr size_t kIdentityBytes = 51;
constexpr size_t kStatusCodeAt = 53;

absl::Status Disagree(const std::string& message) {
  ErrorDetail detail;
  detail.reason = "RANKS_DISAGREE";
  detail.hint =
      "Every rank must make the same lifecycle calls, in the same order, on "
      "the same state.";
  return MakeStatus(absl::StatusCode::kFailedPrecondition, detail, message);
}

// For people; `bytes` may be anything of the right length.
std::string Describe(const std::string& bytes) {
  dist::ByteReader reader(bytes);
  const std::string slot_id = reader.Raw(kSlotIdBytes);
  const uint64_t sequence = reader.U64();
  const uint64_t generation = reader.U64();
  const uint64_t hash = reader.U64();
  const auto decision = static_cast<Decision>(reader.U8());
  const auto stage = [&reader] {
    const auto known = StageFromNumber(reader.U8());
    return known.ok() ? StageName(*known) : "?";
  };
  const std::string from = stage();
  const std::string target = stage();
  return absl::StrCat(DecisionName(decision), " ", slot_id.c_str(), " #",
                      sequence, " of seed ", generation, ", ", from, " to ",
                      target, ", configuration ", absl::Hex(hash), ", refusal ",
                      RefusalName(static_cast<Refusal>(reader.U8())));
}

void WriteList(const std::vector<std::string>& texts,
               dist::ByteWriter& writer) {
  writer.U32(static_cast<uint32_t>(texts.size()));
  for (const std::string& text : texts) writer.Text(text);
}

std::vector<std::string> ReadList(dist::ByteReader& reader) {
  std::vector<std::string> texts;
  const uint32_t count = reader.U32();
  for (uint32_t i = 0; i < count && reader.ok(); ++i) {
    texts.push_back(reader.Text());
  }
  return texts;
}

// What a rank sent: its fingerprint, then the words of its error.
struct RankView {
  std::string fingerprint;
  absl::StatusCode code = absl::StatusCode::kOk;
  std::string message;
};

absl::StatusOr<RankView> ReadView(const std::string& bytes) {
  dist::ByteReader reader(bytes);
  RankView view;
  view.fingerprint = reader.Raw(kFingerprintBytes);
  view.message = reader.Text();
  if (!reader.done()) {
    return absl::DataLossError("A rank sent something else than a decision.");
  }
  view.code = static_cast<absl::StatusCode>(
      static_cast<uint8_t>(view.fingerprint[kStatusCodeAt]));
  return view;
}

// The same on every rank, or the caller's own error if all ranks met it.
absl::Status CheckAgreement(const std::vector<RankView>& views,
                            const absl::Status& own) {
  bool same_error = true;
  int failed = -1;
  for (size_t rank = 0; rank < views.size(); ++rank) {
    same_error &= views[rank].code == views[0].code &&
                  views[rank].message == views[0].message;
    if (failed < 0 && views[rank].code != absl::StatusCode::kOk) {
      failed = static_cast<int>(rank);
    }
  }
  if (failed >= 0) {
    if (same_error) return own;
    return absl::Status(
        views[failed].code,
        absl::StrCat("Rank ", failed, ": ", views[failed].message));
  }
  for (size_t rank = 1; rank < views.size(); ++rank) {
    if (views[rank].fingerprint == views[0].fingerprint) continue;
    const bool other = views[rank].fingerprint.substr(0, kIdentityBytes) !=
                       views[0].fingerprint.substr(0, kIdentityBytes);
    return Disagree(
        absl::StrCat(other ? "Ranks take different decisions"
                           : "Ranks make different things of a decision",
                     ": rank 0 ", Describe(views[0].fingerprint), "; rank ",
                     rank, " ", Describe(views[rank].fingerprint), "."));
  }
  return absl::OkStatus();
}

}  // namespace

std::string Fingerprint(const DecisionKey& key, const LocalOutcome& local) {
  dist::ByteWriter writer;
  std::string slot_id = key.slot_id;
  slot_id.resize(kSlotIdBytes, '\0');
  writer.Raw(slot_id);
  writer.U64(key.sequence);
  writer.U64(key.generation);
  writer.U64(key.config_hash);
  writer.U8(static_cast<uint8_t>(key.decision));
  writer.U8(static_cast<uint8_t>(key.from));
  writer.U8(static_cast<uint8_t>(key.target));
  writer.U8(static_cast<uint8_t>(local.refusal));
  writer.U8(local.verdict.has_value());
  const bool failed = !local.status.ok() && local.refusal == Refusal::kNone;
  writer.U8(failed ? static_cast<uint8_t>(local.status.code()) : 0);
  std::string bytes = writer.bytes();
  bytes.resize(kFingerprintBytes, '\0');
  return bytes;
}

std::string EncodeVerdict(const GateResult& verdict) {
  dist::ByteWriter writer;
  writer.U8(static_cast<uint8_t>(verdict.level));
  writer.U8(verdict.passed);
  writer.F64(verdict.score);
  writer.Text(verdict.message);
  WriteList(verdict.checks_passed, writer);
  WriteList(verdict.checks_failed, writer);
  return writer.bytes();
}

absl::StatusOr<GateResult> DecodeVerdict(const std::string& bytes) {
  dist::ByteReader reader(bytes);
  const int level = reader.U8();
  GateResult verdict;
  verdict.level = static_cast<GateLevel>(level);
  const int passed = reader.U8();
  verdict.passed = passed == 1;
  verdict.score = reader.F64();
  verdict.message = reader.Text();
  verdict.checks_passed = ReadList(reader);
  verdict.checks_failed = ReadList(reader);
  if (!reader.done() || passed > 1 || level == 4 || level > 5) {
    return absl::DataLossError("A rank sent something else than a verdict.");
  }
  return verdict;
}

absl::StatusOr<std::optional<GateResult>> RankExchange::Agree(
    const DecisionKey& key, const LocalOutcome& local) {
  absl::MutexLock lock(&mu_);
  dist::ByteWriter mine;
  mine.Raw(Fingerprint(key, local));
  const bool failed = !local.status.ok() && local.refusal == Refusal::kNone;
  mine.Text(failed ? std::string(local.status.message()) : std::string());
  const auto all = group_->AllGather(mine.bytes());
  if (!all.ok()) return all.status();
  std::vector<RankView> views;
  for (const std::string& bytes : *all) {
    auto view = ReadView(bytes);
    if (!view.ok()) return view.status();
    views.push_back(*std::move(view));
  }
  if (absl::Status status = CheckAgreement(views, local.status); !status.ok()) {
    return status;
  }
  if (!local.verdict) return std::optional<GateResult>();

  const auto bytes = group_->Broadcast(0, EncodeVerdict(*local.verdict));
  if (!bytes.ok()) return bytes.status();
  auto verdict = DecodeVerdict(*bytes);
  if (!verdict.ok()) return verdict.status();
  verdict->at = local.verdict->at;
  if (verdict->passed != local.verdict->passed) {
    const auto word = [](bool passed) { return passed ? "passed" : "failed"; };
    absl::StrAppend(&verdict->message, " [Rank 0: ", word(verdict->passed),
                    "; rank ", group_->rank(), ": ",
                    word(local.verdict->passed), ".]");
  }
  return std::optional<GateResult>(*std::move(verdict));
}

}  // namespace esper::slot
