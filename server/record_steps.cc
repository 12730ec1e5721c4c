#include "server/record_steps.h"

#include <algorithm>

#include "esper/v1/tensor.pb.h"
#include "server/recording.h"

namespace esper::server {
namespace {

bool IsRecorded(const StepTicket& ticket) {
  return !ticket.repeated && ticket.episode != nullptr &&
         ticket.episode->recording != nullptr;
}

}  // namespace

void StageSteps(const ActionInput& input, const codec::MaskCodec& masks,
                const std::vector<StepTicket>& tickets) {
  if (std::none_of(tickets.begin(), tickets.end(), IsRecorded)) return;
  v1::Tensor packed;
  if (masks.row_bytes() > 0) masks.Encode(input.masks, &packed);
  const float* observations = input.observations.const_data_ptr<float>();
  const int64_t width = input.observations.size(1);
  const int64_t* categorical = nullptr;
  int64_t slots = 0;
  if (input.categorical.defined()) {
    categorical = input.categorical.const_data_ptr<int64_t>();
    slots = input.categorical.size(1);
  }
  const auto* mask = reinterpret_cast<const uint8_t*>(packed.data().data());
  for (size_t row = 0; row < tickets.size(); ++row) {
    const StepTicket& ticket = tickets[row];
    if (!IsRecorded(ticket)) continue;
    RecordedInput shown;
    shown.observation = observations + row * width;
    if (categorical != nullptr) shown.categorical = categorical + row * slots;
    shown.mask = mask + row * masks.row_bytes();
    ticket.episode->recording->StageStep(shown, ticket.answer);
  }
}

}  // namespace esper::server
